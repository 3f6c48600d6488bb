/** Whatever an app throws or returns, and whatever its log does, the client gets a response over every transport. */
import { assertEquals, assertStrictEquals } from "@std/assert";
import type { App, AppOptions, Handler } from "../../bridge/app.ts";
import { serveFastCGI } from "../../fastcgi.ts";
import { serveSCGI } from "../../scgi.ts";
import { serveHTTP } from "../../http.ts";
import { fastCGIGateway } from "../../gateway.ts";
import { bytes, text } from "../testing/bytes.ts";
import { deadline } from "../testing/deadline.ts";
import { IN_PROCESS } from "./transports.ts";
import { silence } from "../testing/silence.ts";

const unreadable = (name: string) =>
  Object.defineProperty(new Error("the secret"), name, {
    get() {
      throw new Error("the getter");
    },
  });

function revoked(): unknown {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
}

/** Values that cannot be formatted in the usual way. */
const VALUES: Record<string, () => unknown> = {
  "undefined": () => undefined,
  "null": () => null,
  "a symbol": () => Symbol("x"),
  "an object without a prototype": () => Object.create(null),
  "an object whose text is none": () => ({ toString: () => ({}) }),
  "an error whose stack is no text": () => Object.assign(new Error("the secret"), { stack: 5 }),
  "an error whose stack throws": () => unreadable("stack"),
  "an error whose message throws": () => unreadable("message"),
  "an error whose cause throws": () => unreadable("cause"),
  "an error whose errors are a revoked proxy": () =>
    Object.assign(new Error("the secret"), { errors: revoked() }),
  "a revoked proxy": revoked,
};

const GET = { method: "GET", target: "/", headers: [] };
const PLAIN = [500, "500 Internal Server Error\n"];

for (const [transport, start] of Object.entries(IN_PROCESS)) {
  for (const [name, make] of Object.entries(VALUES)) {
    Deno.test(`${transport}: an app that throws or returns ${name} gets a 500`, async () => {
      using _ = silence();
      const apps: App[] = [
        () => {
          throw make();
        },
        () => Promise.reject(make()),
        () => make() as Response,
        () =>
          new Response(
            new ReadableStream({
              start: (controller) => controller.error(make()),
            }),
          ),
      ];
      for (const app of apps) {
        // Deno.serve sends the head of a stream before it reads it. A stream that fails with a revoked proxy ends Deno.
        if (app === apps[3] && (transport === "HTTP" || make === revoked)) continue;
        {
          await using over = start(app);
          const { status, body } = await over.send(GET);
          assertEquals([status, text(body)], PLAIN);
        }
        await using over = start(app, { debug: true });
        assertEquals((await over.send(GET)).status, 500);
      }
      await using over = start(apps[0], {
        onError() {
          throw make();
        },
      });
      assertEquals((await over.send(GET)).status, 500);
    });
  }

  // Not over HTTP, where Deno.serve would get the value if the check failed.
  for (const name of transport === "HTTP" ? [] : ["x-a", "content-type"]) {
    Deno.test(`${transport}: a header ${name} with a control character is an error of the app (rule B9)`, async () => {
      using _ = silence();
      const cancelled = Promise.withResolvers<void>();
      const headers = { [name]: "a\x7fb" };
      const apps: [App, AppOptions?][] = [
        [() => new Response("x", { headers })],
        [() => new Response(null, { status: 204, headers })],
        [() =>
          new Response(new ReadableStream({ cancel: () => cancelled.resolve() }), { headers })],
        [() => Promise.reject(new Error("x")), { onError: () => new Response("x", { headers }) }],
      ];
      for (const [app, options] of apps) {
        await using over = start(app, options);
        const { status, body } = await over.send(GET);
        assertEquals([status, text(body)], PLAIN);
      }
      await deadline(cancelled.promise, "the end of the stream");
    });
  }
}

for (const [transport, start] of Object.entries(IN_PROCESS)) {
  Deno.test(`${transport}: onError gets the error and the app's arguments`, async () => {
    const given: unknown[][] = [];
    const failing: Handler = (...args) => {
      given.push(args);
      throw new Error("broken");
    };
    await using over = start(failing, {
      basePath: "/app",
      onError(...args) {
        given.push(args);
        const [error, { method, url }, { protocol, pathInfo }] = args;
        const { pathname } = new URL(url);
        return new Response([(error as Error).message, method, pathname, pathInfo].join(" "), {
          headers: { "x-protocol": protocol },
          status: 503,
        });
      },
    });
    const { status, headers, body } = await over.send({ ...GET, target: "/app/a" });
    assertEquals([status, text(body)], [503, "broken GET /a /a"]);
    assertEquals(headers.get("x-protocol"), transport.toLowerCase());
    const [[request], [, same]] = given;
    assertStrictEquals(same, request);
  });
}

// An app fits if this compiles.
const _fits: App[] = [
  (_request: Request, info: Deno.ServeHandlerInfo<Deno.NetAddr>) =>
    new Response(info.remoteAddr.hostname),
  (_request: Request, info: Deno.ServeHandlerInfo<Deno.Addr>) =>
    new Response(info.remoteAddr.transport),
  { fetch: (() => new Response()) satisfies Deno.ServeHandler<Deno.NetAddr> },
  { fetch: () => new Response() } satisfies Deno.ServeDefaultExport,
];

const LOGS: Record<string, () => void> = {
  "throws": () => {
    throw new Error("broken");
  },
  "rejects": () => Promise.reject(new Error("broken")),
  "never ends": () => new Promise(() => {}),
};

/** Apps that make a server log something, and the status of their response. */
const NOISY: [App, number][] = [
  [(_request, info) => {
    info.log("a line");
    return new Response("sent");
  }, 200],
  [(_request, info) => {
    info.log(Object.create(null));
    return new Response("sent");
  }, 200],
  [() => {
    throw new Error("the app");
  }, 500],
  [() => new Response("sent", { headers: { location: "/x", "content-length": "9" } }), 200],
  [() => new Response("sent", { headers: { "x-a": "x".repeat(5000) } }), 200],
];

const SERVERS = {
  FastCGI: (app: App, log: () => void) =>
    serveFastCGI(app, Deno.listen({ hostname: "127.0.0.1", port: 0 }), { log, logTo: "both" }),
  SCGI: (app: App, log: () => void) =>
    serveSCGI(app, Deno.listen({ hostname: "127.0.0.1", port: 0 }), { log }),
  HTTP: (app: App, log: () => void) =>
    serveHTTP(app, { hostname: "127.0.0.1", port: 0, onListen() {}, log }),
};

for (const [transport, start] of Object.entries(SERVERS)) {
  for (const [name, log] of Object.entries(LOGS)) {
    Deno.test(`${transport}: a log that ${name} changes no response`, async () => {
      using _ = silence();
      for (const [app, status] of NOISY) {
        await using server = start(app, log);
        const { port } = server.addr as Deno.NetAddr;
        for (let turn = 0; turn < 2; turn++) {
          const response = transport === "HTTP"
            ? await fetch(`http://127.0.0.1:${port}/`)
            : await fetchOver(transport, port);
          await response.body?.cancel();
          assertEquals(response.status, status);
        }
      }
    });
  }
}

async function fetchOver(transport: string, port: number): Promise<Response> {
  const { fetchFastCGI, fetchSCGI } = await import("../../gateway.ts");
  const send = transport === "FastCGI" ? fetchFastCGI : fetchSCGI;
  return await deadline(send("http://localhost/", `127.0.0.1:${port}`), "the response");
}

for (const [name, make] of Object.entries(VALUES)) {
  Deno.test(`a gateway whose options throw ${name} responds with 500, or 400 for the body`, async () => {
    using _ = silence();
    const fails = () => {
      throw make();
    };
    await using server = serveFastCGI(
      () => new Response(),
      Deno.listen({ hostname: "127.0.0.1", port: 0 }),
    );
    const address = `127.0.0.1:${(server.addr as Deno.NetAddr).port}`;
    using gateway = fastCGIGateway(address, { variables: fails, log: fails });
    assertEquals((await gateway(new Request("http://localhost/"))).status, 500);
    using plain = fastCGIGateway(address, { log: fails });
    if (make === revoked) return;
    const body = new ReadableStream({
      start(controller) {
        controller.enqueue(bytes("x"));
        controller.error(make());
      },
    });
    const request = new Request("http://localhost/", { method: "POST", body });
    assertEquals((await deadline(plain(request), "the response")).status, 400);
  });
}
