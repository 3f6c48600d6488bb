/**
 * Serves an app over FastCGI 1.0: a daemon behind nginx, Apache, lighttpd, Caddy, HAProxy or h2o.
 *
 * ```ts no-assert
 * import { serveFastCGI } from "@gatehouse/cgi/fastcgi";
 *
 * const server = serveFastCGI(
 *   () => new Response("Hello"),
 *   Deno.listen({ hostname: "127.0.0.1", port: 0 }),
 * );
 * await server.shutdown();
 * ```
 *
 * @module
 */

import type { App, AppOptions } from "./bridge/app.ts";
import { checkRequestOptions } from "./server/exchange.ts";
import type { Listener } from "./io/duplex.ts";
import { safeLog } from "./io/log.ts";
import { mainModulePath } from "./io/main_module.ts";
import { addressesFromEnvironment } from "./server/peers.ts";
import { BodyMemory } from "./server/body_memory.ts";
import { FastCGIConnection } from "./server/fastcgi_connection.ts";
import type { FastCGIService } from "./server/fastcgi_request.ts";
import { type LimitOptions, resolveLimits } from "./server/limits.ts";
import { RunningRequests } from "./server/running_requests.ts";
import { openSlowLog } from "./server/slow_log.ts";
import { MAX_CONNECTIONS, type Server, type ServerOptions, startServer } from "./server/server.ts";
import { toByteString } from "./wire/byte_string.ts";

export { localRedirect } from "./server/local_redirect.ts";
export { inheritedListener, type InheritedListenerOptions } from "./io/inherited.ts";
export { listen, type ListenOptions } from "./io/listen.ts";
export type { Duplex, Listener } from "./io/duplex.ts";
export type { LimitOptions } from "./server/limits.ts";
export type { Server, ServerOptions } from "./server/server.ts";
export type {
  App,
  AppObject,
  AppOptions,
  CompletedRequest,
  FilterInfo,
  Handler,
  HandlerInfo,
  Protocol,
} from "./bridge/app.ts";
export type { Addr, NetAddr, UnixAddr, VsockAddr } from "./io/addr.ts";

/** Options of {@linkcode serveFastCGI}. */
export interface FastCGIOptions extends AppOptions, LimitOptions, ServerOptions {
  /**
   * How many requests may be in progress on one connection, from 0; Infinity for no limit. Beyond it the response is
   * 503.
   *
   * @default 64
   */
  maxRequestsPerConnection?: number;
  /**
   * How long a connection stays open after a request, in milliseconds, from 0; Infinity for no limit. It must exceed the
   * web server's own timeout, so that no request meets a connection that closes. Before the first request
   * `variablesTimeout` applies, too.
   *
   * @default 90_000
   */
  idleTimeout?: number;
  /**
   * The IP addresses that connections may come from (section 3.2), and ranges of them, such as `10.0.0.0/8`, whose
   * other bits must be 0. Connections from others, and over Unix sockets, are closed.
   *
   * @default The list in FCGI_WEB_SERVER_ADDRS if it is set and may be read, else any address
   */
  webServerAddresses?: string[];
  /**
   * Where the errors and the log of a request go: to the web server by FCGI_STDERR, to the option `log`, or to both.
   * Those that the web server cannot get, as the request is over, go to `log` anyway.
   *
   * @default "server"
   */
  logTo?: "server" | "log" | "both";
}

/**
 * Serves an app over FastCGI: in the responder role, and in the roles authorizer and filter if the app has them. A
 * connection stays open if the web server requests it, and may carry several requests at once.
 *
 * @param app A handler, or an object with `fetch`.
 * @param listener The result of `Deno.listen`, TCP or Unix, or of `inheritedListener()`.
 * @returns A handle with the shape of `Deno.HttpServer`.
 * @throws {Error} If other machines can reach the listener and no option allows this.
 * @throws {RangeError} If a limit or timeout is negative or NaN.
 * @throws {TypeError} If `basePath`, `trustForwarded` or `webServerAddresses` is invalid.
 *
 * @example A daemon for nginx's `fastcgi_pass 127.0.0.1:9000`
 * ```ts no-assert
 * import { serveFastCGI } from "@gatehouse/cgi/fastcgi";
 *
 * const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
 * await using server = serveFastCGI(
 *   (request) => new Response(`You requested ${new URL(request.url).pathname}`),
 *   listener,
 * );
 * ```
 */
export function serveFastCGI(app: App, listener: Listener, options: FastCGIOptions = {}): Server {
  const {
    webServerAddresses = addressesFromEnvironment(),
    maxConnections = MAX_CONNECTIONS,
    maxRequestsPerConnection = 64,
    idleTimeout = 90_000,
    logTo = "server",
  } = options;
  checkRequestOptions(options);
  const limits = { ...resolveLimits(options), maxRequestsPerConnection, idleTimeout };
  const log = safeLog(options.log);
  const slowLog = openSlowLog(options.slowLog);
  const service: FastCGIService = {
    app: slowLog?.watch(app) ?? (typeof app === "function" ? { fetch: app } : app),
    options,
    limits,
    log,
    logTo,
    running: new RunningRequests(log),
    memory: new BodyMemory(limits.maxBufferedTotal),
    requestTimeout: options.requestTimeout ?? Infinity,
    program: mainModulePath(),
    debug: { load: () => import("./debug/debug_page.ts"), address: listener.addr },
    capacity: [
      ["FCGI_MAX_CONNS", count(maxConnections)],
      ["FCGI_MAX_REQS", count(limits.maxRequests)],
      ["FCGI_MPXS_CONNS", "1"],
    ],
  };
  const server = startServer(
    listener,
    { ...options, webServerAddresses },
    (duplex, overloaded) => new FastCGIConnection(service, duplex, overloaded),
  );
  slowLog?.closeAfter(server);
  return server;
}

/** Returns a limit as web servers read it: in digits, also where it is Infinity. */
function count(limit: number): string {
  return String(Math.min(Math.floor(limit), 0x7fff_ffff));
}

/**
 * Creates an authorizer's response that allows a request (section 6.3).
 *
 * @param variables The variables to add to the protected request.
 *
 * @example
 * ```ts
 * import { allow } from "@gatehouse/cgi/fastcgi";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(allow({ USER_ID: "7" }).headers.get("Variable-USER_ID"), "7");
 * ```
 */
export function allow(variables: Record<string, string> = {}): Response {
  const headers = new Headers();
  for (const [name, value] of Object.entries(variables)) {
    headers.set(`Variable-${name}`, toByteString(value));
  }
  return new Response(null, { headers });
}
