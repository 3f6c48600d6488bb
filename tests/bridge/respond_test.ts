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
  ask,
  FastCGIClient,
  request as requestBytes,
  type RequestParts,
} from "../testing/fastcgi_client.ts";

/** A stream of these chunks, each made when it is asked for. */
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

/** A stream that holds each chunk back until a turn of the event loop has passed: no codec can wait for its end. */
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
  const answer = await ask(() =>
    new Response("Hello", { headers: { "x-a": "1", "content-type": "text/plain" } })
  );
  assertEquals(
    answer.head,
    "Status: 200 OK\r\ncontent-type: text/plain\r\nx-a: 1\r\ncontent-length: 5\r\n\r\n",
  );
  assertEquals(text(answer.body), "Hello");
});

Deno.test("the reason is the app's, or the usual one, and holds no control characters (rules B3, F1)", async () => {
  const cases: [number, string | undefined, string][] = [
    [200, undefined, "200 OK"],
    [404, undefined, "404 Not Found"],
    [404, "Gone Fishing", "404 Gone Fishing"],
    [299, undefined, "299 Unassigned"],
    [500, "\tA\xe9B", "500 AB"],
    [418, "", "418 I'm a teapot"],
  ];
  for (const [status, statusText, line] of cases) {
    const answer = await ask(() => new Response(null, { status, statusText }));
    assertEquals(answer.head.split("\r\n")[0], `Status: ${line}`);
  }
});

Deno.test("a status that no server takes is an error of the app (rule B4)", async () => {
  const answer = await ask(() => Response.error());
  assertEquals(answer.status, 500);
  assertEquals(text(answer.body), "500 Internal Server Error\n");
  assertStringIncludes(
    answer.stderr,
    "Cannot send response as its status must be from 200 to 599: current value is 0",
  );
});

Deno.test("a Location under status 200 is sent, and warned of (rule B5)", async () => {
  const answer = await ask(() => new Response(null, { headers: { location: "/x" } }));
  assertEquals([answer.status, answer.headers.get("location")], [200, "/x"]);
  assertStringIncludes(answer.stderr, "A response with status 200 has a Location");
  const redirect = await ask(() => Response.redirect("http://example.org/x", 308));
  assertEquals([redirect.status, redirect.stderr], [308, ""]);
  // HAProxy makes a 302 of a Location that comes after.
  assert(redirect.head.startsWith("location: http://example.org/x\r\nStatus: 308 "));
});

Deno.test("a body without a type is application/octet-stream; no body has no type (rule B7)", async () => {
  const typeOf = async (response: Response) =>
    (await ask(() => response)).headers.get("content-type");
  assertEquals(await typeOf(new Response(bytes("x"))), "application/octet-stream");
  assertEquals(await typeOf(new Response("x")), "text/plain;charset=UTF-8");
  assertEquals(await typeOf(new Response(null)), null);
  assertEquals(
    await typeOf(new Response(bytes("x"), { headers: { "content-type": "a/b" } })),
    "a/b",
  );
});

Deno.test("each Set-Cookie has its own line; other fields one in all (rules B7, B8)", async () => {
  const answer = await ask(() =>
    new Response(null, {
      headers: [
        ["set-cookie", "a=1; Expires=Thu, 01 Jan 2026 00:00:00 GMT"],
        ["vary", "a"],
        ["set-cookie", "b=2"],
        ["vary", "b"],
      ],
    })
  );
  assertEquals(answer.headers.getSetCookie(), [
    "a=1; Expires=Thu, 01 Jan 2026 00:00:00 GMT",
    "b=2",
  ]);
  assertEquals(answer.fields.filter(([name]) => name === "set-cookie").length, 2);
  assertEquals(answer.fields.filter(([name]) => name === "vary"), [["vary", "a, b"]]);
});

Deno.test("fields of the connection, and Status, are left out (rules B10, F2)", async () => {
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
  const answer = await ask(() =>
    new Response("x", {
      headers: [...names.map((name): [string, string] => [name, "404"]), ["x-a", "1"]],
    })
  );
  assertEquals(answer.status, 200);
  assertEquals(answer.fields.map(([name]) => name).sort(), [
    "content-length",
    "content-type",
    "x-a",
  ]);
});

Deno.test("header values are sent byte for byte (rule B9)", async () => {
  const answer = await ask(() => new Response(null, { headers: { "x-a": "caf\xe9 \x80\t;" } }));
  assertEquals(answer.fields.find(([name]) => name === "x-a")?.[1], "caf\xe9 \x80\t;");
});

Deno.test("a header value with a control character is an error of the app (rules B9, F1)", async () => {
  for (const value of ["\x01", "a\x1bb", "\x7f"]) {
    const answer = await ask(() => new Response("x", { headers: { "x-a": value } }));
    assertEquals(answer.status, 500);
    assertFalse(answer.headers.has("x-a"));
    assertStringIncludes(answer.stderr, 'Cannot encode header "x-a"');
  }
});

Deno.test("no names, values, statuses or reasons an app uses inject a line (rules F1, F10)", async () => {
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
        const answer = await ask(() => {
          const response = new Response(null, { headers, status, statusText: reason });
          allowed = response.headers;
          return response;
        });
        const lines = answer.head.split(/\r\n|[\r\n]/);
        assertEquals(lines.length, answer.fields.length + 3);
        const first = lines.find((line) => !line.startsWith("location:"))!;
        assertMatch(first, /^Status: [2-5]\d\d [\x20-\x7e]+$/);
        if (
          answer.status === 500 && answer.headers.get("content-type")?.startsWith("text/plain")
        ) return;
        assert(allowed);
        for (const [name, value] of answer.fields) {
          if (name === "content-length") continue;
          // Whitespace around a value is not part of it: Headers joins "a" and "" to "a, ".
          assertEquals(value, allowed.get(name)?.replace(/[ \t]+$/, ""));
        }
        assertEquals(text(answer.body), "");
      },
    ),
    {
      numRuns: 300,
      examples: [[[["location", "Status"], ["location", ""]], 200, "location"]],
    },
  );
});

Deno.test("the length of a body held in memory is told, whatever the app said (rule B11)", async () => {
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
    const answer = await ask(() =>
      new Response(body, { headers: length === undefined ? {} : { "content-length": length } })
    );
    assertEquals(
      [answer.headers.get("content-length"), answer.body.length],
      [expected, Number(expected)],
      `${body} ${length}`,
    );
  }
  const wrong = await ask(() => new Response("Hello", { headers: { "content-length": "3" } }));
  assertStringIncludes(wrong.stderr, "Content-Length was 3, but the body has 5 bytes: sent as 5");
});

Deno.test("a stream's declared length is kept, what exceeds it left out (rule B11)", async () => {
  const answer = await ask(() =>
    new Response(slowStream("Hel", "lo", " and more"), { headers: { "content-length": "5" } })
  );
  assertEquals([text(answer.body), answer.headers.get("content-length")], ["Hello", "5"]);
  assert(answer.complete);
  assertStringIncludes(
    answer.stderr,
    "The body is longer than its Content-Length of 5: the rest is left out",
  );
});

Deno.test("a stream shorter than its declared length breaks off (rules B11, B17)", async () => {
  const answer = await ask(() =>
    new Response(slowStream("Hel"), { headers: { "content-length": "5" } })
  );
  assertEquals([text(answer.body), answer.complete], ["Hel", false]);
  assertStringIncludes(answer.stderr, "The body is 2 bytes shorter than its Content-Length of 5");
});

Deno.test("a stream with an invalid length is sent without one (rule B11)", async () => {
  for (const length of ["-1", "x", "5, 5", "0x5"]) {
    const answer = await ask(() =>
      new Response(slowStream("Hello"), { headers: { "content-length": length } })
    );
    assertEquals([text(answer.body), answer.headers.has("content-length")], ["Hello", false]);
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
    const answer = await ask(() =>
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
    assertEquals([answer.status, answer.body.length, answer.complete], [status, 0, true]);
    assertEquals(answer.headers.get("x-a"), "1");
    if (hasBody) await deadline(cancelled.promise, "the cancelling of the body");
    if (status === 204 || status === 205) assertFalse(answer.headers.has("content-length"));
  }
});

Deno.test("HEAD keeps the length that GET would have (rule B12)", async () => {
  const lengthOf = async (response: Response) =>
    (await ask(() => response, { variables: { REQUEST_METHOD: "HEAD" } }))
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

Deno.test("a long head is sent whole, and warned of (rule B14)", async () => {
  const long = "x".repeat(5000);
  const answer = await ask(() => new Response(null, { headers: { "x-long": long } }));
  assertEquals(answer.headers.get("x-long"), long);
  assertMatch(answer.stderr, /^The response has 50\d\d bytes of headers: nginx rejects/m);
  const short = await ask(() => new Response(null, { headers: { "x-long": "x".repeat(4000) } }));
  assertEquals(short.stderr, "");
});

/** A server in memory with one client. */
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

Deno.test("a small answer is one write: head, body and end (rule B15)", async () => {
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
      const { status } = await client.answer();
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

Deno.test("a stream is sent chunk by chunk, each when it comes (rule B16)", async () => {
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
    assertEquals((await client.answer()).complete, true);
  });
});

Deno.test("empty chunks of a body are left out: an empty record would end it (rule C16)", async () => {
  const answer = await ask(() => new Response(stream("", "a", new Uint8Array(), "", "b", "")));
  assertEquals([text(answer.body), answer.complete], ["ab", true]);
  const slow = await ask(() => new Response(slowStream("", "a", "", "b", "")));
  assertEquals([text(slow.body), slow.complete], ["ab", true]);
  const mixed = new ReadableStream<Uint8Array>({
    async start(controller) {
      controller.enqueue(new Uint8Array());
      await turn();
      controller.enqueue(bytes("late"));
      controller.close();
    },
  });
  assertEquals(text((await ask(() => new Response(mixed))).body), "late");
});

Deno.test("a body of bytes that are no Uint8Array breaks off (rule B17)", async () => {
  const body = () =>
    new ReadableStream<Uint8Array>({
      async pull(controller) {
        await turn();
        controller.enqueue("text" as unknown as Uint8Array);
      },
    });
  const answer = await ask(() => new Response(body()));
  assertEquals([answer.body.length, answer.complete], [0, false]);
  assertStringIncludes(answer.stderr, "chunks must be Uint8Array: one is of type string");
});

Deno.test("long bodies come whole, of one chunk or of many (rule C16)", async () => {
  for (const length of [65528, 65529, 300000]) {
    const whole = pattern(length);
    assertEquals((await ask(() => new Response(whole))).body, whole);
    const parts = [whole.slice(0, 1000), whole.slice(1000, 200000), whole.slice(200000)];
    assertEquals((await ask(() => new Response(stream(...parts)))).body, concat(parts));
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
  "answers with a body that fails at once": () => new Response(stream(new Secret("the secret"))),
  "throws as an object's fetch": {
    fetch() {
      throw new Secret("the secret");
    },
  },
};

for (const [name, app] of Object.entries(THROWERS)) {
  Deno.test(`an app that ${name}: 500 without a word of it, the stack in the log (rules B17, F6)`, async () => {
    const answer = await ask(app);
    assertEquals(answer.status, 500);
    assertEquals(answer.headers.get("content-type"), "text/plain;charset=UTF-8");
    assertEquals(text(answer.body), "500 Internal Server Error\n");
    assertMatch(answer.stderr, /the secret\n\s+at .*respond_test\.ts/);
  });
}

Deno.test("an answer that is no Response, or was read, is an error of the app", async () => {
  const read = new Response("x");
  await read.text();
  const locked = new Response("x");
  locked.body!.getReader();
  const cases: [unknown, string][] = [
    [undefined, "must be a Response: current value is undefined"],
    ["text", "must be a Response: current value is text"],
    [read, "its body must be unread: it was read or sent already"],
  ];
  for (const [value, message] of cases) {
    const answer = await ask(() => value as Response);
    assertEquals(answer.status, 500);
    assertStringIncludes(answer.stderr, `Cannot send response as `);
    assertStringIncludes(answer.stderr, message);
  }
  const answer = await ask(() => locked);
  assertEquals(answer.status, 500);
  assertStringIncludes(answer.stderr, "locked");
});

Deno.test("onError answers instead", async () => {
  let seen: unknown;
  const onError = (error: unknown) => {
    seen = error;
    return new Response("sorry", { status: 503, headers: { "x-a": "1" } });
  };
  const answer = await ask(THROWERS.throws, {}, { onError });
  assertEquals([answer.status, text(answer.body), answer.headers.get("x-a")], [503, "sorry", "1"]);
  assertInstanceOf(seen, Secret);
  const later = await ask(THROWERS.throws, {}, {
    onError: (error) => Promise.resolve(onError(error)),
  });
  assertEquals(later.status, 503);
  const head = await ask(THROWERS.throws, { variables: { REQUEST_METHOD: "HEAD" } }, { onError });
  assertEquals([head.status, head.body.length], [503, 0]);
});

Deno.test("onError that fails: a plain 500, and both errors in the log", async () => {
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
    const answer = await ask(THROWERS.throws, {}, { onError });
    assertEquals([answer.status, text(answer.body)], [500, "500 Internal Server Error\n"]);
    assertStringIncludes(answer.stderr, "the second");
  }
});

Deno.test("onError is not asked about what the web server sent wrong", async () => {
  const onError = () => new Response("asked");
  const answer = await ask(() => new Response(), { variables: { HTTP_HOST: "a b" } }, { onError });
  assertEquals([answer.status, text(answer.body)], [400, "400 Bad Request\n"]);
  assertStringIncludes(answer.stderr, "its host must be a valid one");
});

Deno.test("an answer whose body was begun is none to start anew with (rule B17)", async () => {
  const onError = () => new Response("asked");
  const failing = () =>
    new ReadableStream({
      async pull(controller) {
        await turn();
        controller.enqueue(bytes("begun"));
        await turn();
        controller.error(new Secret("the secret"));
      },
    }, { highWaterMark: 0 });
  const answer = await ask(() => new Response(failing()), {}, { onError });
  assertEquals([answer.status, text(answer.body), answer.complete], [200, "begun", false]);
  assertEquals(answer.end, null);
  assertStringIncludes(answer.stderr, "the secret");
});

Deno.test("info.completed resolves when the answer is sent, rejects when it broke off", async () => {
  const completedOf = async (response: () => Response, parts: RequestParts = {}) => {
    let completed: Promise<void> | undefined;
    await ask((_request, info) => {
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
  const answer = await ask((_request, info) => {
    info.log("café");
    return new Response("x");
  });
  assertEquals(answer.stderr, "caf\xc3\xa9\n");
  assertEquals([answer.status, answer.complete], [200, true]);
});
