/** Transports for the conformance tests: each serves an app and sends requests to it. */
import { assertEquals } from "@std/assert";
import type { App, AppOptions } from "../../bridge/app.ts";
import { serveFastCGI } from "../../fastcgi.ts";
import { serveHTTP } from "../../http.ts";
import { serveSCGI } from "../../scgi.ts";
import { encodeSCGIHeaders } from "../../wire/scgi.ts";
import { type ParsedResponse, parseResponse } from "../testing/response.ts";
import { bytes, concat, text } from "../testing/bytes.ts";
import { run, runScript } from "../testing/cgi_script.ts";
import { deadline } from "../testing/deadline.ts";
import { FastCGIClient, request as fastCGIRequest } from "../testing/fastcgi_client.ts";
import { type OtherRuntime, packaged, RuntimeDaemon } from "../testing/runtimes.ts";
import app, { OPTION_SETS } from "./app.ts";

/** A request as a client sends it. */
export interface ClientRequest {
  method: string;
  /** Path and query as in the request line. */
  target: string;
  /** Names and values; a name may be repeated. `Host` defaults to example.org:8080. */
  headers: [name: string, value: string][];
  body?: Uint8Array;
}

export interface Transport extends AsyncDisposable {
  send(request: ClientRequest): Promise<ParsedResponse>;
}

/** Every transport: starts the conformance app with the option set of a name. */
export const TRANSPORTS: Record<string, (options: string) => Transport> = {
  CGI: (options) => ({
    send: (request) => sendToScript(request, options),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  }),
  FastCGI: (options) => overFastCGI(app, OPTION_SETS[options]),
  SCGI: (options) => overSCGI(app, OPTION_SETS[options]),
  HTTP: (options) => overHTTP(app, OPTION_SETS[options]),
};

/** Options that all transports have. */
export interface Options extends AppOptions {
  log?: (message: string) => void;
}

/** Every transport, for any app in this process. */
export const IN_PROCESS: Record<string, (app: App, options?: Options) => Transport> = {
  CGI: (app, options) => ({
    send: (request) => run(app, variablesOf(request), request.body, options),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  }),
  FastCGI: overFastCGI,
  SCGI: overSCGI,
  HTTP: overHTTP,
};

/** `Deno.serve` itself, which the tests compare the transports with. */
export function overDenoServe(
  handler: (request: Request, info: Deno.ServeHandlerInfo) => Response | Promise<Response>,
): Transport {
  const server = Deno.serve({
    hostname: "127.0.0.1",
    port: 0,
    onListen: () => {},
    onError: () => new Response("500 Internal Server Error\n", { status: 500 }),
  }, handler);
  return overTCP(server, server.addr, sendHTTP);
}

function overFastCGI(app: App, options?: Options): Transport {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const server = serveFastCGI(app, listener, { log: () => {}, logTo: "log", ...options });
  return overTCP(server, listener.addr, sendFastCGI);
}

function overSCGI(app: App, options?: Options): Transport {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const server = serveSCGI(app, listener, { log: () => {}, ...options });
  return overTCP(server, listener.addr, sendSCGI);
}

function overHTTP(app: App, options?: Options): Transport {
  const server = serveHTTP(app, {
    ...options,
    hostname: "127.0.0.1",
    port: 0,
    onListen: () => {},
  });
  return overTCP(server, server.addr, sendHTTP);
}

function overTCP(
  server: { shutdown(): Promise<void> },
  { port }: Deno.NetAddr,
  send: (conn: Deno.Conn, request: ClientRequest) => Promise<ParsedResponse>,
): Transport {
  return {
    async send(request) {
      const conn = await Deno.connect({ hostname: "127.0.0.1", port });
      try {
        return await send(conn, request);
      } finally {
        conn.close();
      }
    },
    [Symbol.asyncDispose]: () => deadline(server.shutdown(), "the server's end"),
  };
}

function allHeaders({ headers, body }: ClientRequest): [name: string, value: string][] {
  const has = (wanted: string) => headers.some(([name]) => name.toLowerCase() === wanted);
  return [
    ...(has("host") ? [] : [["Host", "example.org:8080"] as [string, string]]),
    ...headers,
    ...(body ? [["Content-Length", String(body.length)] as [string, string]] : []),
  ];
}

/** Returns a request's variables, as a web server sends them (RFC 3875 section 4.1); joins repeated fields. */
function variablesOf(request: ClientRequest): Record<string, string> {
  const [path, query = ""] = request.target.replace(/^http:\/\/[^/?]*/, "").split(/\?(.*)/s);
  const variables: Record<string, string> = {
    GATEWAY_INTERFACE: "CGI/1.1",
    SERVER_PROTOCOL: "HTTP/1.1",
    SERVER_SOFTWARE: "test",
    SERVER_NAME: "example.org",
    SERVER_PORT: "8080",
    REMOTE_ADDR: "127.0.0.1",
    REMOTE_PORT: "4711",
    REQUEST_METHOD: request.method,
    REQUEST_URI: request.target,
    QUERY_STRING: query,
    SCRIPT_NAME: "",
    PATH_INFO: path.replace(
      /%(?!00)([0-7][0-9a-f])/gi,
      (_, hex) => String.fromCharCode(parseInt(hex, 16)),
    ),
  };
  for (const [name, value] of allHeaders(request)) {
    const known = /^content-(?:type|length)$/i.test(name);
    const variable = (known ? "" : "HTTP_") + name.replaceAll("-", "_").toUpperCase();
    const joint = variable === "HTTP_COOKIE" ? "; " : ", ";
    const before = variables[variable];
    variables[variable] = before === undefined ? value : before + joint + value;
  }
  return variables;
}

function sendToScript(
  request: ClientRequest,
  options: string,
  runtime?: OtherRuntime,
): Promise<ParsedResponse> {
  const env = { ...variablesOf(request), CONFORMANCE_OPTIONS: options };
  if (runtime === undefined) {
    return runScript(new URL("./script.ts", import.meta.url), env, request.body);
  }
  const script = new URL(`file://${packaged(runtime, "tests/conformance/script.ts")}`);
  return runScript(script, env, request.body, { program: runtime.command });
}

/** The transports that an app on another runtime has. */
export function transportsOn(
  runtime: OtherRuntime,
): Record<string, (options: string) => Promise<Transport>> {
  return {
    CGI: (options) =>
      Promise.resolve({
        send: (request) => sendToScript(request, options, runtime),
        [Symbol.asyncDispose]: () => Promise.resolve(),
      }),
    FastCGI: (options) => overDaemon(runtime, "fastcgi", options, sendFastCGI),
    SCGI: (options) => overDaemon(runtime, "scgi", options, sendSCGI),
  };
}

async function overDaemon(
  runtime: OtherRuntime,
  protocol: string,
  options: string,
  send: (conn: Deno.Conn, request: ClientRequest) => Promise<ParsedResponse>,
): Promise<Transport> {
  const program = packaged(runtime, "tests/conformance/daemon.ts");
  const daemon = new RuntimeDaemon(runtime, [program, protocol, options]);
  const { port } = await daemon.listening;
  const shutdown = async () => {
    daemon.kill("SIGTERM");
    assertEquals(await daemon.ended, 0, daemon.log);
  };
  return overTCP({ shutdown }, { transport: "tcp", hostname: "127.0.0.1", port }, send);
}

async function sendFastCGI(conn: Deno.Conn, request: ClientRequest): Promise<ParsedResponse> {
  const client = new FastCGIClient(conn);
  const sent = client.send(
    fastCGIRequest({ variables: Object.entries(variablesOf(request)), body: request.body }),
  );
  const response = await client.response();
  await sent;
  return response;
}

async function sendSCGI(conn: Deno.Conn, request: ClientRequest): Promise<ParsedResponse> {
  const { CONTENT_LENGTH = "0", ...others } = variablesOf(request);
  const head = encodeSCGIHeaders(
    Object.entries({ CONTENT_LENGTH, SCGI: "1", ...others }),
  );
  return parseResponse(await converse(conn, concat([head, request.body ?? new Uint8Array()])));
}

/** Sends a request and reads the response at the same time. */
async function converse(conn: Deno.Conn, request: Uint8Array): Promise<Uint8Array> {
  const sending = (async () => {
    for (let at = 0; at < request.length;) at += await conn.write(request.subarray(at));
  })();
  const parts: Uint8Array[] = [];
  while (true) {
    const buffer = new Uint8Array(65536);
    const count = await deadline(conn.read(buffer), "the response");
    if (count === null) break;
    parts.push(buffer.subarray(0, count));
  }
  await sending;
  return concat(parts);
}

async function sendHTTP(conn: Deno.Conn, request: ClientRequest): Promise<ParsedResponse> {
  const { method, target, body = new Uint8Array() } = request;
  const lines = allHeaders(request).map(([name, value]) => `${name}: ${value}\r\n`).join("");
  const head = `${method} ${target} HTTP/1.1\r\n${lines}Connection: close\r\n\r\n`;
  const response = parseResponse(await converse(conn, concat([bytes(head), body])));
  if (response.headers.get("transfer-encoding") === "chunked") {
    response.body = dechunk(response.body);
  }
  return response;
}

function dechunk(chunked: Uint8Array): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [];
  for (let at = 0;;) {
    const line = text(chunked.subarray(at, at + 20)).split("\r\n")[0];
    const length = parseInt(line, 16);
    // The last chunk, or a truncated body.
    if (!(length > 0)) return concat(parts);
    at += line.length + 2;
    parts.push(chunked.subarray(at, at + length));
    at += length + 2;
  }
}
