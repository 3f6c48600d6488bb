import {
  assertEquals,
  assertFalse,
  assertLess,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import type { App, FilterInfo, Handler } from "../../bridge/app.ts";
import { serveFastCGI } from "../../fastcgi.ts";
import { ProtocolStatus, Role } from "../../wire/fastcgi.ts";
import { bytes, pattern, text } from "../testing/bytes.ts";
import { JumpingClock } from "../testing/clock.ts";
import { deadline } from "../testing/deadline.ts";
import { FakeListener } from "../testing/duplex.ts";
import { turns } from "../testing/serving.ts";
import { type FastCGIClient, request, serveOne, variables } from "../testing/fastcgi_client.ts";
import {
  abortRequest,
  beginRequest,
  getValues,
  params,
  stdin,
  stdinEnd,
} from "../testing/fastcgi_records.ts";
import { echo, hello, post, serving } from "../testing/fastcgi_serving.ts";

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
        "Cannot buffer request body: it has more than 500000 unread bytes",
      );
      await client.send(request({ id: 3, keep: true }));
      assertEquals((await client.response(3)).status, 200);
    },
  );
});

Deno.test("maxBufferedTotal: a large body above it fails with 503, a small one and others go on (rules C9, F8)", async () => {
  const gate = Promise.withResolvers<void>();
  await serving(
    async (request) => {
      if (request.headers.has("x-wait")) await gate.promise;
      return new Response(await request.bytes());
    },
    { maxBufferedTotal: 2_000_000 },
    async ({ connect }) => {
      const client = await connect();
      await client.send(getValues("FCGI_MPXS_CONNS"));
      const wait = variables({ ...post, HTTP_X_WAIT: "1" });
      for (const id of [1, 2]) {
        await client.send(beginRequest(id, { keep: true }), params(id, wait));
      }
      await deadline(client.send(stdin(1, pattern(500_000))), "the body below the limit");
      await deadline(client.send(stdin(2, pattern(3_000_000)), stdinEnd(2)), "the body above it");
      // The second one takes no memory now.
      await deadline(client.send(stdin(1, pattern(100_000)), stdinEnd(1)), "the first body's end");
      await client.send(request({ id: 3, keep: true, body: pattern(200_000), variables: post }));
      assertEquals((await client.response(3)).body.length, 200_000);
      gate.resolve();
      assertEquals((await client.response(1)).body.length, 600_000);
      const past = await client.response(2);
      assertEquals(
        [past.status, past.headers.get("retry-after"), past.complete],
        [503, "5", true],
      );
      assertStringIncludes(
        past.stderr,
        "Cannot buffer request body as all that wait for the app must have at most 2000000 bytes",
      );
    },
  );
});

Deno.test("maxBufferedTotal: a connection pauses where it can (rule F8)", async () => {
  const gate = Promise.withResolvers<void>();
  const begun = Promise.withResolvers<void>();
  const app: App = async (request) => {
    begun.resolve();
    await gate.promise;
    return new Response(await request.bytes());
  };
  await serving(app, { maxBufferedTotal: 1_000_000 }, async ({ connect }) => {
    const clients = await Promise.all([1, 2, 3, 4, 5].map(() => connect(65536)));
    const sending = clients.map((client) =>
      client.send(
        beginRequest(1),
        params(1, variables(post)),
        stdin(1, pattern(300_000)),
        stdinEnd(1),
      )
    );
    await deadline(begun.promise, "the app");
    await turns(100);
    gate.resolve();
    await deadline(Promise.all(sending), "the bodies' ends");
    for (const client of clients) {
      const { status, body } = await client.response();
      assertEquals([status, body.length], [200, 300_000]);
    }
  });
});

/** How a request ends that has a body in memory: the app, and what the web server does. */
const ENDS: Record<string, [app: Handler, leave?: (client: FastCGIClient) => unknown]> = {
  "the app responds without reading it": [() => new Response()],
  "the app reads it": [async (request) => new Response(String((await request.bytes()).length))],
  "the app reads its stream": [async (request) => {
    let length = 0;
    for await (const chunk of request.body!) length += chunk.length;
    return new Response(String(length));
  }],
  "the app reads a part of it": [async (request) => {
    await request.body!.getReader().read();
    return new Response();
  }],
  "the app reads a part of it into its own buffer": [async (request) => {
    await request.body!.getReader({ mode: "byob" }).read(new Uint8Array(1000));
    return new Response();
  }],
  "the app cancels it": [async (request) => {
    await request.body!.cancel();
    return new Response();
  }],
  "the app throws": [() => {
    throw new Error("expected");
  }],
  "the web server disconnects": [
    async (request) => {
      await new Promise((resolve) => request.signal.addEventListener("abort", resolve));
      return new Response();
    },
    (client) => client.close(),
  ],
  "the web server aborts": [
    async (request) => {
      await new Promise((resolve) => request.signal.addEventListener("abort", resolve));
      return new Response();
    },
    (client) => client.send(abortRequest(1)),
  ],
};

for (const [how, [app, leave]] of Object.entries(ENDS)) {
  Deno.test(`maxBufferedTotal counts a body no longer when ${how} (rule F8)`, async () => {
    const gates = new Map<string, PromiseWithResolvers<void>>();
    const gated: App = async (request, info) => {
      await gates.get(new URL(request.url).pathname)!.promise;
      return request.url.endsWith("/last")
        ? new Response(await request.bytes())
        : await app(request, info);
    };
    await serving(gated, { maxBufferedTotal: 1_000_000 }, async ({ connect }) => {
      for (const path of ["/first", "/second", "/last"]) {
        const gate = Promise.withResolvers<void>();
        gates.set(path, gate);
        const client = await connect();
        await client.send(getValues("FCGI_MPXS_CONNS"));
        await client.send(
          request({ body: pattern(600_000), variables: { ...post, REQUEST_URI: path } }),
        );
        await turns();
        gate.resolve();
        await turns();
        if (path === "/last") assertEquals((await client.response()).body.length, 600_000);
        else if (leave !== undefined) await leave(client);
        else await client.response();
        await turns();
      }
    });
  });
}

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

Deno.test("variablesTimeout closes a new connection on which no request comes, and no kept connection (rule F9)", async () => {
  await serving(hello, { variablesTimeout: 1 }, async ({ connect, logged }) => {
    const [silent, querying, kept] = [await connect(), await connect(), await connect()];
    await querying.send(getValues("FCGI_MAX_CONNS"));
    await kept.send(request({ keep: true }));
    assertEquals((await kept.response()).status, 200);
    await silent.end();
    await querying.end();
    assertFalse(kept.ended);
    await kept.send(request({ keep: true, id: 2 }));
    assertEquals((await kept.response(2)).status, 200);
    assertEquals(logged, []);
  });
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

Deno.test("requestTimeout ends one request of a connection, and no other (rule F8)", async () => {
  const gates = [1, 2, 3].map(() => Promise.withResolvers<void>());
  const app: App = async (request) => {
    await gates[Number(request.url.at(-1))].promise;
    return new Response("in time");
  };
  await serving(app, { requestTimeout: 1 }, async ({ connect }) => {
    const client = await connect();
    const parts = (id: number, gate: number) => ({
      ...{ id, keep: true },
      variables: { ...post, REQUEST_URI: `/${gate}` },
    });
    const [slow, reading] = [parts(1, 0), parts(2, 1)];
    await client.send(beginRequest(1, slow), params(1, variables(slow.variables)));
    await client.send(stdin(1, bytes("some")));
    assertEquals((await client.response(1)).status, 503);
    // The rest of the upload is dropped, and the id can be used again.
    await client.send(stdin(1, bytes("late")), stdinEnd(1));
    gates[1].resolve();
    for (const { id } of [slow, reading]) {
      await client.send(request({ ...reading, id }));
      assertEquals(text((await client.response(id)).body), "in time");
    }
  });
});

Deno.test("requestTimeout applies to an authorizer and a filter, but not for the web server (rules C27, C29)", async () => {
  const cancelled = Promise.withResolvers<void>();
  const called = Promise.withResolvers<void>();
  const late = ({ signal }: Request) =>
    new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
  const app = {
    fetch: () => new Response(),
    authorize: async (request: Request) => {
      await late(request);
      return new Response();
    },
    filter: async (request: Request, info: FilterInfo) => {
      if (request.url.endsWith("/in-time")) {
        called.resolve();
        return new Response("in time");
      }
      await late(request);
      await assertRejects(() => new Response(info.data).text(), DOMException, "must respond");
      return new Response(new ReadableStream({ cancel: () => cancelled.resolve() }));
    },
  };
  const file = { FCGI_DATA_LENGTH: "4", FCGI_DATA_LAST_MOD: "0" };
  await serving(app, { requestTimeout: 1 }, async ({ connect }) => {
    const client = await connect();
    const filter = { role: Role.filter, keep: true };
    const inTime = variables({ ...file, REQUEST_URI: "/in-time" });
    await client.send(beginRequest(2, filter), params(2, inTime));
    await deadline(called.promise, "the filter");
    await client.send(
      beginRequest(1, { role: Role.authorizer, keep: true }),
      params(1, variables()),
    );
    assertEquals((await client.response(1)).status, 503);
    await client.send(beginRequest(1, filter), params(1, variables(file)));
    // Its FCGI_STDIN never ends.
    assertEquals((await client.response(1)).status, 503);
    await deadline(cancelled.promise, "the cancelling of the body");
    await client.send(stdinEnd(2));
    assertEquals(text((await client.response(2)).body), "in time");
  });
});

Deno.test("maxRequests counts a handler that runs on after requestTimeout (rule F8)", async () => {
  const gate = Promise.withResolvers<void>();
  const app: App = async () => (await gate.promise, new Response("Hello"));
  await serving(app, { maxRequests: 1, requestTimeout: 1 }, async ({ connect, logged }) => {
    const client = await connect();
    const parts = { keep: true };
    await client.send(request(parts));
    assertStringIncludes((await client.response()).stderr, "requestTimeout");
    await client.send(request(parts));
    assertEquals((await client.response()).end?.protocolStatus, ProtocolStatus.overloaded);
    gate.resolve();
    await turns();
    await client.send(request(parts));
    assertEquals((await client.response()).status, 200);
    assertEquals(logged, []);
  });
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
