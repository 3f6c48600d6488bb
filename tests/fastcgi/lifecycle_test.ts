import { assert, assertEquals, assertFalse, assertInstanceOf, assertRejects } from "@std/assert";
import type { App } from "../../bridge/app.ts";
import { type Listener, serveFastCGI } from "../../fastcgi.ts";
import { ProtocolStatus, RecordType } from "../../wire/fastcgi.ts";
import { bytes, pattern, text } from "../testing/bytes.ts";
import { deadline } from "../testing/deadline.ts";
import { FakeListener } from "../testing/duplex.ts";
import { MEDIA, turns } from "../testing/serving.ts";
import { FastCGIClient, request, variables } from "../testing/fastcgi_client.ts";
import { beginRequest, params, stdin, stdinEnd } from "../testing/fastcgi_records.ts";
import { hello, post, serving, types } from "../testing/fastcgi_serving.ts";

for (const over of MEDIA) {
  Deno.test(`serveFastCGI() responds over ${over} after a half-close, and the signal does not abort (rule C22)`, async () => {
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
          const response = await client.response();
          assertEquals([text(response.body), signal.aborted], ["body", false]);
          await client.end();
        }
      },
      over,
    );
  });

  Deno.test(`serveFastCGI() aborts the signal when the web server disconnects over ${over} (rule C22)`, async () => {
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
          // With the last record, or without it.
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
          await deadline(cancelled.promise, "the body to be cancelled");
          if (whole) assertEquals(await deadline(read.promise, "the body"), "read");
          assertEquals(logged, []);
        },
        over,
      );
    }
  });
}

Deno.test("serveFastCGI() rejects a read of the body when the web server disconnects (rule C22)", async () => {
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

Deno.test("serveFastCGI() aborts the requests of a connection that breaks the protocol", async () => {
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

Deno.test("serveFastCGI() closes a connection after some time if the web server neither sends nor closes (rule C15)", async () => {
  await serving(
    () => new Response("enough", { status: 413 }),
    { shutdownTimeout: 60_000 },
    async ({ connect, server }) => {
      const client = await connect();
      await client.send(beginRequest(1), params(1, variables({ ...post, CONTENT_LENGTH: "10" })));
      await client.end();
      assertEquals((await client.response()).status, 413);
      // After its half-close the server waits for bytes on their way, for a limited time.
      await client.send(stdin(1, bytes("some")));
      await deadline(server.shutdown(), "the connection's close", 20_000);
      await assertRejects(() => client.send(stdin(1, bytes("more"))), Deno.errors.BrokenPipe);
    },
  );
});

Deno.test("the server has the shape of Deno.HttpServer", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  let listening: Deno.Addr | undefined;
  const server = serveFastCGI(hello, listener, { onListen: (addr) => listening = addr });
  const handle: Pick<
    Deno.HttpServer,
    "addr" | "finished" | "shutdown" | "ref" | "unref" | typeof Symbol.asyncDispose
  > = server;
  assertEquals(handle.addr, listener.addr);
  assertEquals(listening, listener.addr);
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
  Deno.test(`shutdown() over ${over} finishes open requests and closes idle connections (rule C26)`, async () => {
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
        await idle.response();
        await busy.send(request({ keep: true, variables: { REQUEST_URI: "/wait" } }));
        await deadline(started.promise, "the app");
        const down = server.shutdown();
        await idle.end();
        idle.close();
        gate.resolve();
        const response = await busy.response();
        assertEquals([response.body, response.complete], [pattern(500_000), true]);
        await busy.end();
        busy.close();
        await deadline(down, "the server's end");
        await deadline(server.finished, "finished");
      },
      over,
    );
  });
}

Deno.test("shutdown() serves new requests on a connection with an open request (rule C26)", async () => {
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
    assertEquals((await client.response(2)).status, 200);
    gate.resolve();
    assertEquals((await client.response(1)).status, 200);
    await client.end();
    client.close();
    await deadline(down, "the server's end");
  });
});

Deno.test("shutdown() closes an idle connection in both directions (rule C26)", async () => {
  await serving(hello, {}, async ({ connect, server }) => {
    const client = await connect();
    await client.send(request({ keep: true }));
    assertEquals((await client.response()).status, 200);
    const down = server.shutdown();
    await client.end();
    // This would succeed if the server had only closed its writing side.
    await turns();
    await assertRejects(() => client.send(request({ keep: true })), Deno.errors.BrokenPipe);
    await deadline(down, "the server's end");
  });
});

for (const over of MEDIA) {
  Deno.test(`shutdown() serves a request whose first bytes have arrived over ${over} (rule C26)`, async () => {
    await serving(
      hello,
      {},
      async ({ connect, server }) => {
        for (const cut of [1, 8, 16, 30]) {
          const client = await connect();
          await client.send(request({ keep: true }));
          assertEquals((await client.response()).status, 200);
          const next = request({ keep: true });
          await client.send(next.subarray(0, cut));
          if (cut === 30) server.shutdown();
          await turns();
          await client.send(next.subarray(cut));
          assertEquals((await client.response()).status, 200, `cut at ${cut}`);
          if (cut === 30) await client.end();
        }
      },
      over,
    );
  });
}

Deno.test("shutdown() aborts requests that take longer than shutdownTimeout (rule C26)", async () => {
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

Deno.test("options.signal stops the server at once", async () => {
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

Deno.test("serveFastCGI() finishes when its listener is closed", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const server = serveFastCGI(hello, listener);
  listener.close();
  await deadline(server.finished, "finished");
});

Deno.test("serveFastCGI() logs a failed accept and serves the next connection", async () => {
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
  assertEquals((await client.response()).status, 200);
  assertEquals(logged, ["Cannot accept a connection: Too many open files"]);
  await deadline(server.shutdown(), "the server's end");
});

for (const over of ["TCP", "Unix"] as const) {
  Deno.test(`serveFastCGI() detects over ${over} that a web server disconnects after its half-close (rule C22)`, async () => {
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

Deno.test("serveFastCGI() sends no bytes over a Unix socket to detect whether the web server has disconnected (rule C22)", async () => {
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

Deno.test("unref() lets the process end while the server runs", async () => {
  const module = new URL("../../fastcgi.ts", import.meta.url).href;
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

Deno.test("shutdown() ends a connection right after its response, so that no request is lost in between (rule C26)", async () => {
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
    assertEquals((await client.response()).status, 200);
    let ended = false;
    client.end().then(() => ended = true);
    // Only microtasks run here, so that the event loop does not turn.
    for (let i = 0; i < 100; i++) await null;
    assert(ended);
    await deadline(down, "the server's end");
  });
});

/** Returns the records of a request as nginx sends it on a connection that it keeps. */
const fromNginx = () => request({ keep: true, variables: { SERVER_SOFTWARE: "nginx/1.22.1" } });

for (const over of MEDIA) {
  Deno.test(`shutdown() over ${over} serves what nginx sends before it closes (rule C31)`, async () => {
    await serving(
      hello,
      {},
      async ({ connect, server }) => {
        const client = await connect();
        await client.send(fromNginx());
        assertEquals((await client.response()).status, 200);
        const down = server.shutdown();
        // nginx closes an idle connection when it comes. One that has just sent a request reads on.
        for (let round = 0; round < 2; round++) {
          const record = await client.next("the record that asks for the close");
          assertEquals(record, { type: RecordType.stderr, id: 1, content: new Uint8Array() });
          client.records.pop();
          await client.send(fromNginx());
          const response = await client.response();
          assertEquals([response.status, response.complete], [200, true]);
        }
        client.close();
        await deadline(down, "the server's end");
      },
      over,
    );
  });
}

Deno.test("shutdown() asks nginx to close in the write that ends a response (rule C31)", async () => {
  const gate = Promise.withResolvers<void>();
  const started = Promise.withResolvers<void>();
  const app: App = async () => {
    started.resolve();
    await gate.promise;
    return new Response("Hello");
  };
  const listener = new FakeListener();
  const server = serveFastCGI(app, listener);
  const [ours, theirs] = listener.connect();
  const client = new FastCGIClient(ours);
  await client.send(fromNginx());
  await deadline(started.promise, "the app");
  const down = server.shutdown();
  gate.resolve();
  assertEquals((await client.response()).status, 200);
  assertEquals((await client.next())?.type, RecordType.stderr);
  assertEquals(theirs.written.length, 1);
  client.close();
  await deadline(down, "the server's end");
});

/** Returns the records of a request as HAProxy sends it. */
const fromHAProxy = (id: number) =>
  request({ id, keep: true, variables: { SERVER_SOFTWARE: "HAProxy 2.6.12" } });

Deno.test("shutdown() serves a last request of HAProxy, and ends it with FCGI_OVERLOADED (rule C31)", async () => {
  await serving(hello, {}, async ({ connect, server }) => {
    const client = await connect();
    for (const id of [1, 3]) {
      await client.send(fromHAProxy(id));
      assertEquals((await client.response(id)).end?.protocolStatus, 0);
    }
    const down = server.shutdown();
    await turns();
    await client.send(fromHAProxy(5));
    const response = await client.response(5);
    assertEquals([response.status, response.complete], [200, true]);
    assertEquals(response.end?.protocolStatus, ProtocolStatus.overloaded);
    await client.end();
    await deadline(down, "the server's end");
  });
});

Deno.test("shutdown() ends the last of several requests of HAProxy with FCGI_OVERLOADED (rule C31)", async () => {
  const gate = Promise.withResolvers<void>();
  const app: App = async () => {
    await gate.promise;
    return new Response("Hello");
  };
  await serving(app, {}, async ({ connect, server }) => {
    const client = await connect();
    await client.send(fromHAProxy(1), fromHAProxy(3));
    await turns();
    const down = server.shutdown();
    gate.resolve();
    assertEquals((await client.response(1)).end?.protocolStatus, 0);
    assertEquals((await client.response(3)).end?.protocolStatus, ProtocolStatus.overloaded);
    await client.end();
    await deadline(down, "the server's end");
  });
});

Deno.test("shutdown() closes a connection on which HAProxy sends no request (rule C31)", async () => {
  await serving(hello, { shutdownTimeout: 60_000 }, async ({ connect, server }) => {
    const client = await connect();
    await client.send(fromHAProxy(1));
    assertEquals((await client.response()).status, 200);
    const down = server.shutdown();
    await client.end();
    await deadline(down, "the server's end");
  });
});

Deno.test("shutdown() closes a connection that nginx does not close (rule C31)", async () => {
  await serving(hello, { shutdownTimeout: 60_000 }, async ({ connect, server }) => {
    const client = await connect();
    await client.send(fromNginx());
    assertEquals((await client.response()).status, 200);
    const down = server.shutdown();
    await client.end();
    await deadline(down, "the server's end");
  });
});

Deno.test("serveFastCGI() asks nginx to close a connection after idleTimeout (rule C31)", async () => {
  await serving(hello, { idleTimeout: 1 }, async ({ connect }) => {
    const client = await connect();
    await client.send(fromNginx());
    assertEquals((await client.response()).status, 200);
    const record = await client.next("the record that asks for the close");
    assertEquals(record, { type: RecordType.stderr, id: 1, content: new Uint8Array() });
    await client.send(fromNginx());
    assertEquals((await client.response()).status, 200);
  });
});

Deno.test("shutdown() closes a connection whose last request ended after its response (rule C26)", async () => {
  await serving(hello, {}, async ({ connect, server }) => {
    const client = await connect();
    const pairs = variables({ REQUEST_METHOD: "POST", CONTENT_LENGTH: "4" });
    await client.send(beginRequest(1, { keep: true }), params(1, pairs));
    assertEquals((await client.response()).status, 200);
    await client.send(stdin(1, bytes("late")), stdinEnd(1));
    // Its response shows that the server has read the input before it.
    await client.send(request({ id: 2, keep: true }));
    assertEquals((await client.response(2)).status, 200);
    await client.send(beginRequest(3, { keep: true }), params(3, variables()));
    assertEquals((await client.response(3)).status, 200);
    await client.send(stdinEnd(3));
    await turns();
    const down = server.shutdown();
    await client.end();
    // This would succeed if the server had only closed its writing side.
    await turns();
    await assertRejects(() => client.send(request({ keep: true })), Deno.errors.BrokenPipe);
    await deadline(down, "the server's end");
  });
});

Deno.test("shutdown() waits without a limit if shutdownTimeout is Infinity (rule C26)", async () => {
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
    assertEquals((await client.response()).status, 200);
    client.close();
    await deadline(down, "the server's end");
  });
});
