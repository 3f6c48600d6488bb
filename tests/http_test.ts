import { assertEquals, assertFalse, assertRejects, assertStringIncludes } from "@std/assert";
import type { App } from "../bridge/app.ts";
import { type HTTPOptions, serveHTTP } from "../http.ts";
import { serve } from "../mod.ts";
import { deadline } from "./testing/deadline.ts";

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

const get = (url: string, init?: RequestInit) => deadline(fetch(url, init), `an answer of ${url}`);

Deno.test("serveHTTP() tells the handler what other transports tell it", async () => {
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

Deno.test("serveHTTP() takes an object with fetch", async () => {
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

Deno.test("serveHTTP() answers an error with 500, its stack in the log alone (SPEC F6)", async () => {
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

Deno.test("serveHTTP() asks onError, and answers 500 where that fails", async () => {
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

Deno.test("serveHTTP() shows the debug page if asked to, without secrets (SPEC F6)", async () => {
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

Deno.test("serveHTTP() aborts the signal when the client leaves", async () => {
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
      const answer = fetch(url, { signal: leave.signal });
      const signal = await deadline(started.promise, "the app");
      const aborted = new Promise((resolve) => signal.addEventListener("abort", resolve));
      leave.abort();
      await assertRejects(() => answer, DOMException);
      await deadline(aborted, "the signal");
    },
  );
});

Deno.test("serveHTTP() streams both ways at once", async () => {
  await serving((request) => new Response(request.body), {}, async (url) => {
    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
    const writer = writable.getWriter();
    const asked = get(url, { method: "POST", body: readable });
    await writer.write(new TextEncoder().encode("one"));
    const reader = (await asked).body!.pipeThrough(new TextDecoderStream()).getReader();
    assertEquals((await deadline(reader.read(), "the first part")).value, "one");
    await writer.write(new TextEncoder().encode("two"));
    assertEquals((await deadline(reader.read(), "the second part")).value, "two");
    await writer.close();
    assertEquals((await deadline(reader.read(), "the end")).done, true);
  });
});

Deno.test("serve() serves HTTP where nothing else is found, until it is stopped (SPEC A1)", async () => {
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
