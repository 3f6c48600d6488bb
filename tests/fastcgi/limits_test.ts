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
import { deadline } from "../testing/deadline.ts";
import { FakeListener } from "../testing/duplex.ts";
import { turns } from "../testing/serving.ts";
import { ask, FastCGIClient, request, variables } from "../testing/fastcgi_client.ts";
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
      // The connection's 256 KiB, the pipe's 64 KiB, and two reads.
      assertLess(sent * 60000, 600_000);
      gate.resolve();
      await deadline(sending, "the body's end");
      assertEquals(text((await client.answer()).body), "3000000");
    },
  );
});

Deno.test("serveFastCGI() asks no more of the app than the web server takes (rule B16)", async () => {
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

Deno.test("serveFastCGI() holds no more than maxBufferedBody for a web server that does not read (rule C14)", async () => {
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

Deno.test("maxVariableBytes: at the limit an answer, past it 431 (rule F8)", async () => {
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

Deno.test("maxVariables: at the limit an answer, past it 431 (rule F8)", async () => {
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

Deno.test("maxBodyBytes: at the limit an answer, past it 413, declared or not (rule F8)", async () => {
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

Deno.test("maxBufferedBody: past it a request fails, and others on the connection do not (rule C9)", async () => {
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
        "Cannot buffer request body as it must have at most 500000 unread bytes",
      );
      await client.send(request({ id: 3, keep: true }));
      assertEquals((await client.answer(3)).status, 200);
    },
  );
});

Deno.test("maxRequestsPerConnection: at the limit answers, past it 503 and OVERLOADED (rules C19, F8)", async () => {
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

Deno.test("maxRequests: at the limit answers, past it 503, over all connections (rules C19, F8)", async () => {
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

Deno.test("maxConnections: at the limit answers, past it 503 (rules C19, F8)", async () => {
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

Deno.test("variablesTimeout: a request whose variables do not end is closed over (rule F9)", async () => {
  await serving(hello, { variablesTimeout: 1 }, async ({ connect, logged }) => {
    const client = await connect();
    await client.send(beginRequest(1), stream(RecordType.params, 1, bytes("\x05")));
    await client.end();
    assertEquals(client.records, []);
    assertEquals(logged.length, 1);
    assertStringIncludes(logged[0], "a request's variables must arrive within 1 ms");
  });
});

Deno.test("bodyTimeout: reading fails, and 408 is the answer unless the app has another (rule F8)", async () => {
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
      assertStringIncludes(answer.stderr, "its next bytes must arrive within 1 ms: none did");
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

Deno.test("idleTimeout: a connection without a request is closed, one with a request is not (rules C30, F9)", async () => {
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

Deno.test("writeTimeout: a web server that takes nothing is closed on (rule F8)", async () => {
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

Deno.test("ten thousand unfinished requests cost the connection (rules C9, F8)", async () => {
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

Deno.test("webServerAddresses: others are closed on, Unix peers too (rule C25)", async () => {
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

Deno.test("FCGI_WEB_SERVER_ADDRS is the list where the option is none (rule C25)", async () => {
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
        `Cannot serve as ${variable} must be a comma-separated list of addresses: current value is ${
          JSON.stringify(bad)
        }`,
      );
    }
  } finally {
    Deno.env.delete(variable);
  }
});

Deno.test("a listener that other machines can reach is refused unless that is meant (rule F4)", async () => {
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
