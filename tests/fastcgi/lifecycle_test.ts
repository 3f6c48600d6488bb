import { assert, assertEquals, assertRejects } from "@std/assert";
import type { App } from "../../bridge/app.ts";
import { serveFastCGI } from "../../fastcgi.ts";
import { ProtocolStatus, RecordType } from "../../wire/fastcgi.ts";
import { bytes } from "../testing/bytes.ts";
import { deadline } from "../testing/deadline.ts";
import { FakeListener } from "../testing/duplex.ts";
import { MEDIA, turns } from "../testing/serving.ts";
import { FastCGIClient, request, variables } from "../testing/fastcgi_client.ts";
import { beginRequest, params, stdin, stdinEnd } from "../testing/fastcgi_records.ts";
import { hello, post, serving, types } from "../testing/fastcgi_serving.ts";

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
          const record = await client.next("the record that makes nginx close");
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

Deno.test("shutdown() makes nginx close with the write that ends a response (rule C31)", async () => {
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

Deno.test("serveFastCGI() makes nginx close a connection after idleTimeout (rule C31)", async () => {
  await serving(hello, { idleTimeout: 1 }, async ({ connect }) => {
    const client = await connect();
    await client.send(fromNginx());
    assertEquals((await client.response()).status, 200);
    const record = await client.next("the record that makes nginx close");
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
