import {
  assert,
  assertEquals,
  assertFalse,
  assertLess,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import fc from "fast-check";
import type { App, FilterInfo } from "../../bridge/app.ts";
import { serveFastCGI } from "../../fastcgi.ts";
import { ProtocolStatus, RecordType } from "../../wire/fastcgi.ts";
import { bytes, concat, cut, pattern, split, text } from "../testing/bytes.ts";
import { deadline } from "../testing/deadline.ts";
import { FakeListener } from "../testing/duplex.ts";
import { MEDIA, turns } from "../testing/serving.ts";
import { FastCGIClient, request, variables } from "../testing/fastcgi_client.ts";
import {
  abortRequest,
  beginRequest,
  getValues,
  nameValuePairs,
  params,
  type Received,
  record,
  stdin,
  stdinEnd,
  stream,
  streamEnd,
} from "../testing/fastcgi_records.ts";
import { echo, hello, post, serving, types } from "../testing/fastcgi_serving.ts";

for (const over of MEDIA) {
  Deno.test(`serveFastCGI() responds over ${over}, and closes the connection unless FCGI_KEEP_CONN is set (rules C8, C16)`, async () => {
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
        const response = await client.response();
        assertEquals([response.status, text(response.body), response.headers.get("x-url")], [
          200,
          "body",
          "http://example.org/a",
        ]);
        assertEquals(response.end, {
          appStatus: 0,
          protocolStatus: ProtocolStatus.requestComplete,
        });
        assertEquals([response.complete, response.stderr], [true, ""]);
      },
      over,
    );
  });

  Deno.test(`serveFastCGI() keeps a connection over ${over} (rule C8)`, async () => {
    await serving(
      echo,
      {},
      async ({ connect }) => {
        const client = await connect();
        for (const body of ["one", "", "three"]) {
          await client.send(request({ keep: true, variables: post, body: bytes(body) }));
          assertEquals(text((await client.response()).body), body);
        }
        assertFalse(client.ended);
        await client.send(request({ keep: false }));
        await client.end();
        assertEquals((await client.response()).status, 200);
      },
      over,
    );
  });
}

Deno.test("serveFastCGI() reads a request cut at any byte (rule C2)", async () => {
  const whole = request({ keep: true, variables: { ...post, HTTP_X_A: "a" }, body: bytes("body") });
  await serving(echo, {}, async ({ connect }) => {
    const client = await connect();
    for (let at = 0; at < whole.length; at++) {
      for (const part of cut(whole, [at])) await client.send(part);
      assertEquals(text((await client.response()).body), "body", `cut at ${at}`);
    }
    for (const byte of split(whole)) await client.send(byte);
    assertEquals(text((await client.response()).body), "body");
    await client.send(...[1, 2, 3].map((id) => request({ id, keep: true })));
    for (const id of [1, 2, 3]) assertEquals((await client.response(id)).status, 200);
  });
});

Deno.test("serveFastCGI() reads variables and body in records of any size and padding (rules C1, C10)", async () => {
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
      const response = await client.response();
      assertEquals([response.status, text(response.body)], [200, text(body)], `records of ${size}`);
    }
  });
});

Deno.test("serveFastCGI() responds with the 16-bit id of the request (rule C20)", async () => {
  await serving(hello, {}, async ({ connect }) => {
    const client = await connect();
    for (const id of [1, 2, 255, 256, 0x1234, 65535]) {
      await client.send(request({ id, keep: true }));
      const response = await client.response(id);
      assertEquals([response.status, text(response.body)], [200, "Hello"]);
      assertEquals(client.records, []);
    }
  });
});

Deno.test("serveFastCGI() calls the app when the variables end, before the body has arrived (rule C12)", async () => {
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
    assertEquals(text((await client.response()).body), "onetwothree");
  });
});

Deno.test("serveFastCGI() serves requests interleaved on one connection (rule C9)", async () => {
  await serving(echo, {}, async ({ connect }) => {
    const client = await connect();
    const ids = Array.from({ length: 10 }, (_, i) => 2 * i + 1);
    const bodies = ids.map((id) => pattern(1000 + id));
    // The records of all requests in turn.
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
      const response = await client.response(id);
      assertEquals(response.body, bodies[i]);
      assertEquals(response.headers.get("x-url"), `http://example.org/${id}`);
    }
    assertEquals(client.records, []);
  });
});

Deno.test("serveFastCGI() separates large bodies that arrive in the same reads (rule C9)", async () => {
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
        const { body } = await client.response(id);
        assertEquals(body.length, bodies[i].length);
        assertEquals(body.findIndex((byte, at) => byte !== bodies[i][at]), -1);
      }
    });
  }
});

Deno.test("serveFastCGI() never delays a request because of another (rule C9)", async () => {
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
      // More than a connection buffers if it has one request.
      const body = pattern(2_000_000);
      await deadline(client.send(stdin(1, body), stdinEnd(1)), "the slow request's body");
      await client.send(stdin(2, bytes("quick")), stdinEnd(2));
      assertEquals(text((await client.response(2)).body), "quick");
      await client.send(request({ id: 3, keep: true }));
      assertEquals((await client.response(3)).status, 200);
      gate.resolve();
      assertEquals((await client.response(1)).body, body);
    },
  );
});

Deno.test("serveFastCGI() returns its capacity, before the first request and at any time (rule C5)", async () => {
  const gate = Promise.withResolvers<void>();
  await serving(
    async () => (await gate.promise, new Response("Hello")),
    { maxConnections: 7, maxRequests: 300 },
    async ({ connect }) => {
      const client = await connect();
      const query = async (...names: string[]) => {
        await client.send(getValues(...names));
        const { type, id, content } = (await client.next("the values"))!;
        assertEquals([type, id], [RecordType.getValuesResult, 0]);
        return text(content);
      };
      const all = await query("FCGI_MAX_CONNS", "FCGI_MAX_REQS", "FCGI_MPXS_CONNS");
      assertEquals(
        all,
        "\x0e\x01FCGI_MAX_CONNS7\x0d\x03FCGI_MAX_REQS300\x0f\x01FCGI_MPXS_CONNS1",
      );
      assertEquals(
        await query("FCGI_MPXS_CONNS", "UNKNOWN", "__proto__"),
        "\x0f\x01FCGI_MPXS_CONNS1",
      );
      assertEquals(await query(), "");
      await client.send(beginRequest(1, { keep: true }));
      assertEquals(await query("FCGI_MAX_CONNS"), "\x0e\x01FCGI_MAX_CONNS7");
      await client.send(params(1, variables()), stdinEnd(1));
      assertEquals(await query("FCGI_MAX_CONNS"), "\x0e\x01FCGI_MAX_CONNS7");
      gate.resolve();
      assertEquals(text((await client.response()).body), "Hello");
    },
  );
});

Deno.test("serveFastCGI() returns a capacity without a limit in digits (rule C5)", async () => {
  const options = { maxConnections: Infinity, maxRequests: Infinity };
  await serving(() => new Response("Hello"), options, async ({ connect }) => {
    const client = await connect();
    await client.send(getValues("FCGI_MAX_CONNS", "FCGI_MAX_REQS"));
    assertEquals(
      text((await client.next("the values"))!.content),
      "\x0e\x0aFCGI_MAX_CONNS2147483647\x0d\x0aFCGI_MAX_REQS2147483647",
    );
  });
});

Deno.test("serveFastCGI() responds to unknown management types, and sends no management record by itself (rule C3)", async () => {
  await serving(hello, {}, async ({ connect }) => {
    const client = await connect();
    for (const type of [10, 11, 12, 200, 255]) {
      await client.send(record(type, 0, bytes("what?"), 3));
      const response = (await client.next("the response"))!;
      assertEquals(response, {
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

Deno.test("serveFastCGI() ignores unknown types and records without a request (rules C4, C13)", async () => {
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
      // Types that only an application sends.
      record(RecordType.stdout, 1, bytes("x")),
      record(RecordType.endRequest, 1, new Uint8Array(8)),
      record(RecordType.data, 1, bytes("x")),
      stdin(1, bytes("body")),
      stdin(2, bytes("other")),
      stdinEnd(1),
      stdinEnd(1),
    );
    assertEquals(text((await client.response()).body), "body");
    await client.send(request({ id: 7, keep: true }));
    assertEquals((await client.response(7)).status, 200);
  });
});

for (const method of ["GET", "POST"]) {
  Deno.test(`serveFastCGI() responds with 400 to a ${method} request of HTTP, and logs what to change`, async () => {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const logged: string[] = [];
    const log = (message: string) => logged.push(message);
    await using _server = serveFastCGI(() => new Response(), listener, { log });
    const url = `http://127.0.0.1:${listener.addr.port}/`;
    const response = await fetch(url, { method, body: method === "POST" ? "body" : undefined });
    assertEquals(response.status, 400);
    assertStringIncludes(await response.text(), "this address speaks FastCGI, not HTTP");
    assertEquals(logged, [
      "Cannot decode FastCGI record as version must be 1: current value is " +
      `${method.charCodeAt(0)}. An HTTP request came: use --protocol http, ` +
      "or fastcgi_pass instead of proxy_pass",
    ]);
  });
}

const PROTOCOL_ERRORS: Record<string, [Uint8Array[], string]> = {
  "another version (rule C1)": [
    [bytes("\x02\x01\0\x01\0\0\0\0")],
    "Cannot decode FastCGI record as version must be 1: current value is 2",
  ],
  "an application record of id 0 (rule C3)": [
    [stdin(0, bytes("x"))],
    "Cannot accept FastCGI record as its request id must not be 0: its type is 5",
  ],
  "a request of id 0 (rule C3)": [
    [beginRequest(0)],
    "Cannot accept FastCGI record as its request id must not be 0: its type is 1",
  ],
  "a short FCGI_BEGIN_REQUEST (rule C6)": [
    [record(RecordType.beginRequest, 1, bytes("\0\x01\0"))],
    "Cannot decode FCGI_BEGIN_REQUEST as its content must be 8 bytes: current length is 3",
  ],
  "an id in use (rule C6)": [
    [beginRequest(5), beginRequest(5)],
    "Cannot begin request as its id must not be in use: current value is 5",
  ],
  "a body before the end of the variables": [
    [beginRequest(1), stdin(1, bytes("x"))],
    "Cannot accept FCGI_STDIN before the end of FCGI_PARAMS",
  ],
  "truncated name-value pairs (rules C5, C10)": [
    [record(RecordType.getValues, 0, bytes("\x05"))],
    "Cannot decode name-value pairs as a value's length must have 1 bytes: 0 are left",
  ],
};

for (const [name, [parts, message]] of Object.entries(PROTOCOL_ERRORS)) {
  Deno.test(`serveFastCGI() closes a connection after ${name}, and logs why`, async () => {
    await serving(hello, {}, async ({ connect, logged }) => {
      const client = await connect();
      await client.send(...parts);
      await client.end();
      assertEquals(logged, [message]);
      assertEquals(client.records, []);
      const other = await connect();
      await other.send(request());
      assertEquals((await other.response()).status, 200);
    });
  });
}

Deno.test("serveFastCGI() ends an aborted request soon, and keeps the connection (rule C21)", async () => {
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
      // Before the end of the variables.
      await client.send(beginRequest(1, { keep: true }), abortRequest(1));
      assertEquals((await client.response()).end, end);
      // While the app runs.
      await client.send(request({ keep: true, variables: { REQUEST_URI: "/never" } }));
      const { signal } = await deadline(started.promise, "the app");
      assertFalse(signal.aborted);
      await client.send(abortRequest(1));
      assertEquals((await client.response()).end, end);
      assert(signal.aborted);
      // In the middle of a response.
      await client.send(request({ keep: true, variables: { REQUEST_URI: "/stream" } }));
      await client.until(({ type }) => type === RecordType.stdout, "the head");
      await client.send(abortRequest(1));
      assertEquals((await client.response()).end, end);
      await deadline(cancelled.promise, "the body to be cancelled");
      // The connection still works.
      await client.send(request({ keep: true }), abortRequest(2));
      assertEquals(text((await client.response()).body), "Hello");
      assertEquals(client.records, []);
      assertEquals(logged, []);
    },
  );
});

Deno.test("serveFastCGI() responds to a request of HAProxy that it aborts too soon (rule C21)", async () => {
  const started = Promise.withResolvers<Request>();
  await serving(
    (request) => {
      if (request.url.endsWith("/hello")) return new Response("Hello");
      started.resolve(request);
      return new Promise(() => {});
    },
    {},
    async ({ connect }) => {
      const client = await connect();
      const send = (path: string, ...rest: Uint8Array[]) => {
        const fields = { SERVER_SOFTWARE: "HAProxy 2.6.12", REQUEST_URI: path };
        return client.send(concat([request({ keep: true, variables: fields }), ...rest]));
      };
      // At once, as it does when it is reloaded.
      await send("/hello", abortRequest(1));
      const { status, body, complete } = await client.response();
      assertEquals([status, text(body), complete], [200, "Hello", true]);
      // As its client has left.
      await send("/never", abortRequest(1));
      const { signal } = await deadline(started.promise, "the app");
      assertFalse(signal.aborted);
      const end = { appStatus: 0, protocolStatus: ProtocolStatus.requestComplete };
      assertEquals((await client.response()).end, end);
      assert(signal.aborted);
      assertEquals(client.records, []);
    },
  );
});

Deno.test("serveFastCGI() sends nothing for an aborted request whose app responds late (rule C18)", async () => {
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
      assertEquals((await client.response()).status, undefined);
      // Another request with the same id does not get the late response.
      await client.send(beginRequest(1, { keep: true }));
      gate.resolve();
      await turns();
      await client.send(params(1, variables()), stdinEnd(1));
      const response = await client.response();
      assertEquals([response.status, text(response.body)], [200, "Hello"]);
      assertEquals(client.records, []);
    },
  );
});

Deno.test("serveFastCGI() responds without waiting for the body, and discards the rest of it (rule C13)", async () => {
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
      const response = await client.response();
      assertEquals([response.status, response.complete], [413, true]);
      await client.send(stdin(1, pattern(999000)), stdinEnd(1));
      await client.send(request({ keep: true }));
      assertEquals(text((await client.response()).body), "next");
    },
  );
});

/** Responds with a head and one chunk, then fails when the gate opens. */
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

Deno.test("serveFastCGI() closes the connection if the response's stream fails, without FCGI_END_REQUEST (rule B17)", async () => {
  for (const keep of [true, false]) {
    const gate = Promise.withResolvers<void>();
    await serving(breaking(gate.promise), {}, async ({ connect }) => {
      const client = await connect();
      await client.send(request({ keep }));
      await client.until(({ type }) => type === RecordType.stdout, "the head");
      gate.resolve();
      await client.end();
      assertEquals(client.records.some(({ type }) => type === RecordType.endRequest), false);
      const response = await client.response();
      assertEquals([response.status, text(response.body)], [200, "begun"]);
      assertEquals([response.complete, response.end], [false, null]);
      assertStringIncludes(response.stderr, "Error: broken\n");
    });
  }
});

Deno.test("serveFastCGI() ends a response whose stream fails with an exit status if other requests share the connection (rule B17)", async () => {
  const gate = Promise.withResolvers<void>();
  await serving(breaking(gate.promise), {}, async ({ connect }) => {
    const client = await connect();
    await client.send(request({ id: 1, keep: true }));
    const whole = variables({ ...post, REQUEST_URI: "/whole" });
    await client.send(beginRequest(2, { keep: true }));
    await client.until(({ type }) => type === RecordType.stdout, "the head");
    gate.resolve();
    const response = await client.response(1);
    assertEquals([text(response.body), response.complete], ["begun", false]);
    assertEquals(response.end, { appStatus: 1, protocolStatus: ProtocolStatus.requestComplete });
    await client.send(params(2, whole), stdinEnd(2));
    assertEquals(text((await client.response(2)).body), "whole");
    assertFalse(client.ended);
  });
});

Deno.test("serveFastCGI() writes the log to FCGI_STDERR and ends that stream (rule C17)", async () => {
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

Deno.test("info.log() behind HAProxy writes to the server's log", async () => {
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

Deno.test("serveFastCGI() ends a response of nginx that fails by a record that nginx takes for an error (rule B17)", async () => {
  const app: App = () =>
    new Response(
      new ReadableStream({
        async pull(controller) {
          await turns(1);
          controller.error(new Error("broken"));
        },
      }, { highWaterMark: 0 }),
    );
  for (const keep of [true, false]) {
    await serving(app, { logTo: "log" }, async ({ connect }) => {
      const client = await connect();
      await client.send(request({ keep, variables: { SERVER_SOFTWARE: "nginx/1.22.1" } }));
      await client.end();
      assertEquals(types(client.records), [RecordType.stdout, RecordType.abortRequest]);
    });
  }
});

/** The beginning of a request as HAProxy sends it, without its body. */
const upload = (keep: boolean, length = 4) => [
  beginRequest(1, { keep }),
  params(
    1,
    variables({ ...post, CONTENT_LENGTH: String(length), SERVER_SOFTWARE: "HAProxy 2.6.12" }),
  ),
];

for (const keep of [true, false]) {
  for (
    const [status, options, next] of [
      [200, {}, 200],
      [413, { maxBodyBytes: 3 }, 200],
      [503, { maxRequests: 0 }, 503],
    ] as const
  ) {
    Deno.test(`serveFastCGI() ends a ${status} for HAProxy once its input has ended, with ${keep ? "a kept" : "an unkept"} connection (rule C13)`, async () => {
      await serving(hello, options, async ({ connect }) => {
        const client = await connect();
        await client.send(...upload(keep));
        const isEnd = ({ type, content }: Received) =>
          type === RecordType.stdout && content.length === 0;
        await client.until(isEnd, "the end of the response");
        // The next record would be FCGI_END_REQUEST.
        let ended = false;
        const last = client.next().then((record) => (ended = true, record));
        await client.send(stdin(1, bytes("late")));
        await turns();
        assertFalse(ended);
        await client.send(stdinEnd(1));
        assertEquals((await last)?.type, RecordType.endRequest);
        assertEquals((await client.response()).status, status);
        if (!keep) return await client.end();
        await client.send(request({ keep }));
        assertEquals((await client.response()).status, next);
      });
    });
  }
}

Deno.test("an app behind HAProxy that reads its body after the response gets all that has arrived, or an error", async () => {
  const requests: Request[] = [];
  const app: App = (request) => (requests.push(request), new Response("Hello"));
  await serving(app, {}, async ({ connect }) => {
    const client = await connect();
    for (const [early, late] of [["whole", ""], ["pa", "rt."]]) {
      await client.send(...upload(true, 5), stdin(1, bytes(early)));
      const isEnd = ({ type, content }: Received) =>
        type === RecordType.stdout && content.length === 0;
      await client.until(isEnd, "the end of the response");
      await client.send(...(late ? [stdin(1, bytes(late))] : []), stdinEnd(1));
      assertEquals((await client.response()).status, 200);
    }
  });
  assertEquals(await requests[0].text(), "whole");
  await assertRejects(() => requests[1].text(), Error, "it was discarded");
});

Deno.test("serveFastCGI() closes a connection of HAProxy on which an upload stalls after its response (rule C15)", async () => {
  await serving(hello, {}, async ({ connect }) => {
    const client = await connect();
    await client.send(...upload(true));
    await client.end();
    assertEquals(types(client.records).includes(RecordType.endRequest), false);
    assertEquals((await client.response()).complete, true);
  });
});

Deno.test("info.log() after the response writes to the server's log", async () => {
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
      await client.response();
      gate.resolve();
      await turns();
      assertEquals(logged, ["afterwards"]);
      assertEquals(client.records, []);
    },
  );
});

Deno.test("serveFastCGI() responds with 400 to a truncated name-value pair (rule C10)", async () => {
  await serving(hello, {}, async ({ connect }) => {
    const client = await connect();
    await client.send(beginRequest(1, { keep: true }));
    await client.send(stream(RecordType.params, 1, bytes("\x05\x05abc")));
    await client.send(streamEnd(RecordType.params, 1), stdinEnd(1));
    assertEquals((await client.response()).status, 400);
    await client.send(request({ keep: true }));
    assertEquals((await client.response()).status, 200);
  });
});

Deno.test("many small responses at once share writes", async () => {
  const listener = new FakeListener();
  const server = serveFastCGI(hello, listener, { log: () => {} });
  const [ours, theirs] = listener.connect();
  const client = new FastCGIClient(ours);
  const ids = Array.from({ length: 50 }, (_, i) => i + 1);
  await client.send(...ids.map((id) => request({ id, keep: true })));
  for (const id of ids) assertEquals(text((await client.response(id)).body), "Hello");
  assertLess(theirs.written.length, 10);
  client.close();
  await deadline(server.shutdown(), "the server's end");
});

Deno.test("serveFastCGI() sends the same bytes whatever a single write accepts", async () => {
  const body = pattern(200_000);
  for (const capacity of [1000, 8191, 65536]) {
    await serving(echo, {}, async ({ connect }) => {
      const client = await connect(capacity);
      const sending = client.send(request({ variables: post, body: concat([body]) }));
      const response = await client.response();
      await sending;
      assertEquals(response.body, body);
    });
  }
});

Deno.test("serveFastCGI() ignores variables after their end", async () => {
  await serving((request) => new Response(request.headers.get("x-a")), {}, async ({ connect }) => {
    const client = await connect();
    await client.send(beginRequest(1), params(1, variables({ HTTP_X_A: "first" })));
    await client.send(params(1, variables({ HTTP_X_A: "second" })), stdinEnd(1));
    assertEquals(text((await client.response()).body), "first");
  });
});

Deno.test("serveFastCGI() serves any requests, interleaved and in any chunks", async () => {
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
              const response = await client.response(i + 1);
              assertEquals(response.body, body as Uint8Array<ArrayBuffer>);
              assertEquals(
                response.headers.get("x-seen"),
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

Deno.test("serveFastCGI() survives any input", async () => {
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
        assertEquals((await other.response()).status, 200);
        other.close();
      }),
      { numRuns: 200 },
    );
    for (const message of logged) {
      assert(message.startsWith("Cannot ") || message.startsWith("Refused "), message);
    }
  });
});
