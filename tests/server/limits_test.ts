/** The limits of the servers, over each protocol of a daemon. */
import { assert, assertEquals, assertLess, assertStringIncludes, assertThrows } from "@std/assert";
import type { App } from "../../bridge/app.ts";
import { abortRequest } from "../testing/fastcgi_records.ts";
import { bytes, pattern, text } from "../testing/bytes.ts";
import { type Daemon, DAEMONS, type Options, type Peer, serving } from "../testing/daemons.ts";
import { deadline } from "../testing/deadline.ts";
import { FakeListener } from "../testing/duplex.ts";
import { turns } from "../testing/serving.ts";

const hello: App = () => new Response("Hello");
const echo: App = async (request) => new Response(await request.bytes());

/** Sends a request to a server with these options. Returns its status, and the lines of the log. */
async function outcome(
  daemon: Daemon,
  app: App,
  options: Options,
  ...parts: Uint8Array[]
): Promise<{ status: number | undefined; length: number; complete?: boolean; log: string }> {
  const result = Promise.withResolvers<Awaited<ReturnType<typeof outcome>>>();
  await serving(daemon, app, options, async ({ connect, logged }) => {
    const client = await connect();
    await client.send(...parts);
    const { status, body, complete, stderr = "" } = await client.response();
    result.resolve({ status, length: body.length, complete, log: stderr + logged.join("\n") });
  });
  return result.promise;
}

for (const daemon of DAEMONS) {
  const { name } = daemon;

  Deno.test(`${name}: the server stops reading while the app does not read (rules C14, D6, F8)`, async () => {
    const gate = Promise.withResolvers<void>();
    const app: App = async (request) => {
      await gate.promise;
      let length = 0;
      for await (const chunk of request.body!) length += chunk.length;
      return new Response(String(length));
    };
    await serving(daemon, app, {}, async ({ connect }) => {
      const client = await connect(65536);
      await client.send(daemon.head(3_000_000));
      let sent = 0;
      const part = daemon.part(pattern(60000));
      const sending = (async () => {
        for (; sent < 50; sent++) await client.send(part);
        await client.send(daemon.bodyEnd);
      })();
      await turns(100);
      // 256 KiB that the connection buffers, 64 KiB in the pipe, and two reads.
      assertLess(sent * 60000, 600_000);
      gate.resolve();
      await deadline(sending, "the body's end");
      assertEquals(text((await client.response()).body), "3000000");
    });
  });

  Deno.test(`${name}: maxVariableBytes: a response at the limit, 431 above it (rule F8)`, async () => {
    const get = (length: number, options: Options = {}) =>
      outcome(daemon, hello, options, daemon.request("", { HTTP_X_LONG: "x".repeat(length) }));
    const length = daemon.variableBytes({ HTTP_X_LONG: "x".repeat(1000) });
    assertEquals((await get(1000, { maxVariableBytes: length })).status, 200);
    const above = await get(1000, { maxVariableBytes: length - 1 });
    assertEquals(above.status, 431);
    if (daemon.keeps) assert(above.complete);
    assertStringIncludes(above.log, daemon.overBytes(length - 1, length));
    assertEquals((await get(261_000)).status, 200);
    assertEquals((await get(263_000)).status, 431);
  });

  Deno.test(`${name}: maxVariables: a response at the limit, 431 above it (rule F8)`, async () => {
    const get = (count: number, options: Options = {}) => {
      const others = Array.from({ length: count - daemon.variables }, (_, i) => [`X${i}`, ""]);
      return outcome(daemon, hello, options, daemon.request("", Object.fromEntries(others)));
    };
    assertEquals((await get(10, { maxVariables: 10 })).status, 200);
    const above = await get(10, { maxVariables: 9 });
    assertEquals(above.status, 431);
    assertStringIncludes(above.log, daemon.overCount(9));
    assertEquals((await get(2000)).status, 200);
    assertEquals((await get(2001)).status, 431);
  });

  Deno.test(`${name}: an option that is undefined has its default`, async () => {
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
    const many = Object.fromEntries(Array.from({ length: 2003 }, (_, i) => [`X${i}`, ""]));
    const past = await outcome(daemon, hello, options, daemon.request("", many));
    assertEquals(past.status, 431);
    assertEquals((await outcome(daemon, hello, options, daemon.request())).status, 200);
    const remote = new FakeListener();
    remote.addr = { transport: "tcp", hostname: "192.0.2.1", port: 9000 };
    assertThrows(() => daemon.serve(hello, remote, options), Error, "must be on loopback");
  });

  // SCGI has no body without a length.
  for (const declared of daemon.keeps ? [true, false] : [true]) {
    Deno.test(`${name}: maxBodyBytes: a response at the limit, 413 above it, ${declared ? "with" : "without"} CONTENT_LENGTH (rule F8)`, async () => {
      let called = 0;
      const app: App = (request, info) => (called++, echo(request, info));
      const post = (length: number) => {
        const head = daemon.head(declared ? length : undefined);
        const body = [head, daemon.part(pattern(length)), daemon.bodyEnd];
        return outcome(daemon, app, { maxBodyBytes: 1000 }, ...body);
      };
      const at = await post(1000);
      assertEquals([at.status, at.length, called], [200, 1000, 1]);
      const above = await post(1001);
      assertEquals(above.status, 413);
      if (daemon.keeps) assert(above.complete);
      assertEquals(called, declared ? 1 : 2);
      assertStringIncludes(above.log, "it must have at most 1000 bytes: it has ");
    });
  }

  Deno.test(`${name}: variablesTimeout closes a connection if a request's variables do not end (rule F9)`, async () => {
    await serving(daemon, hello, { variablesTimeout: 1 }, async ({ connect, logged }) => {
      const client = await connect();
      await client.send(daemon.cutVariables);
      await client.end();
      assert(client.silent);
      assertEquals(logged.length, 1);
      assertStringIncludes(logged[0], "a request's variables did not arrive within 1 ms");
    });
  });

  Deno.test(`${name}: bodyTimeout rejects the read, and the response is 408 unless the app returns another (rule F8)`, async () => {
    const app: App = async (request) => {
      const text = request.text();
      const isOwn = request.url.endsWith("/own");
      return new Response(
        isOwn ? await text.catch((error) => `own: ${error.status}`) : await text,
      );
    };
    await serving(daemon, app, { bodyTimeout: 1 }, async ({ connect, logged }) => {
      const [client, own] = [await connect(), await connect()];
      await client.send(daemon.head(10));
      await own.send(daemon.head(10, { REQUEST_URI: "/own" }), daemon.part(bytes("some")));
      const { status, complete, stderr = logged.join("\n") } = await client.response();
      assertEquals(status, 408);
      if (daemon.keeps) assert(complete);
      assertStringIncludes(stderr, "no bytes arrived for 1 ms");
      assertEquals(text((await own.response()).body), "own: 408");
    });
  });

  Deno.test(`${name}: writeTimeout closes a connection from which the web server reads nothing (rule F8)`, async () => {
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
    await serving(daemon, app, { writeTimeout: 1 }, async ({ connect, logged }) => {
      const client = await connect(65536);
      await client.send(daemon.request());
      await deadline(cancelled.promise, "the body to be cancelled");
      assert(signal!.aborted);
      await client.end();
      const { complete = false, end = null } = await client.response();
      assertEquals([complete, end], [false, null]);
      assertEquals(logged, [
        "Closed a connection: its peer read nothing of the response for 1 ms",
      ]);
    });
  });

  Deno.test(`${name}: webServerAddresses refuses all other peers, Unix peers too (rule C25)`, async () => {
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
      const server = daemon.serve(hello, listener, {
        webServerAddresses: ["192.0.2.1", "2001:db8::1", "10.0.0.0/8"],
        log: (message) => logged.push(message),
      });
      const [ours, theirs] = listener.connect();
      theirs.remoteAddr = addr;
      const client = daemon.open(ours);
      await client.send(daemon.request()).catch(() => {});
      await client.end();
      assertEquals(client.silent, !allowed, JSON.stringify(addr));
      assertEquals(logged.length, allowed ? 0 : 1);
      await deadline(server.shutdown(), "the server's end");
    }
  });

  Deno.test(`${name}: a listener that other machines can reach is refused, unless an option allows it (rule F4)`, async () => {
    const serve = (addr: Deno.Addr, options?: Options) => {
      const listener = new FakeListener();
      listener.addr = addr;
      return daemon.serve(hello, listener, options);
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
}

/** How a client leaves before the response. */
const LEAVING: [Daemon, way: string, (client: Peer) => Promise<void> | void][] = [
  ...DAEMONS.map((daemon) =>
    [daemon, "disconnects", (client: Peer) => client.close()] as typeof LEAVING[number]
  ),
  [DAEMONS[0], "sends FCGI_ABORT_REQUEST", (client) => client.send(abortRequest(1))],
];
for (const [daemon, way, leave] of LEAVING) {
  Deno.test(`${daemon.name}: maxRequests counts a handler that runs on when the web server ${way} (rule F8)`, async () => {
    const gate = Promise.withResolvers<void>();
    let running = 0;
    const app: App = async () => {
      running++;
      await gate.promise;
      running--;
      return new Response("Hello");
    };
    await serving(daemon, app, { maxRequests: 2 }, async ({ connect }) => {
      for (let i = 0; i < 5; i++) {
        const client = await connect();
        if (daemon.keeps) await client.send(daemon.request("", {}, true));
        // It waits for the rest of the body, so that the end of its input aborts the request at once.
        else await client.send(daemon.head(10), bytes("some"));
        await turns(3);
        await leave(client);
        await turns(3);
      }
      assertEquals(running, 2);
      const refused = await connect();
      await refused.send(daemon.request());
      assertEquals((await refused.response()).status, 503);
      gate.resolve();
      await turns();
      for (let i = 0; i < 2; i++) {
        const client = await connect();
        await client.send(daemon.request());
        assertEquals((await client.response()).status, 200);
      }
    });
  });
}
