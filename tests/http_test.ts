import {
  assert,
  assertEquals,
  assertFalse,
  assertMatch,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import type { App } from "../bridge/app.ts";
import { type HTTPOptions, serveHTTP } from "../http.ts";
import { serve } from "../mod.ts";
import { bytes, concat, text } from "./testing/bytes.ts";
import { deadline } from "./testing/deadline.ts";
import { turns } from "./testing/serving.ts";

/** Serves an app, with what it logs caught. */
async function serving(
  app: App,
  options: HTTPOptions,
  use: (url: string, logged: string[]) => Promise<void>,
): Promise<void> {
  const { error } = console;
  const logged: string[] = [];
  console.error = (...data) => logged.push(data.join(" "));
  const server = serveHTTP(app, { hostname: "127.0.0.1", port: 0, onListen: () => {}, ...options });
  try {
    await use(`http://127.0.0.1:${server.addr.port}`, logged);
  } finally {
    await deadline(server.shutdown(), "the server's end");
    console.error = error;
  }
}

/** Upgrades to a WebSocket that sends back what it receives, with the URL that the app saw. */
const upgrade: App = (request) => {
  if (!request.headers.has("upgrade")) return new Response("Hello");
  const { socket, response } = Deno.upgradeWebSocket(request);
  socket.onmessage = ({ data }) => socket.send(`${data} at ${request.url}`);
  return response;
};

/** Sends a message over a WebSocket and returns the one that comes back. */
async function converse(url: string): Promise<string> {
  const socket = new WebSocket(url);
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const closed = new Promise((resolve) => socket.onclose = resolve);
  socket.onopen = () => socket.send("hello");
  socket.onmessage = ({ data }) => resolve(data);
  socket.onerror = () => reject(new Error("The WebSocket failed"));
  try {
    return await deadline(promise, "the message to come back");
  } finally {
    socket.close();
    await deadline(closed, "the WebSocket's end");
  }
}

const upgrades: [name: string, options: HTTPOptions, url: (origin: string) => string][] = [
  ["plainly", {}, (origin) => `${origin}/app/a`],
  ["with a base path", { basePath: "/app" }, (origin) => `${origin}/a`],
  ["behind a proxy", { trustForwarded: true }, (origin) => `${origin}/app/a`],
  ["in a limited time", { requestTimeout: 60_000 }, (origin) => `${origin}/app/a`],
  ["with both", { basePath: "/app", trustForwarded: true }, (origin) => `${origin}/a`],
];
for (const [name, options, seen] of upgrades) {
  Deno.test(`serveHTTP() upgrades to a WebSocket ${name}, and goes on serving`, async () => {
    await serving(upgrade, options, async (url) => {
      for (let round = 0; round < 2; round++) {
        const message = await converse(`${url.replace("http", "ws")}/app/a`);
        assertEquals(message, `hello at ${seen(url)}`);
        assertEquals(await (await get(`${url}/app/b`)).text(), "Hello");
      }
    });
  });
}

for (
  const [name, options] of [["", {}], [" in a limited time", { requestTimeout: 60_000 }]] as const
) {
  Deno.test(`serveHTTP() reports a WebSocket${name} with status 101 and the fields that the app did not read`, async () => {
    const { promise, resolve } = Promise.withResolvers<unknown[]>();
    const app: App = (request) => {
      assertEquals(request.headers.get("upgrade"), "websocket");
      const { socket, response } = Deno.upgradeWebSocket(request);
      socket.onmessage = ({ data }) => socket.send(data);
      return response;
    };
    const onCompleted: HTTPOptions["onCompleted"] = ({ request, status, bytes, received }) =>
      resolve([status, bytes, received, request?.headers.get("sec-websocket-version")]);
    await serving(app, { ...options, onCompleted }, async (url) => {
      assertEquals(await converse(url.replace("http", "ws")), "hello");
      assertEquals(await deadline(promise, "the report"), [101, 0, 0, "13"]);
    });
  });
}

Deno.test("serveHTTP() asks onError for the response if the app returns one whose body is locked", async () => {
  const { promise, resolve } = Promise.withResolvers<number>();
  const app: App = () => {
    const response = new Response(ReadableStream.from([bytes("a")]));
    response.body!.getReader();
    return response;
  };
  const options: HTTPOptions = {
    onError: (error) => new Response((error as Error).message, { status: 500 }),
    onCompleted: ({ status }) => resolve(status),
  };
  await serving(app, options, async (url) => {
    const response = await get(url);
    assertStringIncludes(await response.text(), "Cannot send response: its body is locked");
    assertEquals(await deadline(promise, "the report"), 500);
  });
});

Deno.test("serveHTTP() gives a copied request its URL where an upgrade to no WebSocket is requested", async () => {
  const app: App = (request) => new Response(new Request(request).url);
  await serving(app, { basePath: "/app" }, async (url) => {
    const { hostname, port } = new URL(url);
    using conn = await Deno.connect({ hostname, port: Number(port) });
    const lines = ["GET /app/a HTTP/1.1", "Host: a", "Connection: close, Upgrade", "Upgrade: h2c"];
    await conn.write(new TextEncoder().encode(`${lines.join("\r\n")}\r\n\r\n`));
    const buffer = new Uint8Array(1024);
    let text = "";
    while (!text.endsWith("http://a/a")) {
      const count = await deadline(conn.read(buffer), "the response");
      assert(count !== null, text);
      text += new TextDecoder().decode(buffer.subarray(0, count));
    }
  });
});

Deno.test("serveHTTP() takes the host of an absolute target on a Unix socket, too (rule A11)", async () => {
  const path = `${await Deno.makeTempDir()}/app.sock`;
  const app: App = (request) => Response.json([request.url, request.headers.get("host")]);
  const server = serveHTTP(app, { path, onListen() {} });
  const seen = async (target: string) => {
    const conn = await deadline(Deno.connect({ transport: "unix", path }), "a connection");
    const head = `GET ${target} HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n`;
    await conn.write(new TextEncoder().encode(head));
    const text = await deadline(new Response(conn.readable).text(), "the response");
    return JSON.parse(text.split("\r\n\r\n")[1]);
  };
  assertEquals(await seen("http://a.example/x"), ["http://a.example/x", "a.example"]);
  assertEquals(await seen("/x"), ["http://other/x", "other"]);
  await deadline(server.shutdown(), "the server's end");
});

Deno.test("serveHTTP() gives a Unix socket its mode and group before it listens for others", async () => {
  const path = `${await Deno.makeTempDir()}/app.sock`;
  for (const mode of [undefined, 0o600, 0o666]) {
    let seen: number | undefined;
    const onListen = () => seen = Deno.statSync(path).mode! & 0o777;
    const server = serveHTTP(() => new Response(), { path, mode, group: Deno.gid()!, onListen });
    assertEquals(seen, mode ?? 0o660);
    assertEquals(server.addr, { transport: "unix", path });
    await deadline(server.shutdown(), "the server's end");
  }
  const refused: [options: HTTPOptions, message: string][] = [
    [{ group: "no such group" }, "it must be in /etc/group"],
    [{ mode: 1.5 }, "mode must be an integer from 0"],
    [{ mode: -1 }, "mode must be a number from 0"],
  ];
  for (const [options, message] of refused) {
    assertThrows(
      () => serveHTTP(() => new Response(), { ...options, path, onListen() {} }),
      Error,
      message,
    );
    // Deno removes the file of a socket that it closes.
    await turns();
    await assertRejects(() => Deno.stat(path), Deno.errors.NotFound);
  }
});

for (const [list, trusted] of [["loopback", false], ["unix", true]] as const) {
  Deno.test(`serveHTTP() on a Unix socket with trustForwarded: ["${list}"] (rule A7)`, async () => {
    const path = `${await Deno.makeTempDir()}/app.sock`;
    const app: App = (request, { remoteAddr }) => Response.json([request.url, remoteAddr]);
    const server = serveHTTP(app, { path, onListen() {}, trustForwarded: [list] });
    using client = Deno.createHttpClient({ proxy: { transport: "unix", path } });
    const headers = { "x-forwarded-proto": "https", "x-forwarded-for": "198.51.100.1" };
    const response = await deadline(
      fetch("http://example.org/", { client, headers }),
      "the response",
    );
    assertEquals(await response.json(), [
      `${trusted ? "https" : "http"}://example.org/`,
      { transport: "tcp", hostname: trusted ? "198.51.100.1" : "", port: 0 },
    ]);
    await deadline(server.shutdown(), "the server's end");
  });
}

Deno.test("serveHTTP() gives an info that can be spread and cloned, as under Deno.serve", async () => {
  const app: App = (_request, info) => Response.json([{ ...info }, structuredClone(info)]);
  await serving(app, {}, async (url) => {
    assertEquals(await (await get(url)).json(), [{}, {}]);
  });
});

Deno.test("serveHTTP() waits for its requests without a limit if shutdownTimeout is Infinity", async () => {
  const gate = Promise.withResolvers<void>();
  const started = Promise.withResolvers<void>();
  const app: App = async () => {
    started.resolve();
    await gate.promise;
    return new Response("whole");
  };
  const options = { hostname: "127.0.0.1", port: 0, onListen: () => {} };
  const server = serveHTTP(app, { ...options, shutdownTimeout: Infinity });
  const response = fetch(`http://127.0.0.1:${server.addr.port}`);
  await deadline(started.promise, "the app");
  const down = server.shutdown();
  // Node's and Deno's timers take a longer time than they can count for 1 ms.
  await turns();
  gate.resolve();
  assertEquals(await (await deadline(response, "the response")).text(), "whole");
  await deadline(down, "the server's end");
});

Deno.test("serveHTTP() writes to options.log", async () => {
  const lines: string[] = [];
  const app: App = (_request, info) => {
    const { log } = info;
    log("from the app");
    throw new Error("thrown");
  };
  await serving(app, { log: (line) => lines.push(line) }, async (url, logged) => {
    assertEquals((await get(url)).status, 500);
    assertEquals(logged, []);
    assertEquals(lines.map((line) => line.split("\n")[0]), ["from the app", "Error: thrown"]);
  });
});

Deno.test("serveHTTP() ends in time over a response that does not", async () => {
  const open: App = () =>
    new Response(
      new ReadableStream({ start: (controller) => controller.enqueue(new Uint8Array(1)) }),
    );
  // The stream outlives the server.
  const server = serveHTTP(open, {
    hostname: "127.0.0.1",
    port: 0,
    onListen: () => {},
    shutdownTimeout: 10,
  });
  const response = await get(`http://127.0.0.1:${server.addr.port}/`);
  const reader = response.body!.getReader();
  await reader.read();
  const message = "some requests have not ended within 10 ms";
  await assertRejects(() => deadline(server.shutdown(), "shutdown()"), Error, message);
  await assertRejects(() => deadline(server.finished, "finished"), Error, message);
  await reader.cancel();
});

const get = (url: string, init?: RequestInit) => deadline(fetch(url, init), `a response of ${url}`);

Deno.test("serveHTTP() passes the same info to the handler as other transports", async () => {
  const names = [
    "GATEWAY_INTERFACE",
    "REQUEST_METHOD",
    "REQUEST_SCHEME",
    "REQUEST_URI",
    "QUERY_STRING",
    "SCRIPT_NAME",
    "PATH_INFO",
    "SERVER_NAME",
    "SERVER_PORT",
    "REMOTE_ADDR",
    "HTTP_X_A",
    "HTTP_PROXY",
  ];
  let completed: Promise<void> | undefined;
  const app: App = (request, info) => {
    completed = info.completed;
    info.log("logged");
    const { hostname, transport } = info.remoteAddr as Deno.NetAddr;
    return Response.json({
      isRequest: request instanceof Request,
      protocol: info.protocol,
      scriptName: info.scriptName,
      pathInfo: info.pathInfo,
      client: `${transport} ${hostname}`,
      variables: names.map((name) => info.variables.get(name) ?? null),
    });
  };
  await serving(app, {}, async (url, logged) => {
    const response = await get(`${url}/a%20b?q=1`, { headers: { "x-a": "1", proxy: "x" } });
    assertEquals(await response.json(), {
      isRequest: true,
      protocol: "http",
      scriptName: "",
      pathInfo: "/a b",
      client: "tcp 127.0.0.1",
      variables: [
        "CGI/1.1",
        "GET",
        "http",
        "/a%20b?q=1",
        "q=1",
        "",
        "/a b",
        "127.0.0.1",
        new URL(url).port,
        "127.0.0.1",
        "1",
        null,
      ],
    });
    await deadline(completed!, "info.completed");
    assertEquals(logged, ["logged"]);
  });
});

Deno.test("serveHTTP() accepts an object with fetch", async () => {
  class Site {
    name = "Site";
    fetch() {
      return new Response(this.name);
    }
  }
  await serving(new Site(), {}, async (url) => {
    assertEquals(await (await get(url)).text(), "Site");
  });
});

Deno.test("serveHTTP() responds with 500 to an error, with its stack in the log only (rule F6)", async () => {
  const app = () => {
    throw new Error("the secret");
  };
  await serving(app, {}, async (url, logged) => {
    const response = await get(url);
    assertEquals([response.status, await response.text()], [500, "500 Internal Server Error\n"]);
    assertEquals(logged.length, 1);
    assertStringIncludes(logged[0], "http_test.ts");
  });
});

Deno.test("serveHTTP() calls onError, and responds with 500 if that fails", async () => {
  const app = () => Promise.reject(new Error("the first"));
  const onError = (error: unknown) =>
    new Response(`sorry: ${(error as Error).message}`, { status: 503 });
  await serving(app, { onError }, async (url, logged) => {
    const response = await get(url);
    assertEquals([response.status, await response.text()], [503, "sorry: the first"]);
    assertEquals(logged, []);
  });
  const failing = [
    () => {
      throw new Error("the second");
    },
    () => Promise.reject(new Error("the second")),
    () => "the second" as unknown as Response,
  ];
  for (const onError of failing) {
    await serving(app, { onError }, async (url, logged) => {
      const response = await get(url);
      assertEquals([response.status, await response.text()], [500, "500 Internal Server Error\n"]);
      assertStringIncludes(logged.join("\n"), "the first");
      assertStringIncludes(logged.join("\n"), "the second");
    });
  }
});

Deno.test("serveHTTP() shows the debug page with the option debug, without secrets (rule F6)", async () => {
  const app = () => {
    throw new Error("<broken>");
  };
  await serving(app, { debug: true }, async (url) => {
    const response = await get(`${url}/?a=b`, { headers: { authorization: "Basic hush" } });
    const page = await response.text();
    assertEquals(response.status, 500);
    assertStringIncludes(page, "Error: &#60;broken&#62;");
    assertStringIncludes(page, "over http");
    assertFalse(page.includes("hush"));
  });
});

Deno.test("serveHTTP() aborts the signal when the client disconnects", async () => {
  const started = Promise.withResolvers<AbortSignal>();
  await serving(
    (request) => {
      started.resolve(request.signal);
      return new Promise((resolve) =>
        request.signal.addEventListener("abort", () => resolve(new Response()))
      );
    },
    {},
    async (url) => {
      const leave = new AbortController();
      const response = fetch(url, { signal: leave.signal });
      const signal = await deadline(started.promise, "the app");
      const aborted = new Promise((resolve) => signal.addEventListener("abort", resolve));
      leave.abort();
      await assertRejects(() => response, DOMException);
      await deadline(aborted, "the signal");
    },
  );
});

for (const read of ["nothing", "a part"]) {
  Deno.test(`requestTimeout: serveHTTP() receives the rest of a body of which the app has read ${read}`, async () => {
    const app: App = async (request) => {
      if (read === "a part") await request.body!.getReader().read();
      return await new Promise(() => {});
    };
    await serving(app, { requestTimeout: 1, log() {} }, async (url) => {
      const port = Number(new URL(url).port);
      const conn = await Deno.connect({ hostname: "127.0.0.1", port });
      const head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n";
      const sending = (async () => {
        const all = concat([bytes(head), new Uint8Array(3_000_000)]);
        for (let at = 0; at < all.length;) at += await conn.write(all.subarray(at));
      })();
      let response = "";
      const receiving = (async () => {
        for await (const part of conn.readable) response += text(part);
      })();
      await deadline(sending, "the body's end");
      await deadline(receiving, "the end of the connection");
      assertStringIncludes(response, "HTTP/1.1 503 Service Unavailable\r\n");
    });
  });
}

Deno.test("serveHTTP() streams both ways at once", async () => {
  await serving((request) => new Response(request.body), {}, async (url) => {
    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
    const writer = writable.getWriter();
    const responding = get(url, { method: "POST", body: readable });
    await writer.write(new TextEncoder().encode("one"));
    const reader = (await responding).body!.pipeThrough(new TextDecoderStream()).getReader();
    assertEquals((await deadline(reader.read(), "the first part")).value, "one");
    await writer.write(new TextEncoder().encode("two"));
    assertEquals((await deadline(reader.read(), "the second part")).value, "two");
    await writer.close();
    assertEquals((await deadline(reader.read(), "the end")).done, true);
  });
});

Deno.test("serve() serves HTTP where nothing else is found, until it is stopped (rule A1)", async () => {
  const stop = new AbortController();
  const listening = Promise.withResolvers<Deno.NetAddr>();
  const served = serve(() => new Response("Hello"), {
    hostname: "127.0.0.1",
    port: 0,
    signal: stop.signal,
    onListen: (addr) => listening.resolve(addr as Deno.NetAddr),
  });
  const { port } = await deadline(listening.promise, "the address");
  assertEquals(await (await get(`http://127.0.0.1:${port}`)).text(), "Hello");
  stop.abort();
  await deadline(served, "the server's end");
});

Deno.test("serveHTTP() listens on loopback unless the options say otherwise", async () => {
  const cases: [options: HTTPOptions, hostname: string][] = [
    [{}, "127.0.0.1"],
    [{ allowRemote: true }, "0.0.0.0"],
    [{ allowRemote: true, hostname: "127.0.0.2" }, "127.0.0.2"],
    [{ hostname: "::1" }, "::1"],
  ];
  for (const [options, hostname] of cases) {
    const server = serveHTTP(() => new Response(), { port: 0, onListen() {}, ...options });
    assertEquals(server.addr.hostname, hostname);
    await server.shutdown();
  }
});

for (const options of [{}, { basePath: "/app" }] as const) {
  Deno.test(`serveHTTP() responds to an app's error though the app has replaced request.signal, ${JSON.stringify(options)}`, async () => {
    const app: App = (request) => {
      Object.defineProperty(request, "signal", { value: AbortSignal.abort() });
      throw new Error("past its deadline");
    };
    const onError = (error: unknown) => new Response((error as Error).message, { status: 503 });
    await serving(app, { ...options, onError }, async (url, logged) => {
      const response = await get(`${url}/app/a`);
      assertEquals([response.status, await response.text()], [503, "past its deadline"]);
      assertEquals(logged, []);
    });
  });
}

Deno.test("serveHTTP() finds a variable as it is among all", async () => {
  const names = ["REQUEST_METHOD", "REQUEST_URI", "SERVER_PROTOCOL", "REMOTE_USER", "HTTP_HOST"];
  const app: App = (_request, { variables }) => {
    const found = names.map((name) => variables.get(name));
    const all = new Map(variables);
    return Response.json([found, names.map((name) => all.get(name))]);
  };
  await using server = serveHTTP(app, { hostname: "127.0.0.1", port: 0, onListen() {} });
  for (const target of ["/", "/a%20b?c=d", "/a?", '/a"b|c', "/a/../b", "//c", "http://other/d?e"]) {
    const conn = await Deno.connect({ hostname: "127.0.0.1", port: server.addr.port });
    const request =
      `POST ${target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nRemote-User: x\r\n\r\n`;
    await conn.write(new TextEncoder().encode(request));
    const response = await new Response(conn.readable).text();
    const [found, all] = JSON.parse(response.slice(response.indexOf("\r\n\r\n")));
    assertEquals(found, all, target);
  }
});

Deno.test("serveHTTP() logs a line and knows an id of a request whose response was sent", async () => {
  const ended = Promise.withResolvers<string>();
  const logged = Promise.withResolvers<string>();
  const app: App = (_request, info) => {
    info.completed.then(() =>
      setTimeout(() => {
        try {
          info.log("still working");
          ended.resolve(info.requestId);
        } catch (error) {
          ended.reject(error);
        }
      }, 0)
    );
    return new Response("sent");
  };
  await using server = serveHTTP(app, {
    hostname: "127.0.0.1",
    port: 0,
    onListen() {},
    log: logged.resolve,
  });
  const response = await fetch(`http://127.0.0.1:${server.addr.port}/`);
  assertEquals(await response.text(), "sent");
  assertEquals(await deadline(logged.promise, "the line"), "still working");
  assertMatch(await deadline(ended.promise, "the id"), /^[\w-]{8,}$/);
});

Deno.test("serveHTTP() takes what an app returns or throws, at once and later", async () => {
  const returned: Record<string, () => unknown> = {
    "/response": () => new Response("a"),
    "/promise": () => Promise.resolve(new Response("a")),
    "/thenable": () => ({
      then: (resolve: (response: Response) => void) => resolve(new Response("a")),
    }),
    "/nothing": () => undefined,
    "/later-nothing": () => Promise.resolve(null),
    "/throws": () => {
      throw new Error("broken");
    },
    "/rejects": () => Promise.reject(new Error("broken")),
    "/read": () => {
      const response = new Response("a");
      response.text();
      return response;
    },
    "/control": () => new Response("a", { headers: { "x-a": "\x01" } }),
  };
  const app = (request: Request) => returned[new URL(request.url).pathname]() as Response;
  await using server = serveHTTP(app, { hostname: "127.0.0.1", port: 0, onListen() {}, log() {} });
  const statuses = [];
  for (const path of Object.keys(returned)) {
    const response = await fetch(`http://127.0.0.1:${server.addr.port}${path}`);
    statuses.push([path, response.status]);
    await response.body?.cancel();
  }
  assertEquals(
    statuses,
    Object.keys(returned).map((path, i) => [path, i < 3 ? 200 : 500]),
  );
});
