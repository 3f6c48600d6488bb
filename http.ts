/**
 * Serves an app over HTTP with `Deno.serve`, and with the same `info` as the other transports.
 *
 * @module
 */

import type { App, AppOptions, Handler, HandlerInfo, Protocol } from "./bridge/app.ts";
import { checkNumbers } from "./io/check_numbers.ts";
import { describeError } from "./io/describe.ts";
import { isTrusted, remoteAddress, trustedForwarded } from "./server/forwarded.ts";
import { errorResponse } from "./server/error_response.ts";
import { plainResponse } from "./bridge/plain_response.ts";
import { checkRequestOptions, CLIENT_CLOSED } from "./server/exchange.ts";
import { HTTPCompletion, LONG } from "./server/http_completion.ts";
import { HTTPDeadline } from "./server/http_deadline.ts";
import { type Limited, moveRequest, withHost } from "./server/moved_request.ts";
import { hasLeft, TRACED } from "./io/private_fields.ts";
import { chooseRequestId } from "./server/request_id.ts";
import {
  decodePath,
  decodePercent,
  isAuthority,
  NO_REQUEST,
  requestURL,
} from "./bridge/request.ts";
import { toHandler } from "./server/respond.ts";
import { openSlowLog } from "./server/slow_log.ts";
import { checkHeaders, checkResponse } from "./server/response_head.ts";
import { createVariables, requestURI } from "./bridge/request_variables.ts";
import type { Addr, NetAddr, UnixAddr } from "./io/addr.ts";
import { DEFAULT_PORTS } from "./io/address.ts";
import { type LogFunction, safeLog } from "./io/log.ts";
import { type ListenOptions, openNamed, openUnixSocket } from "./io/listen.ts";
import { MAX_DELAY } from "./io/max_delay.ts";
import { type DenoOnly, type HTTPServer, requireDeno, type ServeInfo } from "./io/runtime.ts";
import { SHUTDOWN_TIMEOUT } from "./io/timeouts.ts";
import type { ServerOptions } from "./server/server.ts";
import { createURLVariables } from "./server/url_variables.ts";
import { ProtocolError } from "./wire/protocol_error.ts";
import { Ticker, tickFor } from "./io/ticker.ts";
import { Variables } from "./wire/variables.ts";

export type {
  App,
  AppObject,
  AppOptions,
  CompletedRequest,
  Handler,
  HandlerInfo,
  Protocol,
} from "./bridge/app.ts";
export type { Addr, NetAddr, UnixAddr, VsockAddr } from "./io/addr.ts";
export type { HTTPServer } from "./io/runtime.ts";

/** Options of {@linkcode serveHTTP}: those of `Deno.serve`, and those that all transports share. */
export interface HTTPOptions
  extends
    AppOptions,
    Pick<ServerOptions, "shutdownTimeout" | "log" | "signal">,
    Pick<ListenOptions, "mode" | "group"> {
  /**
   * The address to listen on.
   *
   * @default "127.0.0.1", or "0.0.0.0" with `allowRemote`
   */
  hostname?: string;
  /**
   * Listens where other machines can connect, unless `hostname` says otherwise.
   *
   * @default false
   */
  allowRemote?: boolean;
  /**
   * The port to listen on, from 1; 0 for any that is free.
   *
   * @default 8000
   */
  port?: number;
  /**
   * Whether other sockets may listen on the same port (`SO_REUSEPORT`).
   *
   * @default false
   */
  reusePort?: boolean;
  /**
   * How many connections may wait until they are accepted, from 1.
   *
   * @default 511
   */
  tcpBacklog?: number;
  /**
   * Whether responses are compressed where the client accepts this and the type is compressible.
   *
   * @default false
   */
  automaticCompression?: boolean;
  /**
   * Called with the address once the server listens.
   *
   * @default a line on the console
   */
  onListen?: (addr: Addr) => void;
  /**
   * The path of a Unix socket to listen on, instead of `hostname` and `port`, with `mode` and `group`. A file that is
   * there, such as that of a server that was killed, makes it fail.
   *
   * @default undefined
   */
  path?: string;
}

/** The status of the response that `Deno.upgradeWebSocket` creates. No other response can have it. */
const SWITCHING_PROTOCOLS = 101;
/** Matches an Upgrade field that `Deno.upgradeWebSocket` accepts, but not that of a client that offers HTTP/2. */
const WEBSOCKET = /(?:^|,)\s*websocket\s*(?:,|$)/i;
/** Matches what may be a dot segment. `Deno.serve` leaves these in the URL, `Request` resolves them (rule A14). */
const DOTS = /\/(?:\.|%2e)/i;

/**
 * Serves an app with `Deno.serve` on a Unix socket.
 *
 * @param app A handler, or an object with `fetch`.
 * @returns The server.
 * @throws {RangeError} If a limit or timeout is negative or NaN.
 * @throws {TypeError} If `basePath` or `trustForwarded` is invalid.
 *
 * @example
 * ```ts no-assert
 * import { serveHTTP } from "@gatehouse/cgi/http";
 *
 * const path = `${await Deno.makeTempDir()}/app.sock`;
 * const server = serveHTTP(() => new Response("Hello"), { path, onListen() {} });
 * await server.shutdown();
 * ```
 */
export function serveHTTP(
  app: App,
  options: HTTPOptions & { path: string },
): HTTPServer<UnixAddr>;
/**
 * Serves an app with `Deno.serve`.
 *
 * @param app A handler, or an object with `fetch`. It may call `Deno.upgradeWebSocket`.
 * @returns The server. Its `shutdown()` and `finished` reject if requests do not end within `shutdownTimeout`: Deno
 * cannot abort them, so the caller must end the process.
 * @throws {RangeError} If a limit or timeout is negative or NaN.
 * @throws {TypeError} If `basePath` or `trustForwarded` is invalid.
 *
 * @example
 * ```ts no-assert
 * import { serveHTTP } from "@gatehouse/cgi/http";
 *
 * const server = serveHTTP(
 *   (_request, info) => new Response(info.protocol),
 *   { hostname: "127.0.0.1", port: 0, onListen: () => {} },
 * );
 * await server.shutdown();
 * ```
 */
export function serveHTTP(app: App, options?: HTTPOptions): HTTPServer<NetAddr>;
export function serveHTTP(app: App, options: HTTPOptions = {}): HTTPServer<Addr> {
  checkNumbers("Cannot serve", options);
  checkRequestOptions(options);
  const deno = requireDeno(
    "serve HTTP",
    "Give the app to a server of HTTP, such as Bun.serve, srvx or @hono/node-server; or serve it to a web server, " +
      "by serveFastCGI() or serveSCGI() with listen()",
  );
  const slowLog = openSlowLog(options.slowLog);
  const service = new Service(slowLog?.watch(app) ?? app, options);
  const stop = new AbortController();
  const server = open(deno, options, stop.signal, (request, info) => service.serve(request, info));
  const limited = limitShutdown(server, stop, options.signal, options.shutdownTimeout);
  limited.finished.finally(() => service.close()).catch(() => {});
  slowLog?.closeAfter(limited);
  return limited;
}

/** Listens on the options' address with `Deno.serve`. */
function open(
  deno: DenoOnly,
  options: HTTPOptions,
  signal: AbortSignal,
  handler: (request: Request, info: ServeInfo) => Promise<Response>,
): HTTPServer<Addr> {
  const {
    onError: _onError,
    debug: _debug,
    shutdownTimeout: _timeout,
    path,
    mode,
    group,
    ...others
  } = options;
  if (path === undefined) {
    const { allowRemote = false, hostname = allowRemote ? "0.0.0.0" : "127.0.0.1" } = others;
    return openNamed(
      { transport: "tcp", hostname, port: options.port ?? DEFAULT_PORTS.http },
      () => deno.serve({ ...others, hostname, signal }, handler),
    );
  }
  // Not the caller's, as others cannot connect before the file has its group and mode.
  const onListen = options.onListen && (() => {});
  const server = openNamed(
    { transport: "unix", path },
    () =>
      openUnixSocket(
        path,
        { mode, group },
        () => deno.serve({ path, onListen, signal }, handler),
        (opened) => opened.shutdown(),
      ),
  );
  options.onListen?.(server.addr);
  return server;
}

/** Serves the requests of one server. */
class Service {
  #handler: Handler;
  #options: LoggedOptions;
  /** The options for the peers that a list of `trustForwarded` includes, and for others. */
  #trusting: LoggedOptions;
  #distrusting: LoggedOptions;
  /** Whether the app sees another URL than Deno. On a Unix socket, its URLs have the scheme "http+unix". */
  #moved: boolean;
  /** The requests whose handlers run, if their ends are reported. */
  #pending = new Ticker<HTTPCompletion>(tickFor(LONG));
  #requestTimeout: number;
  /** The requests whose apps must respond in time. */
  #limited: Ticker<HTTPDeadline>;
  #telemetry: typeof import("./io/telemetry.ts") | undefined;

  constructor(app: App, options: HTTPOptions) {
    this.#handler = toHandler(app);
    this.#options = { ...options, log: safeLog(options.log) };
    this.#trusting = { ...this.#options, trustForwarded: true };
    this.#distrusting = { ...this.#options, trustForwarded: false };
    const { path, basePath, trustForwarded, requestTimeout = Infinity } = options;
    this.#requestTimeout = requestTimeout;
    this.#limited = new Ticker(tickFor(requestTimeout));
    if (TRACED && options.onCompleted !== undefined) this.#loadTelemetry();
    this.#moved = path !== undefined || basePath !== undefined || Boolean(trustForwarded);
  }

  async #loadTelemetry(): Promise<void> {
    this.#telemetry = await import("./io/telemetry.ts");
  }

  close(): void {
    this.#pending.close();
    this.#limited.close();
  }

  serve(
    native: Request,
    { remoteAddr, completed }: ServeInfo,
  ): Promise<Response> {
    const { onCompleted } = this.#options;
    const refusal = refusalOf(native);
    const request = refusal === undefined ? withAddressedHost(native) : native;
    const info = new HTTPInfo(request, remoteAddr, completed, this.#optionsFor(remoteAddr));
    return onCompleted === undefined ? this.#respond(request, refusal, info) : this.#report(
      new HTTPCompletion(request, info, onCompleted, this.#telemetry?.activeTraceId()),
      request,
      refusal,
      info,
    );
  }

  #optionsFor(peer: Addr): LoggedOptions {
    const options = this.#options;
    if (!Array.isArray(options.trustForwarded)) return options;
    return isTrusted(options, nameOfPeer(peer)) ? this.#trusting : this.#distrusting;
  }

  async #report(
    completion: HTTPCompletion,
    request: Request,
    refusal: number | undefined,
    info: HTTPInfo,
  ): Promise<Response> {
    this.#pending.add(completion);
    completion.onreported = () => this.#pending.delete(completion);
    return completion.responded(await this.#respond(request, refusal, info, completion));
  }

  #respond(
    request: Request,
    refusal: number | undefined,
    info: HTTPInfo,
    completion?: HTTPCompletion,
  ): Promise<Response> {
    return this.#requestTimeout === Infinity || refusal !== undefined
      ? this.#call(request, refusal, info, completion)
      : this.#callInTime(request, info, completion);
  }

  async #callInTime(
    request: Request,
    info: HTTPInfo,
    completion: HTTPCompletion | undefined,
  ): Promise<Response> {
    const deadline = new HTTPDeadline(request, this.#requestTimeout, this.#options.log);
    this.#limited.add(deadline);
    const response = await deadline.race(
      this.#call(request, undefined, info, completion, deadline),
    );
    deadline.drain().then(() => this.#limited.delete(deadline));
    return response;
  }

  async #call(
    request: Request,
    refusal: number | undefined,
    info: HTTPInfo,
    completion?: HTTPCompletion,
    deadline?: HTTPDeadline,
  ): Promise<Response> {
    let seen: Request | number = request;
    try {
      seen = refusal ??
        (this.#moved || DOTS.test(request.url)
          ? normalize(info, deadline)
          : deadline === undefined
          ? request
          : withURL(request, request.url, deadline));
      if (typeof seen === "number") return plainResponse(seen);
      if (completion !== undefined) seen = completion.requested(seen);
      const response = await this.#handler(seen, info);
      if (response?.status !== SWITCHING_PROTOCOLS) checkResponse(response);
      checkHeaders(response);
      return response;
    } catch (error) {
      if (hasLeft(request)) return new Response(null, { status: CLIENT_CLOSED });
      if (deadline?.isOver) {
        if (!deadline.isReason(error)) info.log(describeError(error));
        return plainResponse(503);
      }
      const passed = typeof seen === "number" ? undefined : seen;
      return await errorResponse(error, passed, info, this.#options, {
        load: () => import("./debug/debug_page.ts"),
      });
    }
  }
}

/** Returns the request with the URL that the app sees, or the status to refuse it with. */
function normalize(info: HTTPInfo, limited: Limited | undefined): Request | number {
  try {
    return HTTPInfo.normalize(info, limited);
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    info.log(error.message);
    return error.status;
  }
}

/** Returns the request with another URL, and if its app must respond in time, with another signal and body. */
function withURL(request: Request, href: string, limited: Limited | undefined): Request {
  if (!WEBSOCKET.test(request.headers.get("upgrade") ?? "")) {
    return moveRequest(request, href, limited);
  }
  // Deno does not upgrade a copy.
  const { signal } = limited ?? {};
  const properties = { url: href, ...(signal && { signal }) };
  for (const [name, value] of Object.entries(properties)) {
    Object.defineProperty(request, name, { value, configurable: true });
  }
  return request;
}

/** Returns the status to refuse a request with, or undefined. */
function refusalOf({ method, headers, url }: Request): number | undefined {
  if (NO_REQUEST.test(method)) return 501;
  const host = headers.get("host");
  // Deno.serve puts any Host into the URL: "x/y?" would change its path.
  if (host && !isAuthority(host)) return 400;
  const addressed = addressedHost(url);
  return addressed !== undefined && addressed !== host && !isAuthority(addressed) ? 400 : undefined;
}

function withAddressedHost(request: Request): Request {
  const host = request.headers.get("host");
  const addressed = addressedHost(request.url);
  return host && addressed !== undefined && addressed !== host
    ? withHost(request, addressed)
    : request;
}

/** Returns the URL of a request, with another host where that is invalid: Deno.serve puts any into the URL. */
function parseURL({ url, headers }: Request): URL {
  const host = headers.get("host");
  const named = host && !isAuthority(host) ? url.replace(`//${host}`, "//localhost") : url;
  return URL.parse(named) ?? new URL("http://localhost/");
}

/** Returns the authority of a URL as the client wrote it, which an absolute target has set; undefined on a Unix socket. */
function addressedHost(url: string): string | undefined {
  return /^https?:\/\/([^/?#]*)/.exec(url)?.[1];
}

/** Limits how long a server that shuts down waits for its requests: that of `Deno.serve` has no limit. */
function limitShutdown(
  server: HTTPServer<Addr>,
  stop: AbortController,
  signal: AbortSignal | undefined,
  shutdownTimeout = SHUTDOWN_TIMEOUT,
): HTTPServer<Addr> {
  const late = Promise.withResolvers<never>();
  const finished = Promise.race([server.finished, late.promise]);
  // A caller that ignores the promise must not end with an unhandled rejection.
  finished.catch(() => {});
  let stopping: Promise<void> | null = null;

  function shutdown(): Promise<void> {
    return stopping ??= (async () => {
      const timer = setTimeout(() =>
        late.reject(
          new Error(
            `Cannot shut down: some requests have not ended within ${shutdownTimeout} ms. End the process`,
          ),
        ), Math.min(shutdownTimeout, MAX_DELAY));
      try {
        await Promise.race([server.shutdown(), late.promise]);
      } finally {
        clearTimeout(timer);
      }
    })();
  }

  function abort(): void {
    // The signal of Deno.serve does not stop a server that is shutting down.
    if (stopping === null) stop.abort(signal!.reason);
    else late.reject(signal!.reason);
  }

  if (signal?.aborted) abort();
  signal?.addEventListener("abort", abort);
  finished.finally(() => signal?.removeEventListener("abort", abort)).catch(() => {});
  return {
    addr: server.addr,
    finished,
    shutdown,
    ref: () => server.ref(),
    unref: () => server.unref(),
    [Symbol.asyncDispose]: shutdown,
  };
}

/** Returns a peer as REMOTE_ADDR names it, one on a Unix socket as HAProxy does: "unix". */
function nameOfPeer(addr: Addr): string {
  return "hostname" in addr ? addr.hostname : addr.transport;
}

interface LoggedOptions extends HTTPOptions {
  log: LogFunction<HandlerInfo>;
}

class HTTPInfo implements HandlerInfo {
  #request: Request;
  #remoteAddr: Addr;
  #completed: Promise<void>;
  #options: LoggedOptions;
  #variables: Variables | null = null;
  #url: ReturnType<typeof requestURL> | null = null;
  #requestId: string | undefined;
  #log: ((message: string) => void) | null = null;

  constructor(
    request: Request,
    remoteAddr: Addr,
    completed: Promise<void>,
    options: LoggedOptions,
  ) {
    this.#request = request;
    this.#remoteAddr = remoteAddr;
    this.#completed = completed;
    this.#options = options;
  }

  get protocol(): Protocol {
    return "http";
  }

  get completed(): Promise<void> {
    return this.#completed;
  }

  get remoteAddr(): NetAddr {
    if (this.#options.trustForwarded) return remoteAddress(this.variables, this.#options);
    const peer = this.#remoteAddr;
    return peer.transport === "tcp" ? peer : { transport: "tcp", hostname: "", port: 0 };
  }

  get variables(): Variables {
    return this.#variables ??= Variables.createdBy({
      find: (name) => this.#findVariable(name),
      create: () => this.#createVariables(),
    });
  }

  /** Finds the variables that an access log needs, which cost less than all. */
  #findVariable(name: string): string | undefined | null {
    switch (name) {
      case "REQUEST_METHOD":
        return this.#request.method;
      case "REQUEST_URI":
        return requestURI(parseURL(this.#request));
      case "SERVER_PROTOCOL":
        return "HTTP/1.1";
      case "REMOTE_USER":
        return undefined;
      default:
        return null;
    }
  }

  #createVariables(): [name: string, value: string][] {
    const length = this.#request.headers.get("content-length");
    const url = parseURL(this.#request);
    return createVariables(this.#request, {
      url,
      pathInfo: decodePercent(url.pathname),
      contentLength: length === null ? undefined : Number(length),
      remoteAddr: this.#remoteAddr,
    });
  }

  get requestId(): string {
    return this.#requestId ??= chooseRequestId(this.#request.headers.get("x-request-id"));
  }

  get scriptName(): string {
    return decodePath(this.#requestURL().prefix);
  }

  get pathInfo(): string {
    return decodePath(this.#requestURL().rest);
  }

  get log(): (message: string) => void {
    return this.#log ??= (message) => void this.#options.log(message, this);
  }

  /**
   * Returns the request with the URL that the app sees. Static, as apps pass the info on as a `RequestInit`, which
   * reads its properties.
   */
  static normalize(info: HTTPInfo, limited: Limited | undefined): Request {
    const { href } = info.#requestURL();
    const request = info.#request;
    return withURL(request, href, limited);
  }

  #requestURL(): ReturnType<typeof requestURL> {
    if (this.#url !== null) return this.#url;
    const forwarded = this.#options.trustForwarded === true;
    const pairs = this.#variables === null
      ? createURLVariables(this.#request, forwarded)
      : undefined;
    const variables = pairs === undefined ? this.variables : new Variables(pairs);
    return this.#url = requestURL(
      variables,
      this.#options.basePath,
      trustedForwarded(variables, this.#options),
      "http",
      undefined,
    );
  }
}
