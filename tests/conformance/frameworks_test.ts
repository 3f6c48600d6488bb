/** Frameworks must behave over each transport as under `Deno.serve`. */
import { createRouter } from "@remix-run/fetch-router";
import {
  createServerAdapter,
  useCORS,
  useErrorHandling,
  useLimitRequestBodySize,
  useRequestDeadline,
} from "@whatwg-node/server";
import { assertEquals } from "@std/assert";
import { Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import { HTTPException } from "hono/http-exception";
import { methodOverride } from "hono/method-override";
import { serve } from "srvx";
import type { HandlerInfo } from "../../bridge/app.ts";
import { bytes, text } from "../testing/bytes.ts";
import { type ClientRequest, IN_PROCESS, overDenoServe } from "./transports.ts";
import { silence } from "../testing/silence.ts";

type Fetch = (request: Request, info: Deno.ServeHandlerInfo) => Response | Promise<Response>;

const createRequest = (
  method: string,
  target: string,
  headers: Record<string, string> = {},
  body?: string,
): ClientRequest => ({
  method,
  target,
  headers: Object.entries(headers),
  ...(body === undefined ? {} : { body: bytes(body) }),
});

const FORWARDED = {
  "X-Forwarded-Proto": "https",
  "X-Forwarded-Host": "www.example",
  "X-Forwarded-For": "198.51.100.1, 127.0.0.1",
};
const FORM = { "Content-Type": "application/x-www-form-urlencoded" };

/** The requests that every framework receives. */
const REQUESTS: Record<string, ClientRequest> = {
  "GET": createRequest("GET", "/seen/1?a=b"),
  "GET with headers": createRequest("GET", "/seen/1", { "X-A": "1", "Cookie": "a=1; b=2" }),
  "GET through a proxy": createRequest("GET", "/seen/2?a=b", FORWARDED),
  "POST": createRequest("POST", "/seen/3", { "Content-Type": "text/plain" }, "body"),
  "POST through a proxy": createRequest("POST", "/seen/3", FORWARDED, "body"),
  "POST of a body past the limit": createRequest("POST", "/seen/4", {}, "body".repeat(100)),
  "PUT without a body": createRequest("PUT", "/seen/5", { "Content-Length": "0" }),
  "HEAD": createRequest("HEAD", "/seen/6"),
  "OPTIONS from another origin": createRequest("OPTIONS", "/seen/7", {
    "Origin": "http://other.example",
    "Access-Control-Request-Method": "PUT",
  }),
  "GET from another origin": createRequest("GET", "/seen/7", { "Origin": "http://other.example" }),
  "a form": createRequest("POST", "/form", FORM, "a=1&b=caf%C3%A9"),
  "a form with another method": createRequest("POST", "/form", FORM, "_method=DELETE&a=1"),
  "an echo": createRequest("POST", "/echo", {}, "body"),
  "a wrapped request": createRequest("POST", "/wrapped", { "X-A": "1" }, "body"),
  "an error": createRequest("GET", "/throw"),
  "a path without a route": createRequest("GET", "/elsewhere"),
};

/** Returns the request as a handler sees it. */
async function seen(request: Request, more: Record<string, unknown> = {}): Promise<Response> {
  const clone = request.clone();
  const body = await request.text();
  return Response.json({
    url: request.url,
    method: request.method,
    x: request.headers.get("x-a"),
    cookie: request.headers.get("cookie"),
    aborted: request.signal.aborted,
    signal: request.signal instanceof AbortSignal,
    body,
    // `Deno.serve` creates a stream for an empty body (docs/differences.md).
    used: body !== "" && request.bodyUsed,
    clone: [clone.url, clone.method, await clone.text()],
    ...more,
  }, { headers: { "x-framework": "1" } });
}

/** Creates requests from a request, as middleware does. */
async function wrapped(request: Request): Promise<Response> {
  const copy = new Request(request, { headers: { "x-b": "2" } });
  const moved = new Request(new URL("/moved", request.url), copy);
  return Response.json([
    copy.url,
    copy.headers.get("x-a"),
    moved.url,
    moved.method,
    moved.headers.get("x-b"),
    await moved.text(),
    request.bodyUsed,
  ]);
}

function echo(body: BodyInit | null): Response {
  return new Response(body, { status: 201, headers: { "content-type": "text/plain" } });
}

async function form(request: Request): Promise<Response> {
  return Response.json([request.method, ...await request.formData()]);
}

async function route(request: Request, more: Record<string, unknown>): Promise<Response> {
  switch (new URL(request.url).pathname.split("/")[1]) {
    case "seen":
      return await seen(request, more);
    case "form":
      return await form(request);
    case "echo":
      return echo(request.body);
    case "wrapped":
      return await wrapped(request);
    case "throw":
      throw new Error("the secret");
    default:
      return new Response("nothing", { status: 404 });
  }
}

function srvx(): Fetch {
  const server = serve({
    manual: true,
    silent: true,
    gracefulShutdown: false,
    trustProxy: "loopback",
    middleware: [(request, next) => {
      request.context = { visited: true };
      return next();
    }],
    fetch: (request) =>
      route(request, {
        ip: request.ip,
        runtime: request.runtime?.name,
        peer: (request.runtime?.deno?.info.remoteAddr as Deno.NetAddr).hostname,
        context: request.context,
        waitUntil: typeof request.waitUntil,
        own: Object.keys(request).sort(),
      }),
    error: () => new Response("caught", { status: 500 }),
  });
  return server.fetch as Fetch;
}

function whatwg(): Fetch {
  const signals = new WeakMap<Request, AbortSignal>();
  const adapter = createServerAdapter<{ info: Deno.ServeHandlerInfo }>(
    (request, { info, waitUntil }) => {
      const { hostname, transport } = info.remoteAddr as Deno.NetAddr;
      return route(request, {
        peer: [hostname, transport],
        waitUntil: typeof waitUntil,
        completed: info.completed instanceof Promise,
        // useRequestDeadline() replaces the request's signal.
        signalReplaced: request.signal !== signals.get(request),
      });
    },
    {
      plugins: [
        { onRequest: ({ request }) => void signals.set(request, request.signal) },
        useErrorHandling(() => new Response("caught", { status: 500 })),
        useCORS({ origin: "http://other.example" }),
        useLimitRequestBodySize(200),
        useRequestDeadline({
          timeout: 60_000,
          response: () => new Response(null, { status: 504 }),
        }),
      ],
    },
  );
  return (request, info) => adapter.fetch(request, { info });
}

function remix(): Fetch {
  const router = createRouter({
    middleware: [async (context, next) => {
      context.headers.set("x-a", "changed");
      const response = await next();
      response.headers.set("x-url", context.url.href);
      return response;
    }],
  });
  router.route(
    "ANY",
    "/seen/:id",
    ({ request, params, headers, method }) =>
      seen(request, { params, changed: headers.get("x-a"), contextMethod: method }),
  );
  router.post("/form", ({ request }) => form(request));
  router.post("/echo", ({ request }) => echo(request.body));
  router.post("/wrapped", ({ request }) => wrapped(request));
  router.get("/throw", () => {
    throw new Error("the secret");
  });
  return (request) => router.fetch(request);
}

/** As a `Deno.serve` handler, the router creates a request from its two arguments, with `info` as a RequestInit. */
function remixAsHandler(): Fetch {
  const router = createRouter();
  router.route("ANY", "/seen/:id", ({ request, params }) => seen(request, { params }));
  router.post("/form", ({ request }) => form(request));
  router.post("/echo", ({ request }) => echo(request.body));
  router.post("/wrapped", ({ request }) => wrapped(request));
  return (request, info) => router.fetch(request, info as RequestInit);
}

function hono(): Fetch {
  const app = new Hono<{ Bindings: Deno.ServeHandlerInfo }>();
  app.use("/seen/*", bodyLimit({ maxSize: 200 }));
  app.use("/form", methodOverride({ app }));
  app.all("/seen/:id", (c) =>
    seen(c.req.raw, {
      id: c.req.param("id"),
      query: c.req.query(),
      peer: (c.env.remoteAddr as Deno.NetAddr).hostname,
    }));
  app.on(["POST", "DELETE"], "/form", async (c) => c.json([c.req.method, await c.req.parseBody()]));
  app.post("/echo", (c) => echo(c.req.raw.body));
  app.post("/wrapped", (c) => wrapped(c.req.raw));
  app.get("/throw", () => {
    throw new Error("the secret");
  });
  app.onError((error, c) =>
    error instanceof HTTPException ? error.getResponse() : c.text("caught", 500)
  );
  return (request, info) => app.fetch(request, info);
}

for (const [transport, start] of Object.entries(IN_PROCESS)) {
  Deno.test(`hono: c.env is the info, over ${transport}`, async () => {
    const app = new Hono<{ Bindings: HandlerInfo }>();
    app.get(
      "*",
      ({ env }) => new Response([env.protocol, env.pathInfo, env.remoteAddr.hostname].join(" ")),
    );
    await using over = start(app);
    const { body } = await over.send({ method: "GET", target: "/a", headers: [] });
    assertEquals(text(body), `${transport.toLowerCase()} /a 127.0.0.1`);
  });
}

const FRAMEWORKS = { srvx, whatwg, remix, remixAsHandler, hono };

/** Header fields that differ between servers. */
const SERVER_FIELDS = ["connection", "content-length", "date", "transfer-encoding", "vary"];

for (const [framework, make] of Object.entries(FRAMEWORKS)) {
  for (const [transport, start] of Object.entries(IN_PROCESS)) {
    Deno.test(`${framework} behaves over ${transport} as under Deno.serve`, async (t) => {
      using _ = silence();

      await using native = overDenoServe(make());
      await using ours = start(make());
      for (const [name, request] of Object.entries(REQUESTS)) {
        await t.step(name, async () => {
          const [expected, actual] = await Promise.all([native, ours].map(async (over) => {
            const { status, headers, body } = await over.send(request);
            const fields = [...headers].filter(([name]) => !SERVER_FIELDS.includes(name));
            // Each server has its own page for an error that the app does not catch.
            const uncaught = status === 500 && !text(body).includes("caught");
            return { status, ...(uncaught ? {} : { fields, body: text(body) }) };
          }));
          assertEquals(actual, expected);
          assertEquals(
            expected.status === 500,
            name === "an error" && framework !== "remixAsHandler",
          );
        });
      }
    });
  }
}
