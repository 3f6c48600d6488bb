import {
  assert,
  assertEquals,
  assertFalse,
  assertLess,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import type { App } from "../../bridge/app.ts";
import { type FastCGIOptions, serveFastCGI } from "../../fastcgi.ts";
import { ProtocolStatus, RecordType } from "../../wire/fastcgi.ts";
import { bytes, pattern, text } from "../testing/bytes.ts";
import { JumpingClock } from "../testing/clock.ts";
import { deadline } from "../testing/deadline.ts";
import { FakeListener } from "../testing/duplex.ts";
import { turns } from "../testing/serving.ts";
import { FastCGIClient, request, serveOne, variables } from "../testing/fastcgi_client.ts";
import {
  abortRequest,
  beginRequest,
  getValues,
  nameValuePairs,
  params,
  stdin,
  stdinEnd,
  stream,
} from "../testing/fastcgi_records.ts";
import { echo, hello, post, serving } from "../testing/fastcgi_serving.ts";

Deno.test("serveFastCGI() stops reading while the app does not read (rules C14, F8)", async () => {
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
      // 256 KiB that the connection buffers, 64 KiB in the pipe, and two reads.
      assertLess(sent * 60000, 600_000);
      gate.resolve();
      await deadline(sending, "the body's end");
      assertEquals(text((await client.response()).body), "3000000");
    },
  );
});

Deno.test("serveFastCGI() pulls no more from the app than the web server reads (rule B16)", async () => {
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
    await deadline(cancelled.promise, "the body to be cancelled");
  });
});

Deno.test("serveFastCGI() buffers no more than maxBufferedBody for a web server that does not read (rule C14)", async () => {
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
      // The server reads on up to the limit once it has detected that the web server reads nothing.
      const buffered = Promise.withResolvers<void>();
      const watch = setInterval(() => sent * 60000 > 700_000 && buffered.resolve(), 10);
      await deadline(buffered.promise, "the server to read on").finally(() => clearInterval(watch));
      await turns(100);
      assertLess(sent * 60000, 1_700_000);
      const response = await client.response();
      await deadline(sending, "the body's end");
      assertEquals(response.body.length, 6_000_000);
    },
  );
});

Deno.test("maxVariableBytes: a response at the limit, 431 above it (rule F8)", async () => {
  const pairs = variables({ HTTP_X_LONG: "x".repeat(1000) });
  const { length } = nameValuePairs(pairs);
  const at = await serveOne(hello, { variables: pairs }, { maxVariableBytes: length });
  assertEquals(at.status, 200);
  const past = await serveOne(hello, { variables: pairs }, { maxVariableBytes: length - 1 });
  assertEquals([past.status, past.complete], [431, true]);
  assertStringIncludes(
    past.stderr,
    `its variables must have at most ${length - 1} bytes: they have ${length}`,
  );
  const long = (length: number) => ({ variables: { HTTP_X_LONG: "x".repeat(length) } });
  assertEquals((await serveOne(hello, long(261_000))).status, 200);
  assertEquals((await serveOne(hello, long(263_000))).status, 431);
});

Deno.test("maxVariables: a response at the limit, 431 above it (rule F8)", async () => {
  const others = Array.from({ length: 7 }, (_, i): [string, string] => [`X${i}`, ""]);
  assertEquals((await serveOne(hello, { variables: others }, { maxVariables: 10 })).status, 200);
  const past = await serveOne(hello, { variables: others }, { maxVariables: 9 });
  assertEquals(past.status, 431);
  assertStringIncludes(past.stderr, "there must be at most 9: there are more");
  const many = (length: number) => ({
    variables: Array.from({ length }, (_, i): [string, string] => [`X${i}`, ""]),
  });
  assertEquals((await serveOne(hello, many(1997))).status, 200);
  assertEquals((await serveOne(hello, many(1998))).status, 431);
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
  assertEquals((await serveOne(hello, { variables: many }, options)).status, 431);
  assertEquals((await serveOne(hello, {}, options)).status, 200);
  const remote = new FakeListener();
  remote.addr = { transport: "tcp", hostname: "192.0.2.1", port: 9000 };
  assertThrows(() => serveFastCGI(hello, remote, options), Error, "must be on loopback");
});

Deno.test("maxBodyBytes: a response at the limit, 413 above it, with and without CONTENT_LENGTH (rule F8)", async () => {
  for (const declared of [true, false]) {
    const parts = (length: number) => ({
      variables: { ...post, CONTENT_LENGTH: declared ? String(length) : "" },
      body: pattern(length),
    });
    const at = await serveOne(echo, parts(1000), { maxBodyBytes: 1000 });
    assertEquals([at.status, at.body.length], [200, 1000]);
    let called = false;
    const past = await serveOne(
      (request, info) => {
        called = true;
        return (echo as (...args: unknown[]) => Response)(request, info);
      },
      parts(1001),
      { maxBodyBytes: 1000 },
    );
    assertEquals([past.status, past.complete], [413, true]);
    assertEquals(called, !declared);
    assertStringIncludes(past.stderr, "it must have at most 1000 bytes: it has ");
  }
});

Deno.test("maxBufferedBody: above it a request fails, and others on the connection do not (rule C9)", async () => {
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
      assertEquals((await client.response(1)).body, pattern(500_000));
      const past = await client.response(2);
      assertEquals([past.status, past.complete], [413, true]);
      assertStringIncludes(
        past.stderr,
        "Cannot buffer request body as it must have at most 500000 unread bytes",
      );
      await client.send(request({ id: 3, keep: true }));
      assertEquals((await client.response(3)).status, 200);
    },
  );
});

Deno.test("maxRequestsPerConnection: responses at the limit, 503 and FCGI_OVERLOADED above it (rules C19, F8)", async () => {
  const gate = Promise.withResolvers<void>();
  await serving(
    async () => (await gate.promise, new Response("Hello")),
    { maxRequestsPerConnection: 3 },
    async ({ connect }) => {
      const client = await connect();
      for (const id of [1, 2, 3, 4]) await client.send(request({ id, keep: true }));
      const past = await client.response(4);
      assertEquals([past.status, past.complete], [503, true]);
      assertEquals(past.end, { appStatus: 0, protocolStatus: ProtocolStatus.overloaded });
      gate.resolve();
      for (const id of [1, 2, 3]) assertEquals((await client.response(id)).status, 200);
      await client.send(request({ id: 5, keep: true }));
      assertEquals((await client.response(5)).status, 200);
    },
  );
});

Deno.test("maxRequests: responses at the limit, 503 above it, over all connections (rules C19, F8)", async () => {
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
      const past = await third.response();
      assertEquals([past.status, past.end?.protocolStatus], [503, ProtocolStatus.overloaded]);
      // Each way for a request to end makes room: a response, an abort, a connection that closes.
      await clients[0].send(abortRequest(1));
      await clients[0].response();
      gate.resolve();
      await clients[1].response();
      for (let i = 0; i < 3; i++) {
        await clients[0].send(beginRequest(1, { keep: true }), abortRequest(1));
        await clients[0].response();
        const closing = await connect();
        await closing.send(beginRequest(1));
        await turns(3);
        closing.close();
        await turns(3);
      }
      for (const id of [1, 2]) await third.send(request({ id, keep: true }));
      for (const id of [1, 2]) assertEquals((await third.response(id)).status, 200);
    },
  );
});

for (
  const [way, leave] of Object.entries({
    "disconnects": (client: FastCGIClient) => client.close(),
    "sends FCGI_ABORT_REQUEST": (client: FastCGIClient) => client.send(abortRequest(1)),
  })
) {
  Deno.test(`maxRequests counts a handler that runs on when the web server ${way} (rule F8)`, async () => {
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
        await client.send(request({ keep: true }));
        await turns(3);
        await leave(client);
        await turns(3);
      }
      assertEquals(running, 2);
      const refused = await connect();
      await refused.send(request());
      assertEquals((await refused.response()).status, 503);
      gate.resolve();
      await turns();
      for (const id of [1, 2]) {
        const client = await connect();
        await client.send(request({ id }));
        assertEquals((await client.response(id)).status, 200);
      }
    });
  });
}

Deno.test("maxConnections: responses at the limit, 503 above it (rules C19, F8)", async () => {
  await serving(hello, { maxConnections: 2 }, async ({ connect }) => {
    const clients = [await connect(), await connect()];
    for (const client of clients) {
      await client.send(request({ keep: true }));
      assertEquals((await client.response()).status, 200);
    }
    const third = await connect();
    await third.send(request({ variables: post, body: pattern(1000) }));
    const past = await third.response();
    assertEquals([past.status, past.end?.protocolStatus], [503, ProtocolStatus.overloaded]);
    clients[0].close();
    await turns();
    const fourth = await connect();
    await fourth.send(request());
    assertEquals((await fourth.response()).status, 200);
  });
});

Deno.test("variablesTimeout closes a connection if a request's variables do not end (rule F9)", async () => {
  await serving(hello, { variablesTimeout: 1 }, async ({ connect, logged }) => {
    const client = await connect();
    await client.send(beginRequest(1), stream(RecordType.params, 1, bytes("\x05")));
    await client.end();
    assertEquals(client.records, []);
    assertEquals(logged.length, 1);
    assertStringIncludes(logged[0], "a request's variables did not arrive within 1 ms");
  });
});

Deno.test("variablesTimeout closes a new connection on which no request comes, and no kept connection (rule F9)", async () => {
  await serving(hello, { variablesTimeout: 1 }, async ({ connect, logged }) => {
    const [silent, inquiring, kept] = [await connect(), await connect(), await connect()];
    await inquiring.send(getValues("FCGI_MAX_CONNS"));
    await kept.send(request({ keep: true }));
    assertEquals((await kept.response()).status, 200);
    await silent.end();
    await inquiring.end();
    assertFalse(kept.ended);
    await kept.send(request({ keep: true, id: 2 }));
    assertEquals((await kept.response(2)).status, 200);
    assertEquals(logged, []);
  });
});

Deno.test("bodyTimeout rejects the read, and the response is 408 unless the app returns another (rule F8)", async () => {
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
      const response = await client.response(1);
      assertEquals([response.status, response.complete], [408, true]);
      assertStringIncludes(response.stderr, "no bytes arrived for 1 ms");
      assertEquals(text((await client.response(2)).body), "own: 408");
    },
  );
});

Deno.test("bodyTimeout does not count while the app does not read", async () => {
  const gate = Promise.withResolvers<void>();
  await serving(
    async (request) => (await gate.promise, new Response(await request.text())),
    { bodyTimeout: 1, variablesTimeout: 1, idleTimeout: 1 },
    async ({ connect }) => {
      const [client, other] = [await connect(), await connect()];
      await client.send(beginRequest(1), params(1, variables(post)), stdin(1, bytes("body")));
      // A closed idle connection shows that the server has checked its deadlines.
      await other.end();
      await client.send(stdinEnd(1));
      gate.resolve();
      assertEquals(text((await client.response()).body), "body");
    },
  );
});

Deno.test("idleTimeout closes a connection without a request, and none with a request (rules C30, F9)", async () => {
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
      assertEquals((await busy.response()).status, 200);
      await busy.end();
      assertEquals(logged, []);
    },
  );
});

Deno.test("writeTimeout closes a connection from which the web server reads nothing (rule F8)", async () => {
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
  await serving(app, { writeTimeout: 1 }, async ({ connect, logged }) => {
    const client = await connect(65536);
    await client.send(request());
    await deadline(cancelled.promise, "the body to be cancelled");
    assert(signal!.aborted);
    await client.end();
    assertFalse(client.records.some(({ type }) => type === RecordType.endRequest));
    assertEquals(logged, [
      "Closed a connection as its peer must read some of the response within 1 ms: it read nothing",
    ]);
  });
});

Deno.test("serveFastCGI() closes a connection with ten thousand unfinished requests (rules C9, F8)", async () => {
  let called = 0;
  await serving(() => (called++, new Response("Hello")), {}, async ({ connect, logged }) => {
    const client = await connect();
    const begins = Array.from({ length: 10_000 }, (_, i) => beginRequest(i + 1, { keep: true }));
    await client.send(...begins).catch(() => {});
    await client.end();
    assertEquals([called, client.records.length, logged.length], [0, 0, 1]);
    assertStringIncludes(
      logged[0],
      "Cannot begin request as a connection must have at most 64: 192 are unfinished",
    );
    // They count no longer.
    const other = await connect();
    for (let id = 1; id <= 64; id++) await other.send(request({ id, keep: true }));
    for (let id = 1; id <= 64; id++) assertEquals((await other.response(id)).status, 200);
  });
});

Deno.test("webServerAddresses refuses all other peers, Unix peers too (rule C25)", async () => {
  const cases: [Deno.Addr, boolean][] = [
    [{ transport: "tcp", hostname: "192.0.2.1", port: 1 }, true],
    [{ transport: "tcp", hostname: "::ffff:192.0.2.1", port: 1 }, true],
    [{ transport: "tcp", hostname: "2001:db8::1", port: 1 }, true],
    [{ transport: "tcp", hostname: "10.1.2.3", port: 1 }, true],
    [{ transport: "tcp", hostname: "192.0.2.10", port: 1 }, false],
    [{ transport: "tcp", hostname: "11.1.2.3", port: 1 }, false],
    [{ transport: "tcp", hostname: "127.0.0.1", port: 1 }, false],
    [{ transport: "unix", path: "/run/socket" }, false],
  ];
  for (const [addr, allowed] of cases) {
    const listener = new FakeListener();
    const logged: string[] = [];
    const server = serveFastCGI(hello, listener, {
      webServerAddresses: ["192.0.2.1", "2001:db8::1", "10.0.0.0/8"],
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

Deno.test("FCGI_WEB_SERVER_ADDRS is the default of webServerAddresses (rule C25)", async () => {
  const variable = "FCGI_WEB_SERVER_ADDRS";
  const { get } = Deno.env;
  // The environment itself belongs to all tests that run in parallel.
  const set = (value: string) =>
    Deno.env.get = (name) => name === variable ? value : get.call(Deno.env, name);
  try {
    set("127.0.0.0/8, 192.0.2.7");
    assertEquals((await serveOne(hello)).status, 200);
    set("192.0.2.7");
    await serving(hello, {}, async ({ connect, logged }) => {
      const client = await connect();
      await client.send(request()).catch(() => {});
      await client.end();
      assertEquals([client.records.length, logged.length], [0, 1]);
    });
    for (const bad of ["", "example.org", "127.0.0.1,", "1.2.3", "*", "10.0.0.1/8"]) {
      set(bad);
      const error = assertThrows(() => serveFastCGI(hello, new FakeListener()), Error);
      assertEquals(
        error.message,
        `Cannot serve as ${variable} must be a comma-separated list of addresses: current value is ${
          JSON.stringify(bad)
        }`,
      );
    }
  } finally {
    Deno.env.get = get;
  }
});

Deno.test("serveFastCGI() refuses a listener that other machines can reach, unless an option allows it (rule F4)", async () => {
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

Deno.test("no limit is exceeded while the machine is suspended", async () => {
  await serving(echo, {}, async ({ connect }) => {
    const client = await connect();
    const late = await connect();
    await client.send(beginRequest(1), params(1, variables(post)), stdin(1, bytes("one, ")));
    await late.send(beginRequest(1));
    using clock = new JumpingClock();
    await deadline(clock.read(), "a check of the limits");
    clock.jump();
    await deadline(clock.read(), "the next check");
    await turns();
    await client.send(stdin(1, bytes("two")), stdinEnd(1));
    await late.send(params(1, variables(post)), stdinEnd(1));
    const { status, body } = await client.response();
    assertEquals([status, text(body)], [200, "one, two"]);
    assertEquals((await late.response()).status, 200);
  });
});
