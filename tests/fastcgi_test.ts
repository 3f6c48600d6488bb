import {
  assert,
  assertEquals,
  assertFalse,
  assertInstanceOf,
  assertLess,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import fc from "fast-check";
import type { App, FilterInfo } from "../bridge/app.ts";
import { allow, type FastCGIOptions, type Listener, serveFastCGI } from "../fastcgi.ts";
import { ProtocolStatus, RecordType, Role } from "../wire/fastcgi.ts";
import { bytes, concat, cut, pattern, split, text } from "./testing/bytes.ts";
import { deadline } from "./testing/deadline.ts";
import { FakeListener } from "./testing/duplex.ts";
import { MEDIA, type Medium, type Served, serving as servingBy, turns } from "./testing/serving.ts";
import {
  abortRequest,
  ask,
  beginRequest,
  FastCGIClient,
  getValues,
  nameValuePairs,
  params,
  type Received,
  record,
  request,
  stdin,
  stdinEnd,
  stream,
  streamEnd,
  variables,
} from "./testing/fastcgi_client.ts";

/** Serves an app, and shuts the server down whatever happens. */
const serving = (
  app: App,
  options: FastCGIOptions,
  use: (served: Served<FastCGIClient>) => Promise<void>,
  over: Medium = "memory",
) =>
  servingBy(
    over,
    (listener, own) => serveFastCGI(app, listener, { ...own, ...options }),
    (conn) => new FastCGIClient(conn),
    use,
  );

/** Answers with all that it was sent. */
const echo: App = async (request) =>
  new Response(await request.bytes(), { headers: { "x-url": request.url } });
const hello: App = () => new Response("Hello");

const types = (records: Received[]) => records.map(({ type }) => type);
const post = { REQUEST_METHOD: "POST" };

for (const over of MEDIA) {
  Deno.test(`serveFastCGI() answers over ${over}, and closes as asked (SPEC C8, C16)`, async () => {
    await serving(
      echo,
      {},
      async ({ connect }) => {
        const client = await connect();
        await client.send(
          request({ variables: { ...post, REQUEST_URI: "/a" }, body: bytes("body") }),
        );
        await client.end();
        assertEquals(types(client.records), [
          ...client.records.slice(0, -2).map(() => RecordType.stdout),
          RecordType.stdout,
          RecordType.endRequest,
        ]);
        const answer = await client.answer();
        assertEquals([answer.status, text(answer.body), answer.headers.get("x-url")], [
          200,
          "body",
          "http://example.org/a",
        ]);
        assertEquals(answer.end, { appStatus: 0, protocolStatus: ProtocolStatus.requestComplete });
        assertEquals([answer.complete, answer.stderr], [true, ""]);
      },
      over,
    );
  });

  Deno.test(`serveFastCGI() keeps a connection over ${over} (SPEC C8)`, async () => {
    await serving(
      echo,
      {},
      async ({ connect }) => {
        const client = await connect();
        for (const body of ["one", "", "three"]) {
          await client.send(request({ keep: true, variables: post, body: bytes(body) }));
          assertEquals(text((await client.answer()).body), body);
        }
        assertFalse(client.ended);
        await client.send(request({ keep: false }));
        await client.end();
        assertEquals((await client.answer()).status, 200);
      },
      over,
    );
  });

  Deno.test(`serveFastCGI() answers over ${over} after a half-close; the signal does not fire (SPEC C22)`, async () => {
    const started = Promise.withResolvers<AbortSignal>();
    const gate = Promise.withResolvers<void>();
    await serving(
      async (request) => {
        started.resolve(request.signal);
        await gate.promise;
        return new Response(await request.text());
      },
      {},
      async ({ connect }) => {
        for (const keep of [true, false]) {
          const client = await connect();
          await client.send(request({ keep, variables: post, body: bytes("body") }));
          await client.conn.closeWrite!();
          const signal = await deadline(started.promise, "the app");
          await turns();
          gate.resolve();
          const answer = await client.answer();
          assertEquals([text(answer.body), signal.aborted], ["body", false]);
          await client.end();
        }
      },
      over,
    );
  });

  Deno.test(`serveFastCGI() aborts the signal when the web server goes away over ${over} (SPEC C22)`, async () => {
    for (const whole of [true, false]) {
      const started = Promise.withResolvers<Request>();
      const read = Promise.withResolvers<unknown>();
      const cancelled = Promise.withResolvers<void>();
      await serving(
        (request) => {
          started.resolve(request);
          request.text().then(() => read.resolve("read"), read.resolve);
          return new Response(
            new ReadableStream({
              pull: () => new Promise<void>(() => {}),
              cancel: () => cancelled.resolve(),
            }),
          );
        },
        {},
        async ({ connect, logged }) => {
          const client = await connect();
          const all = request({ variables: post, body: bytes("body") });
          // Without the last record, and with.
          await client.send(whole ? all : all.subarray(0, -8));
          const { signal } = await deadline(started.promise, "the app");
          await client.next("the head");
          client.close();
          await deadline(
            new Promise((resolve) => signal.addEventListener("abort", resolve)),
            "the signal",
          );
          assertInstanceOf(signal.reason, DOMException);
          assertEquals(signal.reason.name, "AbortError");
          await deadline(cancelled.promise, "the cancelling of the body");
          if (whole) assertEquals(await deadline(read.promise, "the body"), "read");
          assertEquals(logged, []);
        },
        over,
      );
    }
  });
}

Deno.test("serveFastCGI() fails a body that is being read when the web server goes away (SPEC C22)", async () => {
  const started = Promise.withResolvers<void>();
  const read = Promise.withResolvers<unknown>();
  await serving(
    async (request) => {
      const text = request.text();
      started.resolve();
      return new Response(await text.catch((error) => (read.resolve(error), "")));
    },
    {},
    async ({ connect }) => {
      const client = await connect();
      await client.send(beginRequest(1), params(1, variables(post)), stdin(1, bytes("half")));
      await deadline(started.promise, "the app");
      client.close();
      const error = await deadline(read.promise, "the body's failure");
      assertInstanceOf(error, DOMException);
    },
  );
});

Deno.test("serveFastCGI() takes a request cut at any byte (SPEC C2)", async () => {
  const whole = request({ keep: true, variables: { ...post, HTTP_X_A: "a" }, body: bytes("body") });
  await serving(echo, {}, async ({ connect }) => {
    const client = await connect();
    for (let at = 0; at < whole.length; at++) {
      for (const part of cut(whole, [at])) await client.send(part);
      assertEquals(text((await client.answer()).body), "body", `cut at ${at}`);
    }
    for (const byte of split(whole)) await client.send(byte);
    assertEquals(text((await client.answer()).body), "body");
    await client.send(...[1, 2, 3].map((id) => request({ id, keep: true })));
    for (const id of [1, 2, 3]) assertEquals((await client.answer(id)).status, 200);
  });
});

Deno.test("serveFastCGI() takes variables and body in records of any size and padding (SPEC C1, C10)", async () => {
  const pairs = params(1, variables({ ...post, HTTP_X_LONG: "x".repeat(300) }));
  const content = pairs.subarray(8, -8);
  const body = bytes("a body of some bytes");
  await serving(echo, {}, async ({ connect }) => {
    const client = await connect();
    for (const size of [1, 2, 3, 7, 64, 1000]) {
      const cutUp = (type: number, whole: Uint8Array) =>
        cut(whole, Array.from({ length: whole.length }, (_, i) => i * size))
          .map((part, i) => record(type, 1, part, (i * 37 + size) & 255));
      await client.send(
        record(RecordType.beginRequest, 1, bytes("\0\x01\x01\0\0\0\0\0"), 5),
        ...cutUp(RecordType.params, content),
        record(RecordType.params, 1, new Uint8Array(), 255),
        ...cutUp(RecordType.stdin, body),
        record(RecordType.stdin, 1, new Uint8Array(), 1),
      );
      const answer = await client.answer();
      assertEquals([answer.status, text(answer.body)], [200, text(body)], `records of ${size}`);
    }
  });
});

Deno.test("serveFastCGI() answers under the id it was asked with, all 16 bits of it (SPEC C20)", async () => {
  await serving(hello, {}, async ({ connect }) => {
    const client = await connect();
    for (const id of [1, 2, 255, 256, 0x1234, 65535]) {
      await client.send(request({ id, keep: true }));
      const answer = await client.answer(id);
      assertEquals([answer.status, text(answer.body)], [200, "Hello"]);
      assertEquals(client.records, []);
    }
  });
});

Deno.test("serveFastCGI() starts the app when the variables end, whatever of the body is to come (SPEC C12)", async () => {
  await serving((request) => new Response(request.body), {}, async ({ connect }) => {
    const client = await connect();
    await client.send(beginRequest(1), params(1, variables(post)));
    for (const part of ["one", "two", "three"]) {
      await client.send(stdin(1, bytes(part)));
      const came = await client.until(
        ({ type, content }) => type === RecordType.stdout && text(content).endsWith(part),
        `the echo of ${part}`,
      );
      assert(came);
    }
    await client.send(stdinEnd(1));
    assertEquals(text((await client.answer()).body), "onetwothree");
  });
});

Deno.test("serveFastCGI() serves requests interleaved on one connection (SPEC C9)", async () => {
  await serving(echo, {}, async ({ connect }) => {
    const client = await connect();
    const ids = Array.from({ length: 10 }, (_, i) => 2 * i + 1);
    const bodies = ids.map((id) => pattern(1000 + id));
    // The requests' records in turns: each has its own part of each.
    for (const id of ids) await client.send(beginRequest(id, { keep: true }));
    const pairs = ids.map((id) => nameValuePairs(variables({ ...post, REQUEST_URI: `/${id}` })));
    for (const [i, id] of ids.entries()) {
      await client.send(stream(RecordType.params, id, pairs[i].subarray(0, 20)));
    }
    for (const [i, id] of ids.entries()) {
      await client.send(
        stream(RecordType.params, id, pairs[i].subarray(20)),
        streamEnd(RecordType.params, id),
      );
    }
    for (let at = 0; at < 1100; at += 100) {
      for (const [i, id] of ids.entries()) {
        await client.send(stdin(id, bodies[i].subarray(at, at + 100)));
      }
    }
    for (const id of ids.toReversed()) await client.send(stdinEnd(id));
    for (const [i, id] of ids.entries()) {
      const answer = await client.answer(id);
      assertEquals(answer.body, bodies[i]);
      assertEquals(answer.headers.get("x-url"), `http://example.org/${id}`);
    }
    assertEquals(client.records, []);
  });
});

Deno.test("serveFastCGI() keeps large bodies apart that come in the same reads (SPEC C9)", async () => {
  for (const read of [(request: Request) => request.body, (request: Request) => request.bytes()]) {
    const app: App = async (request) => new Response(await read(request));
    await serving(app, {}, async ({ connect }) => {
      const client = await connect();
      const ids = [1, 2, 3];
      const bodies = ids.map((id) => pattern(300_000 + id).map((byte) => byte ^ (id * 85)));
      for (const [i, id] of ids.entries()) {
        const pairs = variables({ ...post, CONTENT_LENGTH: String(bodies[i].length) });
        await client.send(beginRequest(id, { keep: true }), params(id, pairs));
      }
      const records: Uint8Array[] = [];
      for (let at = 0; at < 300_100; at += 20_000) {
        for (const [i, id] of ids.entries()) {
          records.push(stdin(id, bodies[i].subarray(at, at + 20_000)));
        }
      }
      await client.send(...records, ...ids.map((id) => stdinEnd(id)));
      for (const [i, id] of ids.entries()) {
        const { body } = await client.answer(id);
        assertEquals(body.length, bodies[i].length);
        assertEquals(body.findIndex((byte, at) => byte !== bodies[i][at]), -1);
      }
    });
  }
});

Deno.test("serveFastCGI() lets no request wait for another (SPEC C9)", async () => {
  const gate = Promise.withResolvers<void>();
  await serving(
    async (request) => {
      if (request.url.endsWith("/slow")) await gate.promise;
      return new Response(await request.bytes());
    },
    {},
    async ({ connect }) => {
      const client = await connect();
      const slow = variables({ ...post, REQUEST_URI: "/slow" });
      await client.send(beginRequest(1, { keep: true }), params(1, slow));
      await client.send(beginRequest(2, { keep: true }), params(2, variables(post)));
      // More than a connection holds for one request alone.
      const body = pattern(2_000_000);
      await deadline(client.send(stdin(1, body), stdinEnd(1)), "the slow request's body");
      await client.send(stdin(2, bytes("quick")), stdinEnd(2));
      assertEquals(text((await client.answer(2)).body), "quick");
      await client.send(request({ id: 3, keep: true }));
      assertEquals((await client.answer(3)).status, 200);
      gate.resolve();
      assertEquals((await client.answer(1)).body, body);
    },
  );
});

Deno.test("serveFastCGI() tells its capacity, first thing and at any time (SPEC C5)", async () => {
  const gate = Promise.withResolvers<void>();
  await serving(
    async () => (await gate.promise, new Response("Hello")),
    { maxConnections: 7, maxRequests: 300 },
    async ({ connect }) => {
      const client = await connect();
      const ask = async (...names: string[]) => {
        await client.send(getValues(...names));
        const { type, id, content } = (await client.next("the values"))!;
        assertEquals([type, id], [RecordType.getValuesResult, 0]);
        return text(content);
      };
      const all = await ask("FCGI_MAX_CONNS", "FCGI_MAX_REQS", "FCGI_MPXS_CONNS");
      assertEquals(
        all,
        "\x0e\x01FCGI_MAX_CONNS7\x0d\x03FCGI_MAX_REQS300\x0f\x01FCGI_MPXS_CONNS1",
      );
      assertEquals(
        await ask("FCGI_MPXS_CONNS", "UNKNOWN", "__proto__"),
        "\x0f\x01FCGI_MPXS_CONNS1",
      );
      assertEquals(await ask(), "");
      await client.send(beginRequest(1, { keep: true }));
      assertEquals(await ask("FCGI_MAX_CONNS"), "\x0e\x01FCGI_MAX_CONNS7");
      await client.send(params(1, variables()), stdinEnd(1));
      assertEquals(await ask("FCGI_MAX_CONNS"), "\x0e\x01FCGI_MAX_CONNS7");
      gate.resolve();
      assertEquals(text((await client.answer()).body), "Hello");
    },
  );
});

Deno.test("serveFastCGI() answers unknown management types, and sends none unasked (SPEC C3)", async () => {
  await serving(hello, {}, async ({ connect }) => {
    const client = await connect();
    for (const type of [10, 11, 12, 200, 255]) {
      await client.send(record(type, 0, bytes("what?"), 3));
      const answer = (await client.next("the answer"))!;
      assertEquals(answer, {
        type: RecordType.unknownType,
        id: 0,
        content: new Uint8Array([type, 0, 0, 0, 0, 0, 0, 0]),
      });
    }
    client.records.length = 0;
    await client.send(request());
    await client.end();
    assertEquals(client.records.filter(({ id }) => id === 0), []);
  });
});

Deno.test("serveFastCGI() skips unknown types and records of no request (SPEC C4, C13)", async () => {
  await serving(echo, {}, async ({ connect }) => {
    const client = await connect();
    await client.send(
      stdin(1, bytes("late")),
      stdinEnd(1),
      params(7, variables()),
      abortRequest(9),
      record(99, 4, bytes("unknown"), 7),
      beginRequest(1, { keep: true }),
      record(99, 1, bytes("unknown"), 7),
      params(1, variables(post)),
      record(99, 1),
      // What only an application sends.
      record(RecordType.stdout, 1, bytes("x")),
      record(RecordType.endRequest, 1, new Uint8Array(8)),
      record(RecordType.data, 1, bytes("x")),
      stdin(1, bytes("body")),
      stdin(2, bytes("other")),
      stdinEnd(1),
      stdinEnd(1),
    );
    assertEquals(text((await client.answer()).body), "body");
    await client.send(request({ id: 7, keep: true }));
    assertEquals((await client.answer(7)).status, 200);
  });
});

const PROTOCOL_ERRORS: Record<string, [Uint8Array[], string]> = {
  "another version (SPEC C1)": [
    [bytes("GET / HTTP/1.1\r\n\r\n")],
    "Cannot decode FastCGI record as version must be 1: current value is 71",
  ],
  "an application record of id 0 (SPEC C3)": [
    [stdin(0, bytes("x"))],
    "Cannot take FastCGI record as its request id must not be 0: its type is 5",
  ],
  "a request of id 0 (SPEC C3)": [
    [beginRequest(0)],
    "Cannot take FastCGI record as its request id must not be 0: its type is 1",
  ],
  "a short FCGI_BEGIN_REQUEST (SPEC C6)": [
    [record(RecordType.beginRequest, 1, bytes("\0\x01\0"))],
    "Cannot decode FCGI_BEGIN_REQUEST as its content must be 8 bytes: current length is 3",
  ],
  "an id in use (SPEC C6)": [
    [beginRequest(5), beginRequest(5)],
    "Cannot begin request as its id must not be in use: current value is 5",
  ],
  "a body before the variables' end": [
    [beginRequest(1), stdin(1, bytes("x"))],
    "Cannot take FCGI_STDIN as FCGI_PARAMS must end before: it has not",
  ],
  "values that are cut off (SPEC C5, C10)": [
    [record(RecordType.getValues, 0, bytes("\x05"))],
    "Cannot decode name-value pairs as a value's length must have 1 bytes: 0 are left",
  ],
};

for (const [name, [parts, message]] of Object.entries(PROTOCOL_ERRORS)) {
  Deno.test(`serveFastCGI() closes a connection over ${name}, and the log says why`, async () => {
    await serving(hello, {}, async ({ connect, logged }) => {
      const client = await connect();
      await client.send(...parts);
      await client.end();
      assertEquals(logged, [message]);
      assertEquals(client.records, []);
      const other = await connect();
      await other.send(request());
      assertEquals((await other.answer()).status, 200);
    });
  });
}

Deno.test("serveFastCGI() calls off what is under way when a connection breaks the protocol", async () => {
  const started = Promise.withResolvers<AbortSignal>();
  await serving(
    (request) => {
      started.resolve(request.signal);
      return new Promise(() => {});
    },
    {},
    async ({ connect }) => {
      const client = await connect();
      await client.send(request({ keep: true }));
      const signal = await deadline(started.promise, "the app");
      await client.send(bytes("x"));
      await client.end();
      assert(signal.aborted);
    },
  );
});

Deno.test("serveFastCGI() ends an aborted request soon, and goes on (SPEC C21)", async () => {
  const started = Promise.withResolvers<Request>();
  const cancelled = Promise.withResolvers<void>();
  await serving(
    (request) => {
      if (request.url.endsWith("/never")) {
        started.resolve(request);
        return new Promise(() => {});
      }
      if (!request.url.endsWith("/stream")) return new Response("Hello");
      return new Response(
        new ReadableStream({
          start: (controller) => controller.enqueue(bytes("begun")),
          pull: () => new Promise<void>(() => {}),
          cancel: () => cancelled.resolve(),
        }),
      );
    },
    {},
    async ({ connect, logged }) => {
      const client = await connect();
      const end = { appStatus: 0, protocolStatus: ProtocolStatus.requestComplete };
      // Before its variables ended.
      await client.send(beginRequest(1, { keep: true }), abortRequest(1));
      assertEquals((await client.answer()).end, end);
      // While the app works.
      await client.send(request({ keep: true, variables: { REQUEST_URI: "/never" } }));
      const { signal } = await deadline(started.promise, "the app");
      assertFalse(signal.aborted);
      await client.send(abortRequest(1));
      assertEquals((await client.answer()).end, end);
      assert(signal.aborted);
      // In the midst of an answer.
      await client.send(request({ keep: true, variables: { REQUEST_URI: "/stream" } }));
      await client.until(({ type }) => type === RecordType.stdout, "the head");
      await client.send(abortRequest(1));
      assertEquals((await client.answer()).end, end);
      await deadline(cancelled.promise, "the cancelling of the body");
      // The connection goes on.
      await client.send(request({ keep: true }), abortRequest(2));
      assertEquals(text((await client.answer()).body), "Hello");
      assertEquals(client.records, []);
      assertEquals(logged, []);
    },
  );
});

Deno.test("serveFastCGI() sends nothing for an aborted request whose app answers late (SPEC C18)", async () => {
  const gate = Promise.withResolvers<void>();
  await serving(
    async (request) => {
      if (request.url.endsWith("/late")) await gate.promise;
      return new Response("Hello");
    },
    {},
    async ({ connect }) => {
      const client = await connect();
      await client.send(request({ keep: true, variables: { REQUEST_URI: "/late" } }));
      await client.send(abortRequest(1));
      assertEquals((await client.answer()).status, undefined);
      // The same id, for another request: it is not to get the late answer.
      await client.send(beginRequest(1, { keep: true }));
      gate.resolve();
      await turns();
      await client.send(params(1, variables()), stdinEnd(1));
      const answer = await client.answer();
      assertEquals([answer.status, text(answer.body)], [200, "Hello"]);
      assertEquals(client.records, []);
    },
  );
});

Deno.test("serveFastCGI() answers without waiting for the body, and drops what comes late (SPEC C13)", async () => {
  await serving(
    (request) => {
      if (request.method === "GET") return new Response("next");
      return new Response("too large", { status: 413 });
    },
    {},
    async ({ connect }) => {
      const client = await connect();
      const long = { ...post, CONTENT_LENGTH: "1000000" };
      await client.send(beginRequest(1, { keep: true }), params(1, variables(long)));
      await client.send(stdin(1, pattern(1000)));
      const answer = await client.answer();
      assertEquals([answer.status, answer.complete], [413, true]);
      await client.send(stdin(1, pattern(999000)), stdinEnd(1));
      await client.send(request({ keep: true }));
      assertEquals(text((await client.answer()).body), "next");
    },
  );
});

for (const over of MEDIA) {
  Deno.test(`serveFastCGI() reads on after an early answer over ${over}, so that it is not lost (SPEC C15)`, async () => {
    await serving(
      () => new Response("too large", { status: 413 }),
      {},
      async ({ connect, server }) => {
        const client = await connect();
        const body = pattern(3_000_000);
        await client.send(
          beginRequest(1),
          params(1, variables({ ...post, CONTENT_LENGTH: "3000000" })),
        );
        // As Caddy does: all of it before the answer is read.
        await deadline(client.send(stdin(1, body), stdinEnd(1)), "the body's end");
        await client.end();
        const answer = await client.answer();
        assertEquals([answer.status, text(answer.body), answer.complete], [413, "too large", true]);
        client.close();
        await deadline(server.shutdown(), "the server's end");
      },
      over,
    );
  });
}

Deno.test("serveFastCGI() closes in the end on a web server that neither sends nor closes (SPEC C15)", async () => {
  await serving(
    () => new Response("enough", { status: 413 }),
    { shutdownTimeout: 60_000 },
    async ({ connect, server }) => {
      const client = await connect();
      await client.send(beginRequest(1), params(1, variables({ ...post, CONTENT_LENGTH: "10" })));
      await client.end();
      assertEquals((await client.answer()).status, 413);
      // Half closed, it waits for what is still on its way; not for ever.
      await client.send(stdin(1, bytes("some")));
      await deadline(server.shutdown(), "the connection's close", 20_000);
      await assertRejects(() => client.send(stdin(1, bytes("more"))), Deno.errors.BrokenPipe);
    },
  );
});

Deno.test("serveFastCGI() stops reading while the app does not read (SPEC C14, F8)", async () => {
  const gate = Promise.withResolvers<void>();
  await serving(
    async (request) => {
      await gate.promise;
      let length = 0;
      for await (const chunk of request.body!) length += chunk.length;
      return new Response(String(length));
    },
    {},
    async ({ connect }) => {
      const client = await connect(65536);
      await client.send(beginRequest(1, { keep: true }), params(1, variables(post)));
      let sent = 0;
      const part = stdin(1, pattern(60000));
      const sending = (async () => {
        while (sent < 50) {
          await client.send(part);
          sent++;
        }
        await client.send(stdinEnd(1));
      })();
      await turns(100);
      // The connection's 256 KiB, the pipe's 64 KiB, and two reads.
      assertLess(sent * 60000, 600_000);
      gate.resolve();
      await deadline(sending, "the body's end");
      assertEquals(text((await client.answer()).body), "3000000");
    },
  );
});

Deno.test("serveFastCGI() asks no more of the app than the web server takes (SPEC B16)", async () => {
  let made = 0;
  const cancelled = Promise.withResolvers<void>();
  const app = () =>
    new Response(
      new ReadableStream({
        pull(controller) {
          made++;
          controller.enqueue(pattern(10000));
        },
        cancel: () => cancelled.resolve(),
      }, { highWaterMark: 0 }),
    );
  await serving(app, {}, async ({ connect }) => {
    const client = await connect(65536);
    await client.send(request());
    await turns(100);
    assertLess(made * 10000, 400_000);
    for (let i = 0; i < 100; i++) await client.next();
    await turns(10);
    assertLess(made, 140);
    client.close();
    await deadline(cancelled.promise, "the cancelling of the body");
  });
});

Deno.test("serveFastCGI() echoes 40 MB to a web server that sends all of it before it reads (SPEC C14)", async () => {
  const body = pattern(40_000_000);
  await serving(
    (request) => new Response(request.body),
    {},
    async ({ connect }) => {
      const client = await connect();
      const sent = client.send(request({ variables: post, body }));
      await deadline(sent, "the end of the body", 30_000);
      let at = 0;
      let head = true;
      while (true) {
        const record = await client.next();
        client.records.length = 0;
        if (record === null || record.type === RecordType.endRequest) break;
        if (head) head = false;
        else {
          assertEquals(record.content, body.slice(at, at + record.content.length));
          at += record.content.length;
        }
      }
      assertEquals(at, body.length);
    },
    "TCP",
  );
});

Deno.test("serveFastCGI() holds no more than maxBufferedBody for a web server that does not read (SPEC C14)", async () => {
  await serving(
    (request) => new Response(request.body),
    { maxBufferedBody: 1_000_000 },
    async ({ connect }) => {
      const client = await connect(65536);
      let sent = 0;
      const sending = client.send(beginRequest(1), params(1, variables(post))).then(async () => {
        for (; sent < 100; sent++) await client.send(stdin(1, pattern(60000)));
        await client.send(stdinEnd(1));
      });
      // As many as fit once the server has seen that nothing is read.
      const held = Promise.withResolvers<void>();
      const watch = setInterval(() => sent * 60000 > 700_000 && held.resolve(), 10);
      await deadline(held.promise, "the server to read on").finally(() => clearInterval(watch));
      await turns(100);
      assertLess(sent * 60000, 1_700_000);
      const answer = await client.answer();
      await deadline(sending, "the body's end");
      assertEquals(answer.body.length, 6_000_000);
    },
  );
});

/** Answers with a head and one chunk, then breaks at the gate. */
function breaking(gate: Promise<void>): App {
  return (request) =>
    request.url.endsWith("/whole") ? new Response("whole") : new Response(
      new ReadableStream({
        start: (controller) => controller.enqueue(bytes("begun")),
        async pull(controller) {
          await gate;
          controller.error(new Error("broken"));
        },
      }, { highWaterMark: 0 }),
    );
}

Deno.test("serveFastCGI() closes over an answer that breaks off, without its end (SPEC B17)", async () => {
  for (const keep of [true, false]) {
    const gate = Promise.withResolvers<void>();
    await serving(breaking(gate.promise), {}, async ({ connect }) => {
      const client = await connect();
      await client.send(request({ keep }));
      await client.until(({ type }) => type === RecordType.stdout, "the head");
      gate.resolve();
      await client.end();
      assertEquals(client.records.some(({ type }) => type === RecordType.endRequest), false);
      const answer = await client.answer();
      assertEquals([answer.status, text(answer.body)], [200, "begun"]);
      assertEquals([answer.complete, answer.end], [false, null]);
      assertStringIncludes(answer.stderr, "Error: broken\n");
    });
  }
});

Deno.test("serveFastCGI() ends an answer that breaks off with a status where others share the connection (SPEC B17)", async () => {
  const gate = Promise.withResolvers<void>();
  await serving(breaking(gate.promise), {}, async ({ connect }) => {
    const client = await connect();
    await client.send(request({ id: 1, keep: true }));
    const whole = variables({ ...post, REQUEST_URI: "/whole" });
    await client.send(beginRequest(2, { keep: true }));
    await client.until(({ type }) => type === RecordType.stdout, "the head");
    gate.resolve();
    const answer = await client.answer(1);
    assertEquals([text(answer.body), answer.complete], ["begun", false]);
    assertEquals(answer.end, { appStatus: 1, protocolStatus: ProtocolStatus.requestComplete });
    await client.send(params(2, whole), stdinEnd(2));
    assertEquals(text((await client.answer(2)).body), "whole");
    assertFalse(client.ended);
  });
});

Deno.test("serveFastCGI() writes the log to FCGI_STDERR and ends that stream (SPEC C17)", async () => {
  await serving(
    (_request, info) => {
      info.log("one");
      info.log("two");
      return new Response("Hello");
    },
    {},
    async ({ connect }) => {
      const client = await connect();
      await client.send(request());
      await client.end();
      const stderr = client.records.filter(({ type }) => type === RecordType.stderr);
      assertEquals(stderr.map(({ content }) => text(content)), ["one\n", "two\n", ""]);
      assertEquals(client.records.at(-1)?.type, RecordType.endRequest);
    },
  );
});

Deno.test("info.log() behind HAProxy, which drops FCGI_STDERR or dies of it, goes to the server's log", async () => {
  await serving(
    (_request, info) => {
      info.log("one");
      return new Response("Hello");
    },
    {},
    async ({ connect, logged }) => {
      const client = await connect();
      await client.send(request({ variables: { SERVER_SOFTWARE: "HAProxy 2.6.12" } }));
      await client.end();
      assertEquals(logged, ["one"]);
      assertEquals(client.records.filter(({ type }) => type === RecordType.stderr), []);
    },
  );
});

Deno.test("info.log() after the answer goes to the server's log", async () => {
  const gate = Promise.withResolvers<void>();
  await serving(
    (_request, info) => {
      gate.promise.then(() => info.log("afterwards"));
      return new Response("Hello");
    },
    {},
    async ({ connect, logged }) => {
      const client = await connect();
      await client.send(request({ keep: true }));
      await client.answer();
      gate.resolve();
      await turns();
      assertEquals(logged, ["afterwards"]);
      assertEquals(client.records, []);
    },
  );
});

Deno.test("maxVariableBytes: at the limit an answer, past it 431 (SPEC F8)", async () => {
  const pairs = variables({ HTTP_X_LONG: "x".repeat(1000) });
  const { length } = nameValuePairs(pairs);
  const at = await ask(hello, { variables: pairs }, { maxVariableBytes: length });
  assertEquals(at.status, 200);
  const past = await ask(hello, { variables: pairs }, { maxVariableBytes: length - 1 });
  assertEquals([past.status, past.complete], [431, true]);
  assertStringIncludes(
    past.stderr,
    `its variables must have at most ${length - 1} bytes: they have ${length}`,
  );
  const long = (length: number) => ({ variables: { HTTP_X_LONG: "x".repeat(length) } });
  assertEquals((await ask(hello, long(261_000))).status, 200);
  assertEquals((await ask(hello, long(263_000))).status, 431);
});

Deno.test("maxVariables: at the limit an answer, past it 431 (SPEC F8)", async () => {
  const others = Array.from({ length: 7 }, (_, i): [string, string] => [`X${i}`, ""]);
  assertEquals((await ask(hello, { variables: others }, { maxVariables: 10 })).status, 200);
  const past = await ask(hello, { variables: others }, { maxVariables: 9 });
  assertEquals(past.status, 431);
  assertStringIncludes(past.stderr, "there must be at most 9: there are more");
  const many = (length: number) => ({
    variables: Array.from({ length }, (_, i): [string, string] => [`X${i}`, ""]),
  });
  assertEquals((await ask(hello, many(1997))).status, 200);
  assertEquals((await ask(hello, many(1998))).status, 431);
});

Deno.test("an option that is undefined has its default", async () => {
  const options = Object.fromEntries([
    "maxVariableBytes",
    "maxVariables",
    "maxBodyBytes",
    "maxBufferedBody",
    "maxRequests",
    "maxRequestsPerConnection",
    "maxConnections",
    "variablesTimeout",
    "bodyTimeout",
    "writeTimeout",
    "idleTimeout",
    "shutdownTimeout",
    "allowRemote",
    "onError",
    "debug",
  ].map((name) => [name, undefined]));
  const many = Array.from({ length: 2003 }, (_, i): [string, string] => [`X${i}`, ""]);
  assertEquals((await ask(hello, { variables: many }, options)).status, 431);
  assertEquals((await ask(hello, {}, options)).status, 200);
  const remote = new FakeListener();
  remote.addr = { transport: "tcp", hostname: "192.0.2.1", port: 9000 };
  assertThrows(() => serveFastCGI(hello, remote, options), Error, "must be on loopback");
});

Deno.test("a cut-off pair is answered 400 (SPEC C10)", async () => {
  await serving(hello, {}, async ({ connect }) => {
    const client = await connect();
    await client.send(beginRequest(1, { keep: true }));
    await client.send(stream(RecordType.params, 1, bytes("\x05\x05abc")));
    await client.send(streamEnd(RecordType.params, 1), stdinEnd(1));
    assertEquals((await client.answer()).status, 400);
    await client.send(request({ keep: true }));
    assertEquals((await client.answer()).status, 200);
  });
});

Deno.test("maxBodyBytes: at the limit an answer, past it 413, declared or not (SPEC F8)", async () => {
  for (const declared of [true, false]) {
    const parts = (length: number) => ({
      variables: { ...post, CONTENT_LENGTH: declared ? String(length) : "" },
      body: pattern(length),
    });
    const at = await ask(echo, parts(1000), { maxBodyBytes: 1000 });
    assertEquals([at.status, at.body.length], [200, 1000]);
    let asked = false;
    const past = await ask(
      (request, info) => {
        asked = true;
        return (echo as (...args: unknown[]) => Response)(request, info);
      },
      parts(1001),
      { maxBodyBytes: 1000 },
    );
    assertEquals([past.status, past.complete], [413, true]);
    assertEquals(asked, !declared);
    assertStringIncludes(past.stderr, "it must have at most 1000 bytes: it has ");
  }
});

Deno.test("maxBufferedBody: past it a request fails, and others on the connection do not (SPEC C9)", async () => {
  const gate = Promise.withResolvers<void>();
  await serving(
    async (request) => {
      if (request.method === "POST") await gate.promise;
      return new Response(await request.bytes());
    },
    { maxBufferedBody: 500_000 },
    async ({ connect }) => {
      const client = await connect();
      await client.send(getValues("FCGI_MPXS_CONNS"));
      for (const id of [1, 2]) {
        await client.send(beginRequest(id, { keep: true }), params(id, variables(post)));
      }
      await deadline(client.send(stdin(1, pattern(500_000)), stdinEnd(1)), "the body at the limit");
      await deadline(client.send(stdin(2, pattern(1_500_000)), stdinEnd(2)), "the body past it");
      gate.resolve();
      assertEquals((await client.answer(1)).body, pattern(500_000));
      const past = await client.answer(2);
      assertEquals([past.status, past.complete], [413, true]);
      assertStringIncludes(
        past.stderr,
        "Cannot hold request body as it must have at most 500000 unread bytes",
      );
      await client.send(request({ id: 3, keep: true }));
      assertEquals((await client.answer(3)).status, 200);
    },
  );
});

Deno.test("maxRequestsPerConnection: at the limit answers, past it 503 and OVERLOADED (SPEC C19, F8)", async () => {
  const gate = Promise.withResolvers<void>();
  await serving(
    async () => (await gate.promise, new Response("Hello")),
    { maxRequestsPerConnection: 3 },
    async ({ connect }) => {
      const client = await connect();
      for (const id of [1, 2, 3, 4]) await client.send(request({ id, keep: true }));
      const past = await client.answer(4);
      assertEquals([past.status, past.complete], [503, true]);
      assertEquals(past.end, { appStatus: 0, protocolStatus: ProtocolStatus.overloaded });
      gate.resolve();
      for (const id of [1, 2, 3]) assertEquals((await client.answer(id)).status, 200);
      await client.send(request({ id: 5, keep: true }));
      assertEquals((await client.answer(5)).status, 200);
    },
  );
});

Deno.test("maxRequests: at the limit answers, past it 503, over all connections (SPEC C19, F8)", async () => {
  const gate = Promise.withResolvers<void>();
  await serving(
    async (request) => {
      if (request.url.endsWith("/wait")) await gate.promise;
      return new Response("Hello");
    },
    { maxRequests: 2 },
    async ({ connect }) => {
      const wait = { REQUEST_URI: "/wait" };
      const clients = [await connect(), await connect()];
      for (const client of clients) await client.send(request({ keep: true, variables: wait }));
      await turns();
      const third = await connect();
      await third.send(request({ keep: true }));
      const past = await third.answer();
      assertEquals([past.status, past.end?.protocolStatus], [503, ProtocolStatus.overloaded]);
      // Each way for a request to end makes room: an answer, an abort, a connection that goes away.
      await clients[0].send(abortRequest(1));
      await clients[0].answer();
      gate.resolve();
      await clients[1].answer();
      for (let i = 0; i < 3; i++) {
        await clients[0].send(beginRequest(1, { keep: true }), abortRequest(1));
        await clients[0].answer();
        const gone = await connect();
        await gone.send(beginRequest(1));
        await turns(3);
        gone.close();
        await turns(3);
      }
      for (const id of [1, 2]) await third.send(request({ id, keep: true }));
      for (const id of [1, 2]) assertEquals((await third.answer(id)).status, 200);
    },
  );
});

Deno.test("maxConnections: at the limit answers, past it 503 (SPEC C19, F8)", async () => {
  await serving(hello, { maxConnections: 2 }, async ({ connect }) => {
    const clients = [await connect(), await connect()];
    for (const client of clients) {
      await client.send(request({ keep: true }));
      assertEquals((await client.answer()).status, 200);
    }
    const third = await connect();
    await third.send(request({ variables: post, body: pattern(1000) }));
    const past = await third.answer();
    assertEquals([past.status, past.end?.protocolStatus], [503, ProtocolStatus.overloaded]);
    clients[0].close();
    await turns();
    const fourth = await connect();
    await fourth.send(request());
    assertEquals((await fourth.answer()).status, 200);
  });
});

Deno.test("variablesTimeout: a request whose variables do not end is closed over (SPEC F9)", async () => {
  await serving(hello, { variablesTimeout: 1 }, async ({ connect, logged }) => {
    const client = await connect();
    await client.send(beginRequest(1), stream(RecordType.params, 1, bytes("\x05")));
    await client.end();
    assertEquals(client.records, []);
    assertEquals(logged.length, 1);
    assertStringIncludes(logged[0], "a request's variables must come within 1 ms");
  });
});

Deno.test("bodyTimeout: reading fails, and 408 is the answer unless the app has another (SPEC F8)", async () => {
  await serving(
    async (request) => {
      const text = request.text();
      return new Response(
        request.url.endsWith("/own")
          ? await text.catch((error) => `own: ${error.status}`)
          : await text,
      );
    },
    { bodyTimeout: 1 },
    async ({ connect }) => {
      const client = await connect();
      const own = variables({ ...post, REQUEST_URI: "/own" });
      await client.send(beginRequest(1, { keep: true }), params(1, variables(post)));
      await client.send(beginRequest(2, { keep: true }), params(2, own), stdin(2, bytes("some")));
      const answer = await client.answer(1);
      assertEquals([answer.status, answer.complete], [408, true]);
      assertStringIncludes(answer.stderr, "its next bytes must come within 1 ms: none came");
      assertEquals(text((await client.answer(2)).body), "own: 408");
    },
  );
});

Deno.test("bodyTimeout: an app that does not read is not hurried", async () => {
  const gate = Promise.withResolvers<void>();
  await serving(
    async (request) => (await gate.promise, new Response(await request.text())),
    { bodyTimeout: 1, variablesTimeout: 1, idleTimeout: 1 },
    async ({ connect }) => {
      const [client, other] = [await connect(), await connect()];
      await client.send(beginRequest(1), params(1, variables(post)), stdin(1, bytes("body")));
      // When an idle connection has been closed, the deadlines have been looked at.
      await other.end();
      await client.send(stdinEnd(1));
      gate.resolve();
      assertEquals(text((await client.answer()).body), "body");
    },
  );
});

Deno.test("idleTimeout: a connection without a request is closed, one with a request is not (SPEC C30, F9)", async () => {
  const gate = Promise.withResolvers<void>();
  await serving(
    async () => (await gate.promise, new Response("Hello")),
    { idleTimeout: 1 },
    async ({ connect, logged }) => {
      const [idle, busy] = [await connect(), await connect()];
      await busy.send(request({ keep: true }));
      await idle.end();
      assertFalse(busy.ended);
      gate.resolve();
      assertEquals((await busy.answer()).status, 200);
      await busy.end();
      assertEquals(logged, []);
    },
  );
});

Deno.test("writeTimeout: a web server that takes nothing is closed on (SPEC F8)", async () => {
  const cancelled = Promise.withResolvers<void>();
  let signal: AbortSignal | undefined;
  const app: App = (request) => {
    signal = request.signal;
    return new Response(
      new ReadableStream({
        pull: (controller) => controller.enqueue(pattern(10000)),
        cancel: () => cancelled.resolve(),
      }),
    );
  };
  await serving(app, { writeTimeout: 1 }, async ({ connect }) => {
    const client = await connect(65536);
    await client.send(request());
    await deadline(cancelled.promise, "the cancelling of the body");
    assert(signal!.aborted);
    await client.end();
    assertFalse(client.records.some(({ type }) => type === RecordType.endRequest));
  });
});

Deno.test("ten thousand unfinished requests cost the connection (SPEC C9, F8)", async () => {
  let asked = 0;
  await serving(() => (asked++, new Response("Hello")), {}, async ({ connect, logged }) => {
    const client = await connect();
    const begins = Array.from({ length: 10_000 }, (_, i) => beginRequest(i + 1, { keep: true }));
    await client.send(...begins).catch(() => {});
    await client.end();
    assertEquals([asked, client.records.length, logged.length], [0, 0, 1]);
    assertStringIncludes(
      logged[0],
      "Cannot begin request as a connection must have at most 64: 192 are unfinished",
    );
    // None of them counts any more.
    const other = await connect();
    for (let id = 1; id <= 64; id++) await other.send(request({ id, keep: true }));
    for (let id = 1; id <= 64; id++) assertEquals((await other.answer(id)).status, 200);
  });
});

Deno.test("a role that nobody knows is answered in full, with UNKNOWN_ROLE (SPEC C7, C19)", async () => {
  await serving(hello, {}, async ({ connect }) => {
    const client = await connect();
    for (const role of [0, 4, 257, 65535]) {
      await client.send(request({ role, keep: true }));
      const answer = await client.answer();
      assertEquals([answer.status, answer.complete], [500, true]);
      assertEquals(answer.end, { appStatus: 0, protocolStatus: ProtocolStatus.unknownRole });
      assertStringIncludes(answer.stderr, `Refused a request of role ${role}`);
    }
    for (const role of [Role.authorizer, Role.filter]) {
      await client.send(request({ role, keep: true }));
      const answer = await client.answer();
      assertEquals(answer.end?.protocolStatus, ProtocolStatus.unknownRole);
    }
    await client.send(request({ keep: true }));
    assertEquals((await client.answer()).status, 200);
  });
});

Deno.test("serveFastCGI() refuses an unknown role at FCGI_BEGIN_REQUEST (SPEC C7)", async () => {
  for (const over of MEDIA) {
    await serving(
      hello,
      {},
      async ({ connect }) => {
        for (const keep of [true, false]) {
          for (const role of [4, Role.authorizer, Role.filter]) {
            const client = await connect();
            await client.send(beginRequest(1, { role, keep }));
            const answer = await client.answer();
            assertEquals([answer.status, answer.complete], [500, true]);
            assertEquals(answer.end?.protocolStatus, ProtocolStatus.unknownRole);
            await client.send(params(1, variables(post)), stdin(1, bytes("body")), stdinEnd(1));
            if (!keep) {
              await client.end();
              continue;
            }
            await client.send(request({ keep: true }));
            assertEquals((await client.answer()).status, 200);
          }
        }
      },
      over,
    );
  }
});

Deno.test("an authorizer is asked when the variables end: no FCGI_STDIN comes (SPEC C27, C28)", async () => {
  const app = {
    fetch: () => new Response("not asked"),
    authorize(request: Request) {
      assertEquals(request.body, null);
      return request.headers.get("x-user") === "alice"
        ? allow({ USER_ID: "7", NAME: "José" })
        : new Response("Forbidden here", { status: 403 });
    },
  };
  await serving(app, {}, async ({ connect }) => {
    for (const keep of [true, false]) {
      const client = await connect();
      const role = Role.authorizer;
      await client.send(
        beginRequest(1, { role, keep }),
        params(1, variables({ HTTP_X_USER: "alice" })),
      );
      const allowed = await client.answer();
      assertEquals([allowed.status, allowed.complete], [200, true]);
      // mod_fcgid takes the names as they are.
      assertEquals(
        allowed.fields.filter(([name]) => name.startsWith("Variable-")),
        [["Variable-NAME", "Jos\xc3\xa9"], ["Variable-USER_ID", "7"]],
      );
      if (!keep) {
        await client.end();
        continue;
      }
      // One that does send an FCGI_STDIN.
      await client.send(request({ role, keep, variables: { HTTP_X_USER: "eve" } }));
      const denied = await client.answer();
      assertEquals([denied.status, text(denied.body)], [403, "Forbidden here"]);
      await client.send(request({ role, keep, variables: { ...post, HTTP_X_USER: "alice" } }));
      assertEquals((await client.answer()).status, 200);
    }
  });
});

const file = { FCGI_DATA_LENGTH: "8", FCGI_DATA_LAST_MOD: "1700000000" };

Deno.test("a filter gets the body and the file, and answers after the body (SPEC C29)", async () => {
  const app = {
    fetch: () => new Response("not asked"),
    async filter(request: Request, info: FilterInfo) {
      assertEquals(["method", "url", "body", "signal"].filter((key) => key in info), []);
      assertEquals(info.dataLength, 8);
      assertEquals(info.dataLastModified, new Date(1700000000_000));
      const body = await request.text();
      const data = await new Response(info.data).text();
      return new Response(`${body} ${data.toUpperCase()}`);
    },
  };
  await serving(app, {}, async ({ connect }) => {
    const client = await connect();
    const filter = { role: Role.filter, keep: true };
    await client.send(beginRequest(1, filter), params(1, variables({ ...post, ...file })));
    await client.send(stdin(1, bytes("body")), stdinEnd(1));
    await client.send(stream(RecordType.data, 1, bytes("the ")));
    await client.send(stream(RecordType.data, 1, bytes("file")), streamEnd(RecordType.data, 1));
    const answer = await client.answer();
    assertEquals([answer.status, text(answer.body)], [200, "body THE FILE"]);
    // Shorter than told.
    await client.send(beginRequest(1, filter), params(1, variables({ ...post, ...file })));
    await client.send(stdinEnd(1), stream(RecordType.data, 1, bytes("the")));
    await client.send(streamEnd(RecordType.data, 1));
    const short = await client.answer();
    assert(short.status! >= 400, "a file that ended early is answered with an error");
    // Without length or time.
    for (const lacking of [{ FCGI_DATA_LENGTH: "" }, { FCGI_DATA_LAST_MOD: "yesterday" }]) {
      await client.send(request({ ...filter, variables: { ...file, ...lacking } }));
      await client.send(streamEnd(RecordType.data, 1));
      const bad = await client.answer();
      assertEquals(bad.status, 400);
      assertStringIncludes(bad.stderr, "must be whole numbers: they are not");
    }
  });
});

Deno.test("a filter sends nothing before all of FCGI_STDIN has come (SPEC C29)", async () => {
  const answered = Promise.withResolvers<void>();
  const app = {
    fetch: () => new Response("not asked"),
    filter() {
      answered.resolve();
      return new Response("filtered");
    },
  };
  await serving(app, {}, async ({ connect }) => {
    const client = await connect();
    await client.send(beginRequest(1, { role: Role.filter, keep: true }));
    await client.send(params(1, variables({ ...post, ...file })), stdin(1, bytes("some")));
    await deadline(answered.promise, "the filter");
    await turns();
    // An answer to another question comes first: nothing was sent before it.
    await client.send(getValues("FCGI_MPXS_CONNS"));
    assertEquals((await client.next())?.type, RecordType.getValuesResult);
    await client.send(stdinEnd(1));
    assertEquals(text((await client.answer()).body), "filtered");
  });
});

Deno.test("webServerAddresses: others are closed on, Unix peers too (SPEC C25)", async () => {
  const cases: [Deno.Addr, boolean][] = [
    [{ transport: "tcp", hostname: "192.0.2.1", port: 1 }, true],
    [{ transport: "tcp", hostname: "::ffff:192.0.2.1", port: 1 }, true],
    [{ transport: "tcp", hostname: "2001:db8::1", port: 1 }, true],
    [{ transport: "tcp", hostname: "192.0.2.10", port: 1 }, false],
    [{ transport: "tcp", hostname: "127.0.0.1", port: 1 }, false],
    [{ transport: "unix", path: "/run/socket" }, false],
  ];
  for (const [addr, allowed] of cases) {
    const listener = new FakeListener();
    const logged: string[] = [];
    const server = serveFastCGI(hello, listener, {
      webServerAddresses: ["192.0.2.1", "2001:db8::1"],
      log: (message) => logged.push(message),
    });
    const [ours, theirs] = listener.connect();
    theirs.remoteAddr = addr;
    const client = new FastCGIClient(ours);
    await client.send(request()).catch(() => {});
    await client.end();
    assertEquals(client.records.length > 0, allowed, JSON.stringify(addr));
    assertEquals(logged.length, allowed ? 0 : 1);
    await deadline(server.shutdown(), "the server's end");
  }
});

Deno.test("FCGI_WEB_SERVER_ADDRS is the list where the option is none (SPEC C25)", async () => {
  const variable = "FCGI_WEB_SERVER_ADDRS";
  try {
    Deno.env.set(variable, "127.0.0.1, 192.0.2.7");
    assertEquals((await ask(hello)).status, 200);
    Deno.env.set(variable, "192.0.2.7");
    await serving(hello, {}, async ({ connect, logged }) => {
      const client = await connect();
      await client.send(request()).catch(() => {});
      await client.end();
      assertEquals([client.records.length, logged.length], [0, 1]);
    });
    for (const bad of ["", "example.org", "127.0.0.1,", "1.2.3", "*"]) {
      Deno.env.set(variable, bad);
      const error = assertThrows(() => serveFastCGI(hello, new FakeListener()), Error);
      assertEquals(
        error.message,
        `Cannot serve as ${variable} must be addresses with commas between: current value is ${
          JSON.stringify(bad)
        }`,
      );
    }
  } finally {
    Deno.env.delete(variable);
  }
});

Deno.test("a listener that other machines can reach is refused unless that is meant (SPEC F4)", async () => {
  const serve = (addr: Deno.Addr, options?: FastCGIOptions) => {
    const listener = new FakeListener();
    listener.addr = addr;
    return serveFastCGI(hello, listener, options);
  };
  const tcp = (hostname: string): Deno.Addr => ({ transport: "tcp", hostname, port: 9000 });
  for (const hostname of ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1", "10.0.0.1"]) {
    const error = assertThrows(() => serve(tcp(hostname)), Error);
    assertStringIncludes(
      error.message,
      `Cannot serve as the listener must be on loopback or a Unix socket: current address is ${hostname}.`,
    );
    assertStringIncludes(error.message, "allowRemote: true");
    await serve(tcp(hostname), { allowRemote: true }).shutdown();
    await serve(tcp(hostname), { webServerAddresses: ["192.0.2.1"] }).shutdown();
  }
  for (const hostname of ["127.0.0.1", "127.1.2.3", "::1", "localhost"]) {
    await serve(tcp(hostname)).shutdown();
  }
  await serve({ transport: "unix", path: "/run/socket" }).shutdown();
});

Deno.test("the handle has the shape of Deno.HttpServer", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  let told: Deno.Addr | undefined;
  const server = serveFastCGI(hello, listener, { onListen: (addr) => told = addr });
  const handle: Pick<
    Deno.HttpServer,
    "addr" | "finished" | "shutdown" | "ref" | "unref" | typeof Symbol.asyncDispose
  > = server;
  assertEquals(handle.addr, listener.addr);
  assertEquals(told, listener.addr);
  server.unref();
  server.ref();
  const { port } = listener.addr as Deno.NetAddr;
  await deadline(Promise.all([server.shutdown(), server.shutdown()]), "the server's end");
  await deadline(server.finished, "finished");
  await assertRejects(() => Deno.connect({ hostname: "127.0.0.1", port }));
  {
    await using disposed = serveFastCGI(hello, Deno.listen({ hostname: "127.0.0.1", port }));
    assertEquals(disposed.addr.transport, "tcp");
  }
  await assertRejects(() => Deno.connect({ hostname: "127.0.0.1", port }));
});

for (const over of MEDIA) {
  Deno.test(`shutdown() over ${over} finishes what is under way and closes what is idle (SPEC C26)`, async () => {
    const gate = Promise.withResolvers<void>();
    const started = Promise.withResolvers<void>();
    const app: App = async (request) => {
      if (!request.url.endsWith("/wait")) return new Response("Hello");
      started.resolve();
      await gate.promise;
      return new Response(pattern(500_000));
    };
    await serving(
      app,
      {},
      async ({ connect, server }) => {
        const [idle, busy] = [await connect(), await connect()];
        await idle.send(request({ keep: true }));
        await idle.answer();
        await busy.send(request({ keep: true, variables: { REQUEST_URI: "/wait" } }));
        await deadline(started.promise, "the app");
        const down = server.shutdown();
        await idle.end();
        idle.close();
        gate.resolve();
        const answer = await busy.answer();
        assertEquals([answer.body, answer.complete], [pattern(500_000), true]);
        await busy.end();
        busy.close();
        await deadline(down, "the server's end");
        await deadline(server.finished, "finished");
      },
      over,
    );
  });
}

Deno.test("shutdown() serves what still comes on a connection that it waits for (SPEC C26)", async () => {
  const gate = Promise.withResolvers<void>();
  const app: App = async (request) => {
    if (request.url.endsWith("/wait")) await gate.promise;
    return new Response("Hello");
  };
  await serving(app, {}, async ({ connect, server }) => {
    const client = await connect();
    await client.send(request({ id: 1, keep: true, variables: { REQUEST_URI: "/wait" } }));
    await turns();
    const down = server.shutdown();
    await client.send(request({ id: 2, keep: true }));
    assertEquals((await client.answer(2)).status, 200);
    gate.resolve();
    assertEquals((await client.answer(1)).status, 200);
    await client.end();
    client.close();
    await deadline(down, "the server's end");
  });
});

Deno.test("shutdown() closes an idle connection in both directions (SPEC C26)", async () => {
  await serving(hello, {}, async ({ connect, server }) => {
    const client = await connect();
    await client.send(request({ keep: true }));
    assertEquals((await client.answer()).status, 200);
    const down = server.shutdown();
    await client.end();
    // After a half-close this would be read.
    await turns();
    await assertRejects(() => client.send(request({ keep: true })), Deno.errors.BrokenPipe);
    await deadline(down, "the server's end");
  });
});

Deno.test("shutdown() ends a connection right behind its response: no request may meet the end (SPEC C26)", async () => {
  const gate = Promise.withResolvers<void>();
  const app: App = async () => {
    await gate.promise;
    return new Response("Hello");
  };
  await serving(app, {}, async ({ connect, server }) => {
    const client = await connect();
    await client.send(request({ keep: true }));
    await turns();
    const down = server.shutdown();
    gate.resolve();
    assertEquals((await client.answer()).status, 200);
    let ended = false;
    client.end().then(() => ended = true);
    // Microtasks only: the event loop does not turn.
    for (let i = 0; i < 100; i++) await null;
    assert(ended);
    await deadline(down, "the server's end");
  });
});

Deno.test("shutdown() closes a connection whose last request ended after its response (SPEC C26)", async () => {
  await serving(hello, {}, async ({ connect, server }) => {
    const client = await connect();
    const pairs = variables({ REQUEST_METHOD: "POST", CONTENT_LENGTH: "4" });
    await client.send(beginRequest(1, { keep: true }), params(1, pairs));
    assertEquals((await client.answer()).status, 200);
    await client.send(stdin(1, bytes("late")), stdinEnd(1));
    // Answered only once the input before it has been read.
    await client.send(request({ id: 2, keep: true }));
    assertEquals((await client.answer(2)).status, 200);
    await client.send(beginRequest(3, { keep: true }), params(3, variables()));
    assertEquals((await client.answer(3)).status, 200);
    await client.send(stdinEnd(3));
    await turns();
    const down = server.shutdown();
    await client.end();
    // After a half-close this would be read.
    await turns();
    await assertRejects(() => client.send(request({ keep: true })), Deno.errors.BrokenPipe);
    await deadline(down, "the server's end");
  });
});

for (const over of MEDIA) {
  Deno.test(`shutdown() serves a request whose first bytes have come over ${over} (SPEC C26)`, async () => {
    await serving(
      hello,
      {},
      async ({ connect, server }) => {
        for (const cut of [1, 8, 16, 30]) {
          const client = await connect();
          await client.send(request({ keep: true }));
          assertEquals((await client.answer()).status, 200);
          const next = request({ keep: true });
          await client.send(next.subarray(0, cut));
          if (cut === 30) server.shutdown();
          await turns();
          await client.send(next.subarray(cut));
          assertEquals((await client.answer()).status, 200, `cut at ${cut}`);
          if (cut === 30) await client.end();
        }
      },
      over,
    );
  });
}

Deno.test("shutdown() calls off what takes longer than shutdownTimeout (SPEC C26)", async () => {
  const started = Promise.withResolvers<AbortSignal>();
  await serving(
    (request) => {
      started.resolve(request.signal);
      return new Promise(() => {});
    },
    { shutdownTimeout: 1 },
    async ({ connect, server }) => {
      const client = await connect();
      await client.send(request());
      const signal = await deadline(started.promise, "the app");
      await deadline(server.shutdown(), "the server's end");
      assert(signal.aborted);
      await client.end();
      assertEquals(client.records, []);
    },
  );
});

Deno.test("shutdown() waits without end where shutdownTimeout is Infinity (SPEC C26)", async () => {
  const gate = Promise.withResolvers<void>();
  const app: App = async () => {
    await gate.promise;
    return new Response("Hello");
  };
  await serving(app, { shutdownTimeout: Infinity }, async ({ connect, server }) => {
    const client = await connect();
    await client.send(request());
    await turns();
    const down = server.shutdown();
    await turns();
    gate.resolve();
    assertEquals((await client.answer()).status, 200);
    client.close();
    await deadline(down, "the server's end");
  });
});

Deno.test("options.signal stops at once", async () => {
  const stop = new AbortController();
  const started = Promise.withResolvers<AbortSignal>();
  await serving(
    (request) => {
      started.resolve(request.signal);
      return new Promise(() => {});
    },
    { signal: stop.signal },
    async ({ connect, server, listener }) => {
      const client = await connect();
      await client.send(request());
      const signal = await deadline(started.promise, "the app");
      stop.abort(new Error("enough"));
      await deadline(server.finished, "finished");
      assert(signal.aborted);
      assert((listener as FakeListener).closed);
      await client.end();
    },
  );
  const server = serveFastCGI(hello, new FakeListener(), { signal: AbortSignal.abort() });
  await deadline(server.finished, "finished");
});

Deno.test("a listener that is closed from outside ends the server", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const server = serveFastCGI(hello, listener);
  listener.close();
  await deadline(server.finished, "finished");
});

Deno.test("an accept that fails is logged, and the next one served", async () => {
  const logged: string[] = [];
  const inner = new FakeListener();
  const iterator = inner[Symbol.asyncIterator]();
  let failed = false;
  const listener: Listener = {
    addr: inner.addr,
    close: () => inner.close(),
    [Symbol.asyncIterator]: () => ({
      next() {
        if (failed) return iterator.next();
        failed = true;
        return Promise.reject(new Error("Too many open files"));
      },
    }),
  };
  const server = serveFastCGI(hello, listener, { log: (message) => logged.push(message) });
  const client = new FastCGIClient(inner.connect()[0]);
  await client.send(request());
  assertEquals((await client.answer()).status, 200);
  assertEquals(logged, ["Cannot accept a connection: Too many open files"]);
  await deadline(server.shutdown(), "the server's end");
});

Deno.test("an app object is called as a method, and so are its roles", async () => {
  class Site {
    name = "Site";
    fetch() {
      return new Response(this.name);
    }
    authorize() {
      return new Response(`no ${this.name}`, { status: 403 });
    }
    filter() {
      return new Response(`filtered ${this.name}`);
    }
  }
  assertEquals(text((await ask(new Site())).body), "Site");
  assertEquals(text((await ask(new Site(), { role: Role.authorizer })).body), "no Site");
  const filtered = await ask(new Site(), { role: Role.filter, variables: file });
  assertEquals(text(filtered.body), "filtered Site");
});

Deno.test("many small answers at once share writes", async () => {
  const listener = new FakeListener();
  const server = serveFastCGI(hello, listener, { log: () => {} });
  const [ours, theirs] = listener.connect();
  const client = new FastCGIClient(ours);
  const ids = Array.from({ length: 50 }, (_, i) => i + 1);
  await client.send(...ids.map((id) => request({ id, keep: true })));
  for (const id of ids) assertEquals(text((await client.answer(id)).body), "Hello");
  assertLess(theirs.written.length, 10);
  client.close();
  await deadline(server.shutdown(), "the server's end");
});

Deno.test("what is sent is what concat() of the parts is, whatever the pipe takes at once", async () => {
  const body = pattern(200_000);
  for (const capacity of [1000, 8191, 65536]) {
    await serving(echo, {}, async ({ connect }) => {
      const client = await connect(capacity);
      const sending = client.send(request({ variables: post, body: concat([body]) }));
      const answer = await client.answer();
      await sending;
      assertEquals(answer.body, body);
    });
  }
});

for (const over of ["TCP", "Unix"] as const) {
  Deno.test(`serveFastCGI() sees over ${over} that a web server goes away after its half-close (SPEC C22)`, async () => {
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
        const signal = await deadline(started.promise, "the app");
        const aborted = new Promise((resolve) => signal.addEventListener("abort", resolve));
        assertFalse(signal.aborted);
        client.close();
        await deadline(aborted, "the signal");
      },
      over,
    );
  });
}

Deno.test("serveFastCGI() sends nothing over a Unix socket to see whether the web server is there (SPEC C22)", async () => {
  const gate = Promise.withResolvers<void>();
  await serving(
    async () => {
      await gate.promise;
      return new Response("Hello");
    },
    {},
    async ({ connect }) => {
      const client = await connect();
      await client.send(request());
      await client.conn.closeWrite!();
      await turns();
      gate.resolve();
      await client.end();
      assertEquals(types(client.records).includes(RecordType.stderr), false);
    },
    "Unix",
  );
});

Deno.test("serveFastCGI() takes no variables after their end", async () => {
  await serving((request) => new Response(request.headers.get("x-a")), {}, async ({ connect }) => {
    const client = await connect();
    await client.send(beginRequest(1), params(1, variables({ HTTP_X_A: "first" })));
    await client.send(params(1, variables({ HTTP_X_A: "second" })), stdinEnd(1));
    assertEquals(text((await client.answer()).body), "first");
  });
});

Deno.test("serveFastCGI() answers any requests, interleaved and cut in any way", async () => {
  const one = fc.record({
    method: fc.constantFrom("POST", "PUT", "DELETE"),
    body: fc.uint8Array({ maxLength: 400 }),
    header: fc.stringMatching(/^[!-~]{0,200}$/),
    records: fc.integer({ min: 1, max: 90 }),
    padding: fc.integer({ min: 0, max: 255 }),
  });
  const sizes = fc.array(fc.integer({ min: 1, max: 700 }), { minLength: 1, maxLength: 20 });
  const turn = fc.array(fc.nat({ max: 1000 }), { minLength: 1, maxLength: 30 });
  await serving(
    async (request) => {
      const { headers, method } = request;
      return new Response(await request.bytes(), {
        headers: { "x-seen": `${method} ${headers.get("x-a")} ${headers.get("content-length")}` },
      });
    },
    {},
    async ({ connect }) => {
      const client = await connect();
      await fc.assert(
        fc.asyncProperty(
          fc.array(one, { minLength: 1, maxLength: 6 }),
          sizes,
          turn,
          async (requests, sizes, turn) => {
            const queues = requests.map(({ method, body, header, records, padding }, i) => {
              const id = i + 1;
              const pairs = nameValuePairs(variables({
                REQUEST_METHOD: method,
                HTTP_X_A: header,
                CONTENT_LENGTH: String(body.length),
              }));
              const pieces = (type: number, whole: Uint8Array) =>
                cut(whole, Array.from({ length: whole.length }, (_, at) => at * records))
                  .filter((part) => part.length > 0)
                  .concat(new Uint8Array())
                  .map((part) => record(type, id, part, padding));
              return [
                beginRequest(id, { keep: true }),
                ...pieces(RecordType.params, pairs),
                ...pieces(RecordType.stdin, body),
              ];
            });
            const merged: Uint8Array[] = [];
            for (let at = 0; queues.some((queue) => queue.length > 0); at++) {
              const open = queues.filter((queue) => queue.length > 0);
              merged.push(open[turn[at % turn.length] % open.length].shift()!);
            }
            const whole = concat(merged);
            const sending = (async () => {
              for (let at = 0, i = 0; at < whole.length; i++) {
                const size = sizes[i % sizes.length];
                await client.send(whole.subarray(at, at += size));
              }
            })();
            for (const [i, { method, body, header }] of requests.entries()) {
              const answer = await client.answer(i + 1);
              assertEquals(answer.body, body as Uint8Array<ArrayBuffer>);
              assertEquals(
                answer.headers.get("x-seen"),
                `${method} ${header} ${body.length}`.trim(),
              );
            }
            await sending;
            assertEquals(client.records, []);
          },
        ),
        { numRuns: 100 },
      );
    },
  );
});

Deno.test("serveFastCGI() stands whatever is sent to it", async () => {
  const id = fc.integer({ min: 0, max: 3 });
  const content = fc.oneof(
    fc.uint8Array({ maxLength: 40 }),
    fc.constantFrom(
      bytes("\0\x01\x01\0\0\0\0\0"),
      bytes("\0\x03\x01\0\0\0\0\0"),
      nameValuePairs(variables(post)),
      new Uint8Array(),
    ),
  );
  const type = fc.oneof(fc.integer({ min: 1, max: 11 }), fc.integer({ min: 0, max: 255 }));
  const part = fc.oneof(
    {
      weight: 8,
      arbitrary: fc.tuple(type, id, content).map(([type, id, content]) =>
        record(type, id, content)
      ),
    },
    { weight: 1, arbitrary: fc.uint8Array({ maxLength: 30 }) },
    {
      weight: 2,
      arbitrary: fc.integer({ min: 1, max: 3 }).map((id) => request({ id, keep: true })),
    },
  );
  const app = {
    fetch: echo as (request: Request) => Promise<Response>,
    filter: (_request: Request, info: FilterInfo) => new Response(info.data),
  };
  await serving(app, {}, async ({ connect, logged }) => {
    await fc.assert(
      fc.asyncProperty(fc.array(part, { maxLength: 12 }), fc.boolean(), async (parts, half) => {
        const client = await connect();
        await client.send(...parts).catch(() => {});
        if (half) await client.conn.closeWrite!();
        else client.close();
        if (half) await client.end().finally(() => client.close());
        const other = await connect();
        await other.send(request());
        assertEquals((await other.answer()).status, 200);
        other.close();
      }),
      { numRuns: 200 },
    );
    for (const message of logged) {
      assert(message.startsWith("Cannot ") || message.startsWith("Refused "), message);
    }
  });
});

Deno.test("unref() lets the process end while the server lives", async () => {
  const module = new URL("../fastcgi.ts", import.meta.url).href;
  const code = `
    import { serveFastCGI } from "${module}";
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    serveFastCGI(() => new Response(), listener).unref();
    console.log("unreferenced");`;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--no-config", "--allow-net=127.0.0.1", "-"],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(bytes(code));
  await writer.close();
  const output = await deadline(child.output(), "the process's end");
  assertEquals([output.code, text(output.stdout), text(output.stderr)], [0, "unreferenced\n", ""]);
});
