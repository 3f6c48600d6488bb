/** How requests, connections and servers end, over each protocol of a daemon. */
import { assert, assertEquals, assertFalse, assertInstanceOf, assertRejects } from "@std/assert";
import type { App } from "../../bridge/app.ts";
import type { Listener } from "../../fastcgi.ts";
import { bytes, pattern, text } from "../testing/bytes.ts";
import { DAEMONS, serving } from "../testing/daemons.ts";
import { deadline } from "../testing/deadline.ts";
import { FakeListener } from "../testing/duplex.ts";
import { MEDIA, turns } from "../testing/serving.ts";

const hello: App = () => new Response("Hello");
const aborted = (signal: AbortSignal) =>
  new Promise((resolve) => signal.addEventListener("abort", resolve));

/** An app that does not respond, and the signal of its request. */
function silentApp() {
  const { promise, resolve } = Promise.withResolvers<AbortSignal>();
  const app: App = (request) => (resolve(request.signal), new Promise(() => {}));
  return { app, signal: () => deadline(promise, "the app") };
}

/** An app that responds once a gate opens. */
function gatedApp(respond: (request: Request) => Response | Promise<Response>) {
  const started = Promise.withResolvers<AbortSignal>();
  const gate = Promise.withResolvers<void>();
  const app: App = async (request) => {
    started.resolve(request.signal);
    await gate.promise;
    return respond(request);
  };
  return { app, signal: () => deadline(started.promise, "the app"), open: gate.resolve };
}

for (const daemon of DAEMONS) {
  const { name } = daemon;
  for (const over of MEDIA) {
    for (const keep of daemon.keeps ? [true, false] : [false]) {
      const kept = keep ? " on a kept connection" : "";
      Deno.test(`${name}: a response over ${over} after a half-close${kept}, and the signal does not abort (rules C22, D4)`, async () => {
        const { app, signal, open } = gatedApp(async (request) =>
          new Response(await request.text())
        );
        await serving(daemon, app, {}, async ({ connect }) => {
          const client = await connect();
          await client.send(daemon.request("body", {}, keep));
          await client.conn.closeWrite!();
          const { aborted } = await signal();
          await turns();
          open();
          const response = await client.response();
          assertEquals([text(response.body), aborted], ["body", false]);
          await client.end();
        }, over);
      });
    }

    for (const whole of [true, false]) {
      Deno.test(`${name}: the signal aborts when the web server disconnects over ${over} ${whole ? "after" : "before"} the end of the body (rules A21, C22)`, async () => {
        const started = Promise.withResolvers<Request>();
        const read = Promise.withResolvers<unknown>();
        const cancelled = Promise.withResolvers<void>();
        const app: App = (request) => {
          started.resolve(request);
          request.text().then(() => read.resolve("read"), read.resolve);
          return new Response(
            new ReadableStream({
              start: (controller) => controller.enqueue(pattern(1000)),
              pull: (controller) =>
                daemon.detects.includes(over)
                  ? new Promise<void>(() => {})
                  : controller.enqueue(pattern(1000)),
              cancel: () => cancelled.resolve(),
            }),
          );
        };
        await serving(daemon, app, {}, async ({ connect, logged }) => {
          const client = await connect();
          await client.send(daemon.head(4), daemon.part(bytes(whole ? "body" : "bod")));
          if (whole) await client.send(daemon.bodyEnd);
          const { signal } = await deadline(started.promise, "the app");
          await client.begun();
          const abort = aborted(signal);
          client.close();
          await deadline(abort, "the signal");
          assertInstanceOf(signal.reason, DOMException);
          assertEquals(signal.reason.name, "AbortError");
          await deadline(cancelled.promise, "the body to be cancelled");
          const result = await deadline(read.promise, "the request's body");
          assertEquals(result, whole ? "read" : signal.reason);
          assertEquals(logged, []);
        }, over);
      });
    }

    Deno.test(`${name}: a read of the body rejects when the web server disconnects over ${over} (rules A21, C22)`, async () => {
      const started = Promise.withResolvers<AbortSignal>();
      const read = Promise.withResolvers<unknown>();
      const app: App = async (request) => {
        const body = request.text();
        started.resolve(request.signal);
        return new Response(await body.catch((error) => (read.resolve(error), "")));
      };
      await serving(daemon, app, {}, async ({ connect }) => {
        const client = await connect();
        await client.send(daemon.head(10), daemon.part(bytes("half")));
        const signal = await deadline(started.promise, "the app");
        client.close();
        const error = await deadline(read.promise, "the body's failure");
        assertInstanceOf(error, DOMException);
        assertEquals([error.name, signal.aborted], ["AbortError", true]);
      }, over);
    });

    Deno.test(`${name}: a server reads on after an early response over ${over}, so that the response is not lost (rule C15)`, async () => {
      const app: App = () => new Response("too large", { status: 413 });
      await serving(daemon, app, {}, async ({ connect, server }) => {
        const client = await connect();
        // Caddy sends all of it before it reads the response.
        const body = [daemon.head(3_000_000), daemon.part(pattern(3_000_000)), daemon.bodyEnd];
        await deadline(client.send(...body), "the body's end");
        await client.end();
        const response = await client.response();
        assertEquals([response.status, text(response.body)], [413, "too large"]);
        if (daemon.keeps) assert(response.complete);
        client.close();
        await deadline(server.shutdown(), "the server's end");
      }, over);
    });

    Deno.test(`${name}: shutdown() over ${over} finishes open requests and closes idle connections (rule C26)`, async () => {
      const gate = Promise.withResolvers<void>();
      const started = Promise.withResolvers<void>();
      const app: App = async (request) => {
        if (!request.url.endsWith("/wait")) return new Response("Hello");
        started.resolve();
        await gate.promise;
        return new Response(pattern(500_000));
      };
      await serving(daemon, app, {}, async ({ connect, server }) => {
        const idle = daemon.keeps ? await connect() : undefined;
        await idle?.send(daemon.request("", {}, true));
        await idle?.response();
        const busy = await connect();
        await busy.send(daemon.request("", { REQUEST_URI: "/wait" }, true));
        await deadline(started.promise, "the app");
        const down = server.shutdown();
        await idle?.end();
        idle?.close();
        gate.resolve();
        const response = await busy.response();
        assertEquals(response.body, pattern(500_000));
        if (daemon.keeps) assert(response.complete);
        await busy.end();
        busy.close();
        await deadline(down, "the server's end");
        await deadline(server.finished, "finished");
      }, over);
    });
  }

  for (const over of daemon.detects.filter((medium) => medium !== "memory")) {
    for (const closed of ["before the app runs", "later"]) {
      Deno.test(`${name}: the server detects over ${over} that a web server disconnects after its half-close, ${closed} (rule C22)`, async () => {
        const { app, signal: begun } = silentApp();
        await serving(daemon, app, {}, async ({ connect }) => {
          const client = await connect();
          await client.send(daemon.request());
          await client.conn.closeWrite!();
          if (closed !== "later") client.close();
          const signal = await begun();
          const abort = aborted(signal);
          if (closed === "later") {
            await turns();
            assertFalse(signal.aborted);
            client.close();
          }
          if (!signal.aborted) await deadline(abort, "the signal");
        }, over);
      });
    }
  }

  Deno.test(`${name}: an echo of 40 MB to a web server that sends all of it before it reads (rules C14, D6)`, async () => {
    const body = pattern(40_000_000);
    const app: App = (request) => new Response(request.body);
    await serving(daemon, app, {}, async ({ connect }) => {
      const client = await connect();
      const sent = client.send(daemon.head(body.length), daemon.part(body), daemon.bodyEnd);
      await deadline(sent, "the end of the body", 30_000);
      const response = await client.response();
      assertEquals(response.body.length, body.length);
      for (let at = 0; at < body.length; at += 1_000_000) {
        assertEquals(response.body.subarray(at, at + 1_000_000), body.subarray(at, at + 1_000_000));
      }
    }, "TCP");
  });

  Deno.test(`${name}: the server has the shape of Deno.HttpServer`, async () => {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    let listening: Deno.Addr | undefined;
    const server = daemon.serve(hello, listener, { onListen: (addr) => listening = addr });
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
      await using disposed = daemon.serve(hello, Deno.listen({ hostname: "127.0.0.1", port }));
      assertEquals(disposed.addr.transport, "tcp");
    }
    await assertRejects(() => Deno.connect({ hostname: "127.0.0.1", port }));
  });

  Deno.test(`${name}: shutdown() aborts requests that take longer than shutdownTimeout, and logs this (rule C26)`, async () => {
    const { app, signal } = silentApp();
    await serving(daemon, app, { shutdownTimeout: 1 }, async ({ connect, server, logged }) => {
      const client = await connect();
      await client.send(daemon.request());
      const started = await signal();
      await deadline(server.shutdown(), "the server's end");
      assert(started.aborted);
      await client.end();
      assert(client.silent);
      assertEquals(logged, [
        "Aborted requests 1 ms after shutdown(): 1 connections were still open",
      ]);
    });
  });

  Deno.test(`${name}: shutdown() waits without a limit if shutdownTimeout is Infinity (rule C26)`, async () => {
    const { app, open } = gatedApp(() => new Response("Hello"));
    const options = { shutdownTimeout: Infinity };
    await serving(daemon, app, options, async ({ connect, server }) => {
      const client = await connect();
      await client.send(daemon.request());
      await turns();
      const down = server.shutdown();
      await turns();
      open();
      assertEquals((await client.response()).status, 200);
      client.close();
      await deadline(down, "the server's end");
    });
  });

  Deno.test(`${name}: options.signal stops the server at once`, async () => {
    const stop = new AbortController();
    const { app, signal: begun } = silentApp();
    const options = { signal: stop.signal };
    await serving(daemon, app, options, async ({ connect, server, listener }) => {
      const client = await connect();
      await client.send(daemon.request());
      const signal = await begun();
      stop.abort(new Error("enough"));
      await deadline(server.finished, "finished");
      assert(signal.aborted);
      assert((listener as FakeListener).closed);
      await client.end();
      await assertRejects(() => client.send(bytes("x")), Deno.errors.BrokenPipe);
    });
    const server = daemon.serve(hello, new FakeListener(), { signal: AbortSignal.abort() });
    await deadline(server.finished, "finished");
  });

  Deno.test(`${name}: options.signal stops a server that shuts down`, async () => {
    const stop = new AbortController();
    const { app, signal: begun } = silentApp();
    const options = { signal: stop.signal, shutdownTimeout: Infinity };
    await serving(daemon, app, options, async ({ connect, server, logged }) => {
      const client = await connect();
      await client.send(daemon.request());
      const signal = await begun();
      const down = server.shutdown();
      await turns(2);
      assertFalse(signal.aborted);
      stop.abort(new Error("enough"));
      await deadline(down, "the server's end");
      assert(signal.aborted);
      assertEquals(logged, []);
    });
  });

  Deno.test(`${name}: a server finishes when its listener is closed`, async () => {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const server = daemon.serve(hello, listener);
    listener.close();
    await deadline(server.finished, "finished");
  });

  Deno.test(`${name}: a server logs a failed accept and serves the next connection`, async () => {
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
    const server = daemon.serve(hello, listener, { log: (message) => logged.push(message) });
    const client = daemon.open(inner.connect()[0]);
    await client.send(daemon.request());
    assertEquals((await client.response()).status, 200);
    assertEquals(logged, ["Cannot accept a connection: Too many open files"]);
    await deadline(server.shutdown(), "the server's end");
  });
}

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
