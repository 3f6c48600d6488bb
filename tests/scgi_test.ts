import { assert, assertEquals, assertFalse, assertStringIncludes } from "@std/assert";
import fc from "fast-check";
import type { App } from "../bridge/app.ts";

import { encodeSCGIHeaders } from "../wire/scgi.ts";
import { parseResponse } from "./testing/response.ts";
import { bytes, cut, pattern, split, text } from "./testing/bytes.ts";
import { deadline } from "./testing/deadline.ts";

import { head, request, serving } from "./testing/scgi_serving.ts";
import { MEDIA, turns } from "./testing/serving.ts";

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
  "a length with a leading zero": ["05:", 400, "its length begins with 0"],
  "a length that is too long": ["99999999:", 431, "more than 7 digits"],
  "an announcement past the limit": ["9999999:", 431, "its length must be at most 262144"],
  "no comma": ["4:A\x001\0;", 400, "a comma must follow its data"],
  "no headers": ["0:,", 400, "there are none"],
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
    let called = false;
    await serving(() => (called = true, new Response()), {}, async ({ connect, logged }) => {
      const client = await connect();
      await client.send(bytes(raw));
      const response = await client.response();
      assertEquals([response.status, called, logged.length], [status, false, 1]);
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

Deno.test("requestTimeout: 503, and the handler that runs on counts for maxRequests (rule F8)", async () => {
  const gate = Promise.withResolvers<void>();
  const app: App = async () => (await gate.promise, new Response("Hello"));
  await serving(app, { maxRequests: 1, requestTimeout: 1 }, async ({ connect, logged }) => {
    const client = await connect();
    await client.send(head(10), bytes("some"));
    assertEquals((await client.response()).status, 503);
    // The rest of the body is drained: a close over unread bytes can destroy the response (rule C15).
    await client.send(bytes("late"));
    client.close();
    await turns();
    assertStringIncludes(logged.join(), "Responded with 503 to POST /");
    const refused = await connect();
    await refused.send(request());
    assertEquals((await refused.response()).status, 503);
    gate.resolve();
    await turns();
    const next = await connect();
    await next.send(request());
    assertEquals((await next.response()).status, 200);
    assertEquals(logged.length, 1);
  });
});

Deno.test("maxBufferedTotal drops a body that the app does not read, and the response goes on (rules D6, F8)", async () => {
  const app: App = () => new Response(pattern(3_000_000));
  await serving(app, { maxBufferedTotal: 500_000 }, async ({ connect }) => {
    const client = await connect(65536);
    // It reads once it has sent all.
    await deadline(client.send(head(2_000_000), pattern(2_000_000)), "the body's end");
    assertEquals((await client.response()).body, pattern(3_000_000));
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
