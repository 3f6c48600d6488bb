import {
  assert,
  assertEquals,
  assertFalse,
  assertLess,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import fc from "fast-check";
import type { App } from "../bridge/app.ts";
import { type SCGIOptions, serveSCGI } from "../scgi.ts";
import { encodeSCGIHeaders } from "../wire/scgi.ts";
import { parseResponse } from "./testing/response.ts";
import { bytes, concat, cut, pattern, split, text } from "./testing/bytes.ts";
import { deadline } from "./testing/deadline.ts";
import { FakeListener } from "./testing/duplex.ts";
import { SCGIClient as Client } from "./testing/scgi_client.ts";
import { MEDIA, type Medium, type Served, serving as servingBy, turns } from "./testing/serving.ts";

/** Serves an app for a test, and shuts the server down even if the test fails. */
const serving = (
  app: App,
  options: SCGIOptions,
  use: (served: Served<Client>) => Promise<void>,
  over: Medium = "memory",
) =>
  servingBy(
    over,
    (listener, own) => serveSCGI(app, listener, { ...own, ...options }),
    (conn) => new Client(conn),
    use,
  );

/** The headers of a request, as web servers send them. */
function head(length: number, others: Record<string, string> = {}): Uint8Array {
  return encodeSCGIHeaders(Object.entries({
    CONTENT_LENGTH: String(length),
    REQUEST_METHOD: length > 0 ? "POST" : "GET",
    REQUEST_URI: "/",
    HTTP_HOST: "example.org",
    SCGI: "1",
    ...others,
  }));
}

function request(body = "", others?: Record<string, string>): Uint8Array {
  return concat([head(body.length, others), bytes(body)]);
}

const hello: App = () => new Response("Hello");
const echo: App = async (request) => new Response(await request.bytes());

for (const over of MEDIA) {
  Deno.test(`serveSCGI() responds over ${over}, and the connection ends with the response (rules D4, D5)`, async () => {
    await serving(
      async (request, info) =>
        new Response(`${info.protocol} ${request.url} ${await request.text()}`),
      {},
      async ({ connect, logged }) => {
        const client = await connect();
        await client.send(request("body"));
        const response = await client.response();
        assertEquals(response.head.split("\r\n")[0], "Status: 200 OK");
        assertEquals(text(response.body), "scgi http://example.org/ body");
        assertEquals(logged, []);
      },
      over,
    );
  });

  Deno.test(`serveSCGI() responds over ${over} after a half-close (rule D4)`, async () => {
    const gate = Promise.withResolvers<void>();
    let signal: AbortSignal | undefined;
    await serving(
      async (request) => {
        signal = request.signal;
        await gate.promise;
        return new Response(await request.text());
      },
      {},
      async ({ connect }) => {
        const client = await connect();
        await client.send(request("body"));
        await client.conn.closeWrite!();
        await turns();
        assertFalse(signal?.aborted);
        gate.resolve();
        assertEquals(text((await client.response()).body), "body");
      },
      over,
    );
  });

  Deno.test(`serveSCGI() responds over ${over} after a half-close if the app has cancelled the body (rule D4)`, async () => {
    const cancelled = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    let signal: AbortSignal | undefined;
    await serving(
      async (request) => {
        signal = request.signal;
        await request.body!.cancel();
        cancelled.resolve();
        await gate.promise;
        return new Response("unread");
      },
      {},
      async ({ connect }) => {
        const client = await connect();
        await client.send(head(10), bytes("half"));
        await deadline(cancelled.promise, "the cancelling of the body");
        await client.send(bytes("rest."), bytes("."));
        await client.conn.closeWrite!();
        await turns();
        assertFalse(signal?.aborted);
        gate.resolve();
        assertEquals(text((await client.response()).body), "unread");
      },
      over,
    );
  });

  Deno.test(`serveSCGI() aborts a request over ${over} when its body ends early (rule A21)`, async () => {
    const started = Promise.withResolvers<AbortSignal>();
    const read = Promise.withResolvers<unknown>();
    await serving(
      async (request) => {
        started.resolve(request.signal);
        return new Response(await request.text().catch((error) => (read.resolve(error), "")));
      },
      {},
      async ({ connect }) => {
        const client = await connect();
        await client.send(head(10), bytes("half"));
        const signal = await deadline(started.promise, "the app");
        client.close();
        const error = await deadline(read.promise, "the body's failure") as DOMException;
        assertEquals([error.name, signal.aborted], ["AbortError", true]);
      },
      over,
    );
  });

  Deno.test(`serveSCGI() reads on after an early response over ${over} (rules D5, C15)`, async () => {
    await serving(
      () => new Response("too large", { status: 413 }),
      {},
      async ({ connect }) => {
        const client = await connect();
        await deadline(client.send(head(3_000_000), pattern(3_000_000)), "the body's end");
        const response = await client.response();
        assertEquals([response.status, text(response.body)], [413, "too large"]);
      },
      over,
    );
  });

  Deno.test(`shutdown() over ${over} finishes a response (rule C26)`, async () => {
    const gate = Promise.withResolvers<void>();
    const started = Promise.withResolvers<void>();
    await serving(
      async () => {
        started.resolve();
        await gate.promise;
        return new Response(pattern(500_000));
      },
      {},
      async ({ connect, server }) => {
        const client = await connect();
        await client.send(request());
        await deadline(started.promise, "the app");
        const down = server.shutdown();
        gate.resolve();
        assertEquals((await client.response()).body, pattern(500_000));
        client.close();
        await deadline(down, "the server's end");
      },
      over,
    );
  });
}

Deno.test("serveSCGI() reads a request cut at any byte (rule D1)", async () => {
  const whole = request("body", { HTTP_X_A: "a" });
  await serving(echo, {}, async ({ connect }) => {
    for (let at = 0; at <= whole.length; at++) {
      const client = await connect();
      for (const part of at === whole.length ? split(whole) : cut(whole, [at])) {
        await client.send(part);
      }
      assertEquals(text((await client.response()).body), "body", `cut at ${at}`);
    }
  });
});

Deno.test("serveSCGI() reads CONTENT_LENGTH bytes and no more (rule D4)", async () => {
  await serving(echo, {}, async ({ connect }) => {
    const client = await connect();
    await client.send(head(4), bytes("bodyrest"));
    assertEquals(text((await client.response()).body), "body");
  });
});

Deno.test("serveSCGI() joins repeated headers (rules D3, A26)", async () => {
  await serving(
    (request) => Response.json([request.headers.get("x-a"), request.headers.get("cookie")]),
    {},
    async ({ connect }) => {
      const client = await connect();
      await client.send(encodeSCGIHeaders([
        ["CONTENT_LENGTH", "0"],
        ["REQUEST_METHOD", "GET"],
        ["HTTP_X_A", "1"],
        ["HTTP_COOKIE", "a=1"],
        ["SCGI", "1"],
        ["HTTP_X_A", "2"],
        ["HTTP_COOKIE", "b=2"],
      ]));
      assertEquals(JSON.parse(text((await client.response()).body)), ["1, 2", "a=1; b=2"]);
    },
  );
});

const BAD: Record<string, [raw: string, status: number, message: string]> = {
  "another protocol": ["GET / HTTP/1.1\r\n\r\n", 400, "its length must be decimal digits"],
  "a length with a leading zero": ["05:", 400, "its length must not begin with 0"],
  "a length that is too long": ["99999999:", 431, "at most 7 digits"],
  "an announcement past the limit": ["9999999:", 431, "its length must be at most 262144"],
  "no comma": ["4:A\x001\0;", 400, "a comma must follow its data"],
  "no headers": ["0:,", 400, "there must be some"],
  "an odd count": ["2:A\0,", 400, "each name must have a value"],
  "an empty name": ["3:\x001\0,", 400, "a name is empty"],
  "a missing final NUL": ["3:A\x001,", 400, "they do not end with NUL"],
  "a length that is no number": [
    text(encodeSCGIHeaders([["CONTENT_LENGTH", "+5"], ["SCGI", "1"]])),
    400,
    "CONTENT_LENGTH",
  ],
};

for (const [name, [raw, status, message]] of Object.entries(BAD)) {
  Deno.test(`serveSCGI() rejects ${name} and closes (rules D1, D2)`, async () => {
    let asked = false;
    await serving(() => (asked = true, new Response()), {}, async ({ connect, logged }) => {
      const client = await connect();
      await client.send(bytes(raw));
      const response = await client.response();
      assertEquals([response.status, asked, logged.length], [status, false, 1]);
      assertStringIncludes(logged[0], message);
    });
  });
}

Deno.test("serveSCGI() is strict about CONTENT_LENGTH and SCGI, unless the option lenient is set (rule D3)", async () => {
  const lists: [string, string][][] = [
    [["SCGI", "1"], ["CONTENT_LENGTH", "0"], ["REQUEST_METHOD", "GET"]],
    [["SCGI", "1"], ["REQUEST_METHOD", "GET"]],
    [["CONTENT_LENGTH", ""], ["SCGI", "1"], ["REQUEST_METHOD", "GET"]],
    [["CONTENT_LENGTH", "0"], ["REQUEST_METHOD", "GET"]],
    [["CONTENT_LENGTH", "0"], ["REQUEST_METHOD", "GET"], ["SCGI", "2"]],
  ];
  for (const lenient of [false, true]) {
    await serving(hello, { lenient }, async ({ connect }) => {
      for (const pairs of lists) {
        const client = await connect();
        await client.send(encodeSCGIHeaders(pairs));
        assertEquals((await client.response()).status, lenient ? 200 : 400, JSON.stringify(pairs));
      }
      // Anywhere in the list.
      for (const after of [[], [["HTTP_X_A", "after"]]] as [string, string][][]) {
        const client = await connect();
        const before: [string, string][] = [["CONTENT_LENGTH", "0"], ["REQUEST_METHOD", "GET"]];
        await client.send(encodeSCGIHeaders([...before, ["SCGI", "1"], ...after]));
        assertEquals((await client.response()).status, 200);
      }
    });
  }
});

Deno.test("serveSCGI() aborts the signal when the web server disconnects", async () => {
  const started = Promise.withResolvers<AbortSignal>();
  const cancelled = Promise.withResolvers<void>();
  await serving(
    (request) => {
      started.resolve(request.signal);
      return new Response(
        new ReadableStream({
          pull: (controller) => controller.enqueue(pattern(1000)),
          cancel: () => cancelled.resolve(),
        }),
      );
    },
    {},
    async ({ connect, logged }) => {
      const client = await connect();
      await client.send(request());
      const signal = await deadline(started.promise, "the app");
      client.close();
      await deadline(cancelled.promise, "the cancelling of the body");
      assert(signal.aborted);
      assertEquals(logged, []);
    },
  );
});

Deno.test("serveSCGI() detects over a Unix socket that the web server disconnects after its half-close (rule C22)", async () => {
  for (const closed of ["before the app runs", "later"]) {
    const started = Promise.withResolvers<AbortSignal>();
    await serving(
      (request) => {
        started.resolve(request.signal);
        return new Promise(() => {});
      },
      {},
      async ({ connect }) => {
        const client = await connect();
        await client.send(request());
        await client.conn.closeWrite!();
        if (closed !== "later") client.close();
        const signal = await deadline(started.promise, "the app");
        if (closed === "later") {
          await turns();
          assertFalse(signal.aborted);
          client.close();
        }
        if (!signal.aborted) {
          const aborted = new Promise((resolve) => signal.addEventListener("abort", resolve));
          await deadline(aborted, `the signal, closed ${closed}`);
        }
      },
      "Unix",
    );
  }
});

Deno.test("an option that is undefined has its default", async () => {
  const options = { maxVariables: undefined, maxVariableBytes: undefined, allowRemote: undefined };
  const many = Object.fromEntries(Array.from({ length: 2003 }, (_, i) => [`X${i}`, "1"]));
  await serving(hello, options, async ({ connect }) => {
    const client = await connect();
    await client.send(request("", many));
    assertEquals((await client.response()).status, 431);
  });
});

Deno.test("serveSCGI() logs to the server's log, and closes the connection if a response fails (rules D7, B17)", async () => {
  await serving(
    (_request, info) => {
      info.log("logged");
      return new Response(
        new ReadableStream({
          async pull(controller) {
            await turns(1);
            controller.enqueue(bytes("begun"));
            await turns(1);
            controller.error(new Error("broken"));
          },
        }, { highWaterMark: 0 }),
        { headers: { "content-length": "100" } },
      );
    },
    {},
    async ({ connect, logged }) => {
      const client = await connect();
      await client.send(request());
      const response = await client.response();
      assertEquals([response.status, text(response.body)], [200, "begun"]);
      assertEquals(response.headers.get("content-length"), "100");
      assertEquals(logged[0], "logged");
      assertStringIncludes(logged[1], "Error: broken");
    },
  );
});

Deno.test("serveSCGI() echoes 10 MB to a web server that sends all of it before it reads (rule D6)", async () => {
  const body = pattern(10_000_000);
  await serving(
    (request) => new Response(request.body),
    {},
    async ({ connect }) => {
      const client = await connect();
      await deadline(client.send(head(body.length), body), "the end of the body");
      assertEquals((await client.response()).body, body);
    },
    "TCP",
  );
});

Deno.test("serveSCGI() stops reading while the app does not read (rules D6, F8)", async () => {
  const gate = Promise.withResolvers<void>();
  await serving(
    async (request) => {
      await gate.promise;
      return new Response(String((await request.bytes()).length));
    },
    {},
    async ({ connect }) => {
      const client = await connect(65536);
      await client.send(head(3_000_000));
      let sent = 0;
      const sending = (async () => {
        for (; sent < 50; sent++) await client.send(pattern(60000));
      })();
      await turns(100);
      assertLess(sent * 60000, 600_000);
      gate.resolve();
      await deadline(sending, "the body's end");
      assertEquals(text((await client.response()).body), "3000000");
    },
  );
});

Deno.test("maxVariableBytes and maxVariables: a response at the limit, 431 above it (rule F8)", async () => {
  const raw = head(0, { HTTP_X_LONG: "x".repeat(1000) });
  const length = Number(text(raw).split(":")[0]);
  const statusOf = async (options: SCGIOptions) => {
    let status: number | undefined;
    await serving(hello, options, async ({ connect }) => {
      const client = await connect();
      await client.send(raw);
      status = (await client.response()).status;
    });
    return status;
  };
  assertEquals(await statusOf({ maxVariableBytes: length }), 200);
  assertEquals(await statusOf({ maxVariableBytes: length - 1 }), 431);
  assertEquals(await statusOf({ maxVariables: 6 }), 200);
  assertEquals(await statusOf({ maxVariables: 5 }), 431);
});

Deno.test("maxBodyBytes: a response at the limit, 413 above it without a call of the app (rule F8)", async () => {
  let asked = 0;
  await serving(
    (request) => (asked++, new Response(request.body)),
    { maxBodyBytes: 4 },
    async ({ connect }) => {
      for (const [body, status] of [["body", 200], ["body.", 413]] as const) {
        const client = await connect();
        await client.send(request(body));
        assertEquals((await client.response()).status, status);
      }
      assertEquals(asked, 1);
    },
  );
});

Deno.test("maxRequests and maxConnections: responses at the limit, 503 above it (rules C19, F8)", async () => {
  for (const options of [{ maxRequests: 2 }, { maxConnections: 2 }]) {
    const gate = Promise.withResolvers<void>();
    await serving(
      async () => (await gate.promise, new Response("Hello")),
      options,
      async ({ connect }) => {
        const clients = [await connect(), await connect()];
        for (const client of clients) await client.send(request());
        await turns();
        const third = await connect();
        await third.send(request("body"));
        assertEquals((await third.response()).status, 503);
        gate.resolve();
        for (const client of clients) assertEquals((await client.response()).status, 200);
        for (const client of [...clients, third]) client.close();
        await turns();
        const fourth = await connect();
        await fourth.send(request());
        assertEquals((await fourth.response()).status, 200);
      },
    );
  }
});

Deno.test("maxRequests counts a handler that runs on when the web server disconnects (rule F8)", async () => {
  const gate = Promise.withResolvers<void>();
  let running = 0;
  const app: App = async () => {
    running++;
    await gate.promise;
    running--;
    return new Response("Hello");
  };
  await serving(app, { maxRequests: 2 }, async ({ connect }) => {
    for (let i = 0; i < 5; i++) {
      const client = await connect();
      // It waits for the rest of the body, so that the end of its input aborts the request at once.
      await client.send(head(10), bytes("some"));
      await turns(3);
      client.close();
      await turns(3);
    }
    assertEquals(running, 2);
    const refused = await connect();
    await refused.send(request());
    assertEquals((await refused.response()).status, 503);
    gate.resolve();
    await turns();
    for (let i = 0; i < 2; i++) {
      const client = await connect();
      await client.send(request());
      assertEquals((await client.response()).status, 200);
    }
  });
});

Deno.test("variablesTimeout, bodyTimeout, writeTimeout: a late peer gets a closed connection or 408 (rules F8, F9)", async () => {
  const cancelled = Promise.withResolvers<void>();
  const app: App = async (request) => {
    if (request.method === "POST") return new Response(await request.text());
    return new Response(
      new ReadableStream({
        pull: (controller) => controller.enqueue(pattern(10000)),
        cancel: () => cancelled.resolve(),
      }),
    );
  };
  const options = { variablesTimeout: 1, bodyTimeout: 1, writeTimeout: 1 };
  await serving(app, options, async ({ connect, logged }) => {
    const [late, silent, stalled] = [await connect(), await connect(), await connect(65536)];
    await late.send(bytes("70:CONTENT_LENGTH"));
    await silent.send(head(10), bytes("some"));
    await stalled.send(request());
    assertEquals(await late.rest(), new Uint8Array());
    assertEquals((await silent.response()).status, 408);
    await deadline(cancelled.promise, "the cancelling of the body");
    assertStringIncludes(logged.join("\n"), "a request's variables did not arrive within 1 ms");
    assertStringIncludes(logged.join("\n"), "no bytes arrived for 1 ms");
    assertStringIncludes(logged.join("\n"), "must read some of the response within 1 ms");
  });
});

Deno.test("serveSCGI() reads on after 408: a close over unread bytes can destroy the response (rule C15)", async () => {
  const app: App = async (request) => new Response(await request.text());
  await serving(app, { bodyTimeout: 1 }, async ({ connect }) => {
    const client = await connect();
    await client.send(head(10), bytes("some"));
    assertEquals((await client.response()).status, 408);
    await client.send(bytes("late"));
  });
});

Deno.test("a listener that other machines can reach, and a peer that is not listed, are refused (rules F4, C25)", async () => {
  const listener = new FakeListener();
  listener.addr = { transport: "tcp", hostname: "0.0.0.0", port: 4000 };
  const error = assertThrows(() => serveSCGI(hello, listener), Error);
  assertStringIncludes(error.message, "Cannot serve as the listener must be on loopback");
  await serveSCGI(hello, listener, { allowRemote: true }).shutdown();
  await serving(hello, { webServerAddresses: ["192.0.2.1"] }, async ({ connect, logged }) => {
    const client = await connect();
    await client.send(request()).catch(() => {});
    assertEquals([(await client.rest()).length, logged.length], [0, 1]);
  });
});

Deno.test("options.signal stops a server that shuts down", async () => {
  const stop = new AbortController();
  const started = Promise.withResolvers<AbortSignal>();
  await serving(
    (request) => {
      started.resolve(request.signal);
      return new Promise(() => {});
    },
    { signal: stop.signal, shutdownTimeout: Infinity },
    async ({ connect, server, logged }) => {
      const client = await connect();
      await client.send(request());
      const signal = await deadline(started.promise, "the app");
      const down = server.shutdown();
      await turns(2);
      assertFalse(signal.aborted);
      stop.abort(new Error("enough"));
      await deadline(down, "the server's end");
      assertEquals(signal.aborted, true);
      assertEquals(logged, []);
    },
  );
});

Deno.test("a shutdown that aborts requests is logged", async () => {
  const started = Promise.withResolvers<void>();
  await serving(
    () => {
      started.resolve();
      return new Promise(() => {});
    },
    { shutdownTimeout: 1 },
    async ({ connect, server, logged }) => {
      const client = await connect();
      await client.send(request());
      await deadline(started.promise, "the app");
      await deadline(server.shutdown(), "the server's end");
      assertEquals(logged, [
        "Aborted requests as they must end within 1 ms of shutdown(): 1 connections are still open",
      ]);
    },
  );
});

Deno.test("options.signal stops the server at once", async () => {
  const stop = new AbortController();
  const started = Promise.withResolvers<AbortSignal>();
  await serving(
    (request) => {
      started.resolve(request.signal);
      return new Promise(() => {});
    },
    { signal: stop.signal },
    async ({ connect, server }) => {
      const client = await connect();
      await client.send(request());
      const signal = await deadline(started.promise, "the app");
      stop.abort();
      await deadline(server.finished, "finished");
      assert(signal.aborted);
      await assertRejects(() => client.send(bytes("x")), Deno.errors.BrokenPipe);
    },
  );
});

Deno.test("serveSCGI() survives any input", async () => {
  const anything = fc.uint8Array({ maxLength: 60 });
  const nearly = fc.array(
    fc.tuple(
      fc.constantFrom("CONTENT_LENGTH", "SCGI", "REQUEST_METHOD", "HTTP_X_A", ""),
      fc.constantFrom("0", "1", "5", "GET", "POST", "", "x\r\ny"),
    ),
    { maxLength: 6 },
  ).map((pairs) => encodeSCGIHeaders(pairs));
  await serving(echo, {}, async ({ connect, logged }) => {
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(anything, nearly),
        anything,
        fc.boolean(),
        async (raw, body, half) => {
          const client = await connect();
          await client.send(raw, body).catch(() => {});
          if (half) {
            await client.conn.closeWrite!();
            const came = await client.rest();
            if (came.length > 0) {
              assert([200, 400, 431, 500, 501].includes(parseResponse(came).status!));
            }
          }
          client.close();
          const other = await connect();
          await other.send(request("body"));
          assertEquals(text((await other.response()).body), "body");
          other.close();
        },
      ),
      { numRuns: 200 },
    );
    for (const message of logged) assert(message.startsWith("Cannot "), message);
  });
});
