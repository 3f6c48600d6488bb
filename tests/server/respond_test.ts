import {
  assert,
  assertEquals,
  assertFalse,
  assertInstanceOf,
  assertMatch,
  assertStringIncludes,
} from "@std/assert";
import fc from "fast-check";
import type { App } from "../../bridge/app.ts";
import { type FastCGIOptions, serveFastCGI } from "../../fastcgi.ts";
import { RecordType } from "../../wire/fastcgi.ts";
import { bytes, concat, pattern, text } from "../testing/bytes.ts";
import { deadline } from "../testing/deadline.ts";
import { FakeListener } from "../testing/duplex.ts";
import {
  FastCGIClient,
  request as requestBytes,
  type RequestParts,
  serveOne,
} from "../testing/fastcgi_client.ts";

/** Returns a stream of these chunks, each created when it is pulled. */
function stream(...chunks: (string | Uint8Array | Error)[]): ReadableStream<Uint8Array> {
  const queue = [...chunks];
  return new ReadableStream({
    pull(controller) {
      const chunk = queue.shift();
      if (chunk === undefined) controller.close();
      else if (chunk instanceof Error) controller.error(chunk);
      else controller.enqueue(typeof chunk === "string" ? bytes(chunk) : chunk);
    },
  }, { highWaterMark: 0 });
}

/** Returns a stream that delays each chunk by a turn of the event loop, so that no codec can wait for its end. */
function slowStream(...chunks: string[]): ReadableStream<Uint8Array> {
  const queue = [...chunks];
  return new ReadableStream({
    async pull(controller) {
      await turn();
      const chunk = queue.shift();
      if (chunk === undefined) controller.close();
      else controller.enqueue(bytes(chunk));
    },
  }, { highWaterMark: 0 });
}

function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

Deno.test("the head begins with Status, also 200, and every line ends in CRLF (rules B1, B13)", async () => {
  const response = await serveOne(() =>
    new Response("Hello", { headers: { "x-a": "1", "content-type": "text/plain" } })
  );
  const [status, ...lines] = response.head.split("\r\n");
  assertEquals(status, "Status: 200 OK");
  assertEquals(lines.slice(-3), ["Content-Length: 5", "", ""]);
  assertEquals(lines.slice(0, -3).toSorted(), ["Content-Type: text/plain", "x-a: 1"]);
  assertEquals(text(response.body), "Hello");
});

Deno.test("the reason is the app's or the standard one, without control characters (rules B3, F1)", async () => {
  const cases: [number, string | undefined, string][] = [
    [200, undefined, "200 OK"],
    [404, undefined, "404 Not Found"],
    [404, "Gone Fishing", "404 Gone Fishing"],
    [299, undefined, "299 Unassigned"],
    [500, "\tA\xe9B", "500 AB"],
    [418, "", "418 I'm a teapot"],
  ];
  for (const [status, statusText, line] of cases) {
    const response = await serveOne(() => new Response(null, { status, statusText }));
    assertEquals(response.head.split("\r\n")[0], `Status: ${line}`);
  }
});

Deno.test("a status that no server accepts is an error of the app (rule B4)", async () => {
  const response = await serveOne(() => Response.error());
  assertEquals(response.status, 500);
  assertEquals(text(response.body), "500 Internal Server Error\n");
  assertStringIncludes(
    response.stderr,
    "Cannot send response as its status must be from 200 to 599: current value is 0",
  );
});

Deno.test("a Location with status 200 is sent, and a warning logged (rule B5)", async () => {
  const response = await serveOne(() => new Response(null, { headers: { location: "/x" } }));
  assertEquals([response.status, response.headers.get("location")], [200, "/x"]);
  assertStringIncludes(response.stderr, "A response with status 200 has a Location");
  const redirect = await serveOne(() => Response.redirect("http://example.org/x", 308));
  assertEquals([redirect.status, redirect.stderr], [308, ""]);
  // HAProxy turns a Location after the Status into a 302.
  assert(redirect.head.startsWith("Location: http://example.org/x\r\nStatus: 308 "));
});

Deno.test("CGI fields are spelled as RFC 3875 spells them (rule B7)", async () => {
  // Yaws does not find a length in lower case, and sends it beside its chunks.
  const names = async (response: Response) =>
    (await serveOne(() => response)).fields.map(([name]) => name).toSorted();
  assertEquals(await names(new Response("short")), ["Content-Length", "Content-Type"]);
  assertEquals(await names(new Response(bytes("bytes"))), ["Content-Length", "Content-Type"]);
  assertEquals(
    await names(
      new Response("x".repeat(5000), {
        status: 201,
        headers: { location: "/", "content-length": "9", "x-a": "1" },
      }),
    ),
    ["Content-Length", "Content-Type", "Location", "x-a"],
  );
});

/** Bodies without a type, and whether they are sent as text. */
const UNTYPED: [name: string, body: Uint8Array<ArrayBuffer>, isText: boolean][] = [
  ["ASCII", bytes("403 Forbidden\n"), true],
  ["with white space", bytes("a\tb\r\n\fc"), true],
  ["UTF-8", new TextEncoder().encode("\ufeffgrüß 🦕"), true],
  ["of many bytes", new TextEncoder().encode("ü".repeat(100_000)), true],
  ["with one byte that is not ASCII", bytes("x".repeat(90) + "\xc3\xbc" + "x".repeat(90)), true],
  ["with a control character far behind", bytes("x".repeat(998) + "\x01"), false],
  [
    "with a control character among others",
    bytes("x".repeat(501) + "\x7f" + "x".repeat(500)),
    false,
  ],
  ["with a byte that is invalid", bytes("x".repeat(501) + "\xff" + "x".repeat(500)), false],
  ["that is a view", new Uint8Array(bytes("\0" + "x".repeat(100) + "\0").buffer, 1, 100), true],
  ["empty", bytes(""), true],
  ["NUL", bytes("a\0b"), false],
  ["vertical tab", bytes("a\vb"), false],
  ["escape", bytes("\x1b[2J"), false],
  ["DEL", bytes("a\x7f"), false],
  ["C1", new TextEncoder().encode("a\x85b"), false],
  ["Latin-1", bytes("gr\xfc\xdf"), false],
  ["truncated UTF-8", bytes("a\xc3"), false],
  ["overlong UTF-8", bytes("\xc0\xaf"), false],
  ["a surrogate", bytes("\xed\xa0\x80"), false],
];
for (const [name, body, isText] of UNTYPED) {
  const type = isText ? "text/plain; charset=utf-8" : "application/octet-stream";
  const responses: [kind: string, respond: () => Response][] = [
    ["a body", () => new Response(body)],
    ["a body with a status and a header", () => {
      return new Response(body, { status: 404, headers: { "x-a": "b" } });
    }],
    ["a stream that is in memory", () => new Response(stream(body))],
  ];
  for (const [kind, respond] of responses) {
    Deno.test(`${kind} without a type, ${name}, is ${type} (rule B7)`, async () => {
      const response = await serveOne(respond);
      assertEquals(response.headers.get("content-type"), type);
      assertEquals(response.body, body);
      const head = await serveOne(respond, { variables: { REQUEST_METHOD: "HEAD" } });
      assertEquals(head.headers.get("content-type"), type);
    });
  }
}

Deno.test("isText() finds each byte, wherever it is (rule B7)", async () => {
  for (let byte = 0; byte < 256; byte++) {
    const isControl = byte < 0x20 && ![0x09, 0x0a, 0x0c, 0x0d].includes(byte) || byte === 0x7f;
    for (const at of [0, 1, 2, 3, 66]) {
      const body = new Uint8Array(67).fill(0x78);
      body[at] = byte;
      const { headers } = await serveOne(() => new Response(body));
      const isText = !isControl && byte < 0x80;
      assertEquals(headers.get("content-type") === "text/plain; charset=utf-8", isText, `${byte}`);
    }
  }
});

Deno.test("a text whose type the app has removed is sent as text (rule B7)", async () => {
  for (
    const [body, type] of [["Hello", "text/plain; charset=utf-8"], [
      "\0",
      "application/octet-stream",
    ]]
  ) {
    for (const long of ["", "x".repeat(5000), "ü"]) {
      const response = await serveOne(() => {
        const response = new Response(body + long);
        response.headers.delete("content-type");
        return response;
      });
      assertEquals(response.headers.get("content-type"), type);
    }
  }
});

Deno.test("a stream without a type is application/octet-stream, no body has no type (rule B7)", async () => {
  const typeOf = async (response: Response) =>
    (await serveOne(() => response)).headers.get("content-type");
  for (const body of [slowStream("x"), stream("a", "b")]) {
    assertEquals(await typeOf(new Response(body)), "application/octet-stream");
  }
  assertEquals(await typeOf(new Response("x")), "text/plain;charset=UTF-8");
  assertEquals(await typeOf(new Response(null)), null);
  assertEquals(
    await typeOf(new Response(bytes("x"), { headers: { "content-type": "a/b" } })),
    "a/b",
  );
});

Deno.test("each Set-Cookie has its own line, and other headers are joined (rules B7, B8)", async () => {
  const response = await serveOne(() =>
    new Response(null, {
      headers: [
        ["set-cookie", "a=1; Expires=Thu, 01 Jan 2026 00:00:00 GMT"],
        ["vary", "a"],
        ["set-cookie", "b=2"],
        ["vary", "b"],
      ],
    })
  );
  assertEquals(response.headers.getSetCookie(), [
    "a=1; Expires=Thu, 01 Jan 2026 00:00:00 GMT",
    "b=2",
  ]);
  assertEquals(response.fields.filter(([name]) => name === "set-cookie").length, 2);
  assertEquals(response.fields.filter(([name]) => name === "vary"), [["vary", "a, b"]]);
});

Deno.test("headers of the connection, and Status, are dropped (rules B10, F2)", async () => {
  const names = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "status",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
  ];
  const response = await serveOne(() =>
    new Response("x", {
      headers: [...names.map((name): [string, string] => [name, "404"]), ["x-a", "1"]],
    })
  );
  assertEquals(response.status, 200);
  assertEquals(response.fields.map(([name]) => name).sort(), [
    "Content-Length",
    "Content-Type",
    "x-a",
  ]);
});

Deno.test("header values are sent byte for byte (rule B9)", async () => {
  const response = await serveOne(() =>
    new Response(null, { headers: { "x-a": "caf\xe9 \x80\t;" } })
  );
  assertEquals(response.fields.find(([name]) => name === "x-a")?.[1], "caf\xe9 \x80\t;");
});

Deno.test("a header value with a control character is an error of the app (rules B9, F1)", async () => {
  for (const value of ["\x01", "a\x1bb", "\x7f"]) {
    const response = await serveOne(() => new Response("x", { headers: { "x-a": value } }));
    assertEquals(response.status, 500);
    assertFalse(response.headers.has("x-a"));
    assertStringIncludes(response.stderr, 'Cannot encode header "x-a"');
  }
});

Deno.test("no names, values, statuses or reasons of an app inject a line (rules F1, F10)", async () => {
  const wild = fc.oneof(
    fc.string({ unit: "binary", maxLength: 12 }),
    fc.constantFrom("a\r\nset-cookie: evil=1", "x\n\nbody", "Status", "__proto__", "location"),
  );
  const header = fc.tuple(wild, wild);
  const status = fc.oneof(fc.integer({ min: 200, max: 599 }), fc.integer());
  await fc.assert(
    fc.asyncProperty(
      fc.array(header, { maxLength: 4 }),
      status,
      wild,
      async (headers, status, reason) => {
        let allowed: Headers | undefined;
        const response = await serveOne(() => {
          const response = new Response(null, { headers, status, statusText: reason });
          allowed = response.headers;
          return response;
        });
        const lines = response.head.split(/\r\n|[\r\n]/);
        assertEquals(lines.length, response.fields.length + 3);
        const first = lines.find((line) => !line.startsWith("Location:"))!;
        assertMatch(first, /^Status: [2-5]\d\d [\x20-\x7e]+$/);
        if (
          response.status === 500 && response.headers.get("content-type")?.startsWith("text/plain")
        ) return;
        assert(allowed);
        for (const [name, value] of response.fields) {
          if (name === "Content-Length") continue;
          // Whitespace around a value is not part of it: Headers joins "a" and "" to "a, ". Of "" and "a" it makes ", a",
          // but "a" where it is iterated (Deno 2.9.6).
          const values = [allowed.get(name), new Map(allowed).get(name.toLowerCase())];
          assert(values.some((allowed) => allowed?.replace(/[ \t]+$/, "") === value), value);
        }
        assertEquals(text(response.body), "");
      },
    ),
    {
      numRuns: 300,
      examples: [[[["location", "Status"], ["location", ""]], 200, "location"]],
    },
  );
});

Deno.test("a body in memory has its real Content-Length, whatever the app declared (rule B11)", async () => {
  const cases: [BodyInit | null, string | undefined, string][] = [
    ["Hello", undefined, "5"],
    ["", undefined, "0"],
    [null, undefined, "0"],
    ["Hello", "5", "5"],
    ["Hello", "3", "5"],
    ["Hello", "9", "5"],
    ["Hello", "x", "5"],
    ["Hello", "5, 5", "5"],
    [null, "5", "0"],
  ];
  for (const [body, length, expected] of cases) {
    const response = await serveOne(() =>
      new Response(body, { headers: length === undefined ? {} : { "content-length": length } })
    );
    assertEquals(
      [response.headers.get("content-length"), response.body.length],
      [expected, Number(expected)],
      `${body} ${length}`,
    );
  }
  const wrong = await serveOne(() => new Response("Hello", { headers: { "content-length": "3" } }));
  assertStringIncludes(wrong.stderr, "Content-Length was 3, but the body has 5 bytes: sent as 5");
});

Deno.test("a stream longer than its declared length is truncated (rule B11)", async () => {
  const response = await serveOne(() =>
    new Response(slowStream("Hel", "lo", " and more"), { headers: { "content-length": "5" } })
  );
  assertEquals([text(response.body), response.headers.get("content-length")], ["Hello", "5"]);
  assert(response.complete);
  assertStringIncludes(
    response.stderr,
    "The body is longer than its Content-Length of 5: the rest is dropped",
  );
});

Deno.test("a stream shorter than its declared length aborts the response (rules B11, B17)", async () => {
  const response = await serveOne(() =>
    new Response(slowStream("Hel"), { headers: { "content-length": "5" } })
  );
  assertEquals([text(response.body), response.complete], ["Hel", false]);
  assertStringIncludes(response.stderr, "The body is 2 bytes shorter than its Content-Length of 5");
});

Deno.test("a stream with an invalid length is sent without one (rule B11)", async () => {
  for (const length of ["-1", "x", "5, 5", "0x5"]) {
    const response = await serveOne(() =>
      new Response(slowStream("Hello"), { headers: { "content-length": length } })
    );
    assertEquals([text(response.body), response.headers.has("content-length")], ["Hello", false]);
  }
});

Deno.test("HEAD, 204, 205 and 304 have no body, and the app's is cancelled (rule B12)", async () => {
  const cases: [method: string, status: number, body: boolean][] = [
    ["HEAD", 200, true],
    ["HEAD", 404, true],
    ["GET", 204, false],
    ["GET", 205, false],
    ["GET", 304, false],
  ];
  for (const [REQUEST_METHOD, status, hasBody] of cases) {
    const cancelled = Promise.withResolvers<void>();
    const response = await serveOne(() =>
      new Response(
        hasBody
          ? new ReadableStream({
            async pull(controller) {
              await turn();
              controller.enqueue(bytes("never sent"));
            },
            cancel: () => cancelled.resolve(),
          }, { highWaterMark: 0 })
          : null,
        { status, headers: { "x-a": "1" } },
      ), { variables: { REQUEST_METHOD } });
    assertEquals([response.status, response.body.length, response.complete], [status, 0, true]);
    assertEquals(response.headers.get("x-a"), "1");
    if (hasBody) await deadline(cancelled.promise, "the cancelling of the body");
    if (status === 204 || status === 205) assertFalse(response.headers.has("content-length"));
  }
});

Deno.test("HEAD keeps the length that GET would have (rule B12)", async () => {
  const lengthOf = async (response: Response) =>
    (await serveOne(() => response, { variables: { REQUEST_METHOD: "HEAD" } }))
      .headers.get("content-length");
  assertEquals(
    await lengthOf(new Response(null, { headers: { "content-length": "1234" } })),
    "1234",
  );
  assertEquals(await lengthOf(new Response("Hello")), "5");
  assertEquals(await lengthOf(new Response(null)), null);
  const declared = { headers: { "content-length": "9" } };
  assertEquals(await lengthOf(new Response(slowStream("x"), declared)), "9");
});

Deno.test("a long head is sent whole, and a warning logged (rule B14)", async () => {
  const long = "x".repeat(5000);
  const response = await serveOne(() => new Response(null, { headers: { "x-long": long } }));
  assertEquals(response.headers.get("x-long"), long);
  assertMatch(response.stderr, /^The response has 50\d\d bytes of headers: nginx rejects/m);
  const short = await serveOne(() =>
    new Response(null, { headers: { "x-long": "x".repeat(4000) } })
  );
  assertEquals(short.stderr, "");
});

/** Starts an in-memory server with one client. */
async function using(
  app: App,
  options: FastCGIOptions,
  use: (client: FastCGIClient, written: Uint8Array[]) => Promise<void>,
): Promise<void> {
  const listener = new FakeListener();
  const server = serveFastCGI(app, listener, { log: () => {}, ...options });
  const [ours, theirs] = listener.connect();
  const client = new FastCGIClient(ours);
  try {
    await use(client, theirs.written);
  } finally {
    client.close();
    await deadline(server.shutdown(), "the server's end");
  }
}

Deno.test("a small response is one write: head, body and end (rule B15)", async () => {
  const bodies: (() => BodyInit | null)[] = [
    () => "Hello",
    () => null,
    () => bytes("Hello"),
    () => new Blob(["Hello"]).stream(),
    () => stream("Hello"),
    () => new URLSearchParams("a=b"),
  ];
  for (const body of bodies) {
    await using(() => Promise.resolve(new Response(body())), {}, async (client, written) => {
      await client.send(requestBytes());
      const { status } = await client.response();
      assertEquals([status, written.length], [200, 1], String(body));
    });
  }
});

Deno.test("the head is one record, however long its lines (rules B15, C16)", async () => {
  const headers = { "x-a": "a".repeat(20000), "x-b": "b".repeat(20000) };
  await using(() => new Response("Hello", { headers }), {}, async (client) => {
    await client.send(requestBytes());
    const first = await client.until(({ type }) => type === RecordType.stdout, "the head");
    assertStringIncludes(text(first!.content), "\r\n\r\n");
  });
});

Deno.test("a stream is sent chunk by chunk, each at once (rule B16)", async () => {
  const gates = [0, 1, 2].map(() => Promise.withResolvers<void>());
  const chunks = ["one", "two", "three"];
  const body = () => {
    let at = 0;
    return new ReadableStream({
      async pull(controller) {
        if (at === chunks.length) return controller.close();
        await gates[at].promise;
        controller.enqueue(bytes(chunks[at++]));
      },
    }, { highWaterMark: 0 });
  };
  await using(() => new Response(body()), {}, async (client) => {
    await client.send(requestBytes());
    const head = await client.next("the head, before any of the body");
    assertEquals(text(head!.content).includes("content-length"), false);
    assert(text(head!.content).endsWith("\r\n\r\n"));
    for (const [at, gate] of gates.entries()) {
      gate.resolve();
      assertEquals(text((await client.next(`chunk ${at}`))!.content), chunks[at]);
    }
    assertEquals((await client.response()).complete, true);
  });
});

Deno.test("empty chunks of a body are skipped, as an empty record would end it (rule C16)", async () => {
  const response = await serveOne(() =>
    new Response(stream("", "a", new Uint8Array(), "", "b", ""))
  );
  assertEquals([text(response.body), response.complete], ["ab", true]);
  const slow = await serveOne(() => new Response(slowStream("", "a", "", "b", "")));
  assertEquals([text(slow.body), slow.complete], ["ab", true]);
  const mixed = new ReadableStream<Uint8Array>({
    async start(controller) {
      controller.enqueue(new Uint8Array());
      await turn();
      controller.enqueue(bytes("late"));
      controller.close();
    },
  });
  assertEquals(text((await serveOne(() => new Response(mixed))).body), "late");
});

Deno.test("a body with chunks that are no Uint8Array aborts the response (rule B17)", async () => {
  const body = () =>
    new ReadableStream<Uint8Array>({
      async pull(controller) {
        await turn();
        controller.enqueue("text" as unknown as Uint8Array);
      },
    });
  const response = await serveOne(() => new Response(body()));
  assertEquals([response.body.length, response.complete], [0, false]);
  assertStringIncludes(response.stderr, "chunks must be Uint8Array: one is of type string");
});

Deno.test("long bodies arrive whole, in one chunk or in many (rule C16)", async () => {
  for (const length of [65528, 65529, 300000]) {
    const whole = pattern(length);
    assertEquals((await serveOne(() => new Response(whole))).body, whole);
    const parts = [whole.slice(0, 1000), whole.slice(1000, 200000), whole.slice(200000)];
    assertEquals((await serveOne(() => new Response(stream(...parts)))).body, concat(parts));
  }
});

class Secret extends Error {}

const THROWERS: Record<string, App> = {
  "throws": () => {
    throw new Secret("the secret");
  },
  "rejects": () => Promise.reject(new Secret("the secret")),
  "throws later": async () => {
    await turn();
    throw new Secret("the secret");
  },
  "returns a body that fails at once": () => new Response(stream(new Secret("the secret"))),
  "throws as an object's fetch": {
    fetch() {
      throw new Secret("the secret");
    },
  },
};

for (const [name, app] of Object.entries(THROWERS)) {
  Deno.test(`an app that ${name}: 500 without the cause, and the stack in the log (rules B17, F6)`, async () => {
    const response = await serveOne(app);
    assertEquals(response.status, 500);
    assertEquals(response.headers.get("content-type"), "text/plain;charset=UTF-8");
    assertEquals(text(response.body), "500 Internal Server Error\n");
    assertMatch(response.stderr, /the secret\n\s+at .*respond_test\.ts/);
  });
}

Deno.test("a value that is no Response, or was read, is an error of the app", async () => {
  const read = new Response("x");
  await read.text();
  const locked = new Response("x");
  locked.body!.getReader();
  const cases: [unknown, string][] = [
    [undefined, "must be a Response: current value is undefined"],
    ["text", "must be a Response: current value is text"],
    [read, ": its body was read or sent already"],
  ];
  for (const [value, message] of cases) {
    const response = await serveOne(() => value as Response);
    assertEquals(response.status, 500);
    assertStringIncludes(response.stderr, "Cannot send response");
    assertStringIncludes(response.stderr, message);
  }
  const response = await serveOne(() => locked);
  assertEquals(response.status, 500);
  assertStringIncludes(response.stderr, "locked");
});

Deno.test("onError returns the response to an error", async () => {
  let seen: unknown;
  const onError = (error: unknown) => {
    seen = error;
    return new Response("sorry", { status: 503, headers: { "x-a": "1" } });
  };
  const response = await serveOne(THROWERS.throws, {}, { onError });
  assertEquals([response.status, text(response.body), response.headers.get("x-a")], [
    503,
    "sorry",
    "1",
  ]);
  assertInstanceOf(seen, Secret);
  const later = await serveOne(THROWERS.throws, {}, {
    onError: (error) => Promise.resolve(onError(error)),
  });
  assertEquals(later.status, 503);
  const head = await serveOne(THROWERS.throws, { variables: { REQUEST_METHOD: "HEAD" } }, {
    onError,
  });
  assertEquals([head.status, head.body.length], [503, 0]);
});

Deno.test("an onError that fails: a plain 500, and both errors in the log", async () => {
  const fails: FastCGIOptions["onError"][] = [
    () => {
      throw new Error("the second");
    },
    () => Promise.reject(new Error("the second")),
    () => "the second" as unknown as Response,
    () => new Response(stream(new Error("the second"))),
    () => new Response("x", { headers: { "x-a": "\x01 the second" } }),
  ];
  for (const onError of fails) {
    const response = await serveOne(THROWERS.throws, {}, { onError });
    assertEquals([response.status, text(response.body)], [500, "500 Internal Server Error\n"]);
    assertStringIncludes(response.stderr, "the second");
  }
});

Deno.test("onError is not called for an invalid request of the web server", async () => {
  const onError = () => new Response("called");
  const response = await serveOne(() => new Response(), { variables: { HTTP_HOST: "a b" } }, {
    onError,
  });
  assertEquals([response.status, text(response.body)], [400, "400 Bad Request\n"]);
  assertStringIncludes(response.stderr, "its host must be a valid one");
});

Deno.test("a response whose body has begun is not replaced by an error response (rule B17)", async () => {
  const onError = () => new Response("called");
  const failing = () =>
    new ReadableStream({
      async pull(controller) {
        await turn();
        controller.enqueue(bytes("begun"));
        await turn();
        controller.error(new Secret("the secret"));
      },
    }, { highWaterMark: 0 });
  const response = await serveOne(() => new Response(failing()), {}, { onError });
  assertEquals([response.status, text(response.body), response.complete], [200, "begun", false]);
  assertEquals(response.end, null);
  assertStringIncludes(response.stderr, "the secret");
});

Deno.test("info.completed resolves when the response was sent, and rejects when it was aborted", async () => {
  const completedOf = async (response: () => Response, parts: RequestParts = {}) => {
    let completed: Promise<void> | undefined;
    await serveOne((_request, info) => {
      completed = info.completed;
      return response();
    }, parts);
    return await deadline(completed!.then(() => "sent", (error) => error), "info.completed");
  };
  assertEquals(await completedOf(() => new Response("Hello")), "sent");
  assertEquals(await completedOf(() => new Response(null)), "sent");
  assertEquals(
    await completedOf(() => new Response("x"), { variables: { REQUEST_METHOD: "HEAD" } }),
    "sent",
  );
  const broken = await completedOf(() =>
    new Response(slowStream("Hel"), { headers: { "content-length": "5" } })
  );
  assertInstanceOf(broken, Error);
});

Deno.test("info.log() writes to FCGI_STDERR, as UTF-8 (rules B19, C17)", async () => {
  const response = await serveOne((_request, info) => {
    info.log("café");
    return new Response("x");
  });
  assertEquals(response.stderr, "caf\xc3\xa9\n");
  assertEquals([response.status, response.complete], [200, true]);
});
