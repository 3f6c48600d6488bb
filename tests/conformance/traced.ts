/** A program that exports telemetry: serves the requests of telemetry_test.ts over the transport that its argument names. */
import type { AppOptions, FilterInfo } from "../../bridge/app.ts";
import { serveCGI } from "../../cgi.ts";
import { serveFastCGI } from "../../fastcgi.ts";
import { serveSCGI } from "../../scgi.ts";
import { RecordType, Role } from "../../wire/fastcgi.ts";
import { encodeSCGIHeaders } from "../../wire/scgi.ts";
import { bytes } from "../testing/bytes.ts";
import { deadline } from "../testing/deadline.ts";
import { FastCGIClient, request as fastCGIRequest } from "../testing/fastcgi_client.ts";
import { stream as fileStream, streamEnd } from "../testing/fastcgi_records.ts";
import { type ClientRequest, IN_PROCESS, overDenoServe } from "./transports.ts";

const { contextManager, tracerProvider } = Deno.telemetry;
const tracer = tracerProvider.getTracer("app");
const active = () => contextManager.active().getValue(Symbol.for("OpenTelemetry Context Key SPAN"));
const turn = () => new Promise((resolve) => setTimeout(resolve, 0));
/** Exports a span whose parent is the active one. */
const mark = (name: string) => tracer.startSpan(name).end();

/** A stream of three chunks, each after a turn of the event loop. */
function stream(pulled = (left: number) => mark(`pull ${left}`)): ReadableStream<Uint8Array> {
  let left = 3;
  return new ReadableStream({
    async pull(controller) {
      await turn();
      pulled(left);
      if (left-- === 0) controller.close();
      else controller.enqueue(bytes("abc"));
    },
  }, { highWaterMark: 0 });
}

const late = Promise.withResolvers<void>();
const begun = Promise.withResolvers<void>();

async function handler(request: Request): Promise<Response> {
  switch (new URL(request.url).pathname) {
    case "/nested":
      mark("before");
      await turn();
      queueMicrotask(() => mark("microtask"));
      await request.text();
      mark("after");
      return new Response("ok");
    case "/stream":
      return new Response(stream(), { status: 201 });
    case "/logged":
      console.log("begun");
      await turn();
      console.log("after a turn");
      queueMicrotask(() => console.log("microtask"));
      return new Response(stream(() => console.log("pulled")));
    case "/memory":
      return new Response("hello", { status: 202 });
    case "/echo":
      return new Response(await request.bytes(), { status: 203 });
    case "/missing":
      return new Response("none", { status: 404 });
    case "/broken":
      return new Response("broken", { status: 503, statusText: "Out of order" });
    case "/thrown":
      throw new Error("the secret");
    case "/used": {
      const response = new Response("used");
      await response.text();
      return response;
    }
    case "/route":
      active().setAttribute("http.route", "/:name").updateName("GET /:name");
      return new Response("ok");
    case "/routes":
      active().setAttributes({ "http.route": "/:names", "app.n": "1" });
      return new Response("ok");
    case "/baggage": {
      const baggage = contextManager.active().getValue(Symbol.for("OpenTelemetry Baggage Key"));
      active().setAttribute("app.user", baggage.getEntry("user").value);
      return new Response("ok");
    }
    case "/expired":
      await new Promise<void>((resolve) => {
        request.signal.addEventListener("abort", () => {
          mark("aborted");
          resolve();
        });
      });
      throw request.signal.reason;
    case "/left":
      await new Promise<void>((resolve) => {
        request.signal.addEventListener("abort", () => {
          mark("aborted");
          resolve();
        });
        begun.resolve();
      });
      await turn();
      mark("late");
      late.resolve();
      return new Response("late");
    case "/cancelled":
      request.signal.addEventListener("abort", () => mark("aborted"));
      return new Response(
        new ReadableStream({
          async pull(controller) {
            await turn();
            controller.enqueue(new Uint8Array(1024));
            begun.resolve();
          },
          cancel() {
            mark("cancelled");
            late.resolve();
          },
        }, { highWaterMark: 0 }),
      );
    default:
      return new Response("ok");
  }
}

const traceparent = (flags: string) =>
  `00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-${flags}`;
const get = (target: string, ...headers: [string, string][]): ClientRequest => ({
  method: "GET",
  target,
  headers,
});
const REQUESTS: ClientRequest[] = [
  get("/?token=abc&x=%20y&flag"),
  get("/"),
  { ...get("/"), method: "HEAD" },
  { ...get("/"), method: "BREW" },
  { ...get("/nested"), method: "POST", body: bytes("text") },
  get("/stream"),
  get("/memory"),
  { ...get("/echo"), method: "POST", body: bytes("hello") },
  get("/missing"),
  get("/broken"),
  get("/thrown"),
  get("/used"),
  get("/route"),
  get("/routes"),
  get("/baggage", ["baggage", "user=anna,group=1"]),
  get("/sampled", ["traceparent", traceparent("01")], ["tracestate", "a=b"]),
  get("/unsampled", ["traceparent", traceparent("00")]),
  get("/malformed", ["traceparent", "00-0-0-0"]),
];

async function sendAll(transport: string, options?: AppOptions): Promise<void> {
  await using over = transport === "Deno.serve"
    ? overDenoServe(handler)
    : IN_PROCESS[transport](handler, options);
  for (const request of REQUESTS) await over.send(request);
}

async function sendLogged(transport: string): Promise<void> {
  await using over = transport === "Deno.serve"
    ? overDenoServe(handler)
    : IN_PROCESS[transport](handler);
  await over.send(get("/logged"));
}

/** Sends a request that creates no URL. */
async function sendInvalid(transport: string): Promise<void> {
  await using over = IN_PROCESS[transport](handler);
  await over.send(get("/", ["Host", "a b"]));
}

/** Sends a request whose app takes too long. */
async function expire(transport: string): Promise<void> {
  await using over = IN_PROCESS[transport](handler, { requestTimeout: 1 });
  await over.send(get("/expired"));
  await turn();
}

const usual = {
  REQUEST_METHOD: "GET",
  SERVER_PROTOCOL: "HTTP/1.1",
  HTTP_HOST: "example.org:8080",
};
/** Servers that notice that a client leaves: what it sends for a path, and how they are started. */
const LEAVING: Record<
  string,
  {
    sent(path: string): Uint8Array;
    start(listener: Deno.UnixListener, path: string): AsyncDisposable;
  }
> = {
  "Deno.serve": {
    sent: (path) => bytes(`GET ${path} HTTP/1.1\r\nHost: example.org:8080\r\n\r\n`),
    start(listener, path) {
      listener.close();
      return Deno.serve({ path, onListen() {} }, handler);
    },
  },
  FastCGI: {
    sent: (path) => fastCGIRequest({ variables: { ...usual, REQUEST_URI: path } }),
    start: (listener) => serveFastCGI(handler, listener, { log() {} }),
  },
  SCGI: {
    sent: (path) =>
      encodeSCGIHeaders(
        Object.entries({ CONTENT_LENGTH: "0", SCGI: "1", ...usual, REQUEST_URI: path }),
      ),
    start: (listener) => serveSCGI(handler, listener, { log() {} }),
  },
};

/** Sends a request and leaves once the handler runs. */
async function leave(transport: string, target: string): Promise<void> {
  const path = `${Deno.makeTempDirSync()}/socket`;
  const { sent, start } = LEAVING[transport];
  await using _server = start(Deno.listen({ transport: "unix", path }), path);
  const conn = await Deno.connect({ transport: "unix", path });
  await conn.write(sent(target));
  await deadline(begun.promise, "the handler");
  conn.close();
  await deadline(late.promise, "the handler's end");
  await turn();
}

/** Runs a script whose client leaves once the response has begun. */
async function leaveScript(target: string): Promise<void> {
  let written = 0;
  const write = (bytes: Uint8Array) => {
    if (written++ > 0) throw new Deno.errors.BrokenPipe("Broken pipe");
    return bytes.length;
  };
  await serveCGI(handler, {
    env: { ...usual, SERVER_NAME: "example.org", REQUEST_URI: target, PATH_INFO: target },
    stdin: { read: () => Promise.resolve(null) },
    stdout: { writeSync: write, write: async (bytes) => await write(bytes) },
    stderr: { write: (bytes) => Promise.resolve(bytes.length) },
  });
  await deadline(late.promise, "the end of the body");
}

/** Sends requests in FastCGI's other roles, and one in a role that throws. */
async function sendRoles(): Promise<void> {
  const app = {
    fetch: handler,
    async authorize(request: Request) {
      mark("authorize");
      await turn();
      mark("after a turn");
      if (request.url.endsWith("/thrown")) throw new Error("the secret");
      return new Response("no", { status: 403 });
    },
    async filter(request: Request, info: FilterInfo) {
      await request.text();
      await new Response(info.data).text();
      mark("filter");
      return new Response("filtered", { status: 206 });
    },
  };
  const path = `${Deno.makeTempDirSync()}/socket`;
  const listener = Deno.listen({ transport: "unix", path });
  await using _server = serveFastCGI(app, listener, { log() {} });
  using client = new FastCGIClient(await Deno.connect({ transport: "unix", path }));
  const { authorizer, filter } = Role;
  for (const target of ["/authorized", "/thrown"]) {
    const variables = { ...usual, REQUEST_URI: target };
    await client.send(fastCGIRequest({ role: authorizer, keep: true, variables }));
    await client.response();
  }
  const file = { FCGI_DATA_LENGTH: "4", FCGI_DATA_LAST_MOD: "1700000000" };
  const variables = { ...usual, ...file, REQUEST_URI: "/filtered" };
  await client.send(fastCGIRequest({ role: filter, keep: true, variables }));
  await client.send(fileStream(RecordType.data, 1, bytes("file")), streamEnd(RecordType.data, 1));
  await client.response();
  await turn();
}

const [what, transport] = Deno.args;
console.error = () => {};
if (what === "all") await sendAll(transport);
if (what === "logged") await sendLogged(transport);
if (what === "redacted") await sendAll(transport, { redactQuery: true });
if (what === "mounted") await sendAll(transport, { basePath: "/nested" });
if (what === "invalid") await sendInvalid(transport);
if (what === "expired") await expire(transport);
if (what === "roles") await sendRoles();
if (what === "cancelled" && transport === "CGI") await leaveScript(`/${what}`);
else if (what === "left" || what === "cancelled") await leave(transport, `/${what}`);
