/**
 * Serves an app over SCGI: a daemon behind nginx's `scgi_pass`, Apache's mod_proxy_scgi or lighttpd's mod_scgi.
 *
 * ```ts no-assert
 * import { serveSCGI } from "@gatehouse/cgi/scgi";
 *
 * const server = serveSCGI(
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
import { BodyMemory } from "./server/body_memory.ts";
import { type LimitOptions, resolveLimits } from "./server/limits.ts";
import { toHandler } from "./server/respond.ts";
import { openSlowLog } from "./server/slow_log.ts";
import { RunningRequests } from "./server/running_requests.ts";
import { SCGIConnection, type SCGIService } from "./server/scgi_connection.ts";
import { type Server, type ServerOptions, startServer } from "./server/server.ts";

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
  Handler,
  HandlerInfo,
  Protocol,
} from "./bridge/app.ts";
export type { Addr, NetAddr, UnixAddr, VsockAddr } from "./io/addr.ts";

/** Options of {@linkcode serveSCGI}. */
export interface SCGIOptions extends AppOptions, LimitOptions, ServerOptions {
  /**
   * Whether to accept two harmless violations of the specification: CONTENT_LENGTH that is absent or not the first
   * header, and a missing `SCGI=1`.
   *
   * @default false
   */
  lenient?: boolean;
}

/**
 * Serves an app over SCGI: one request per connection.
 *
 * @param app A handler, or an object with `fetch`.
 * @param listener The result of `Deno.listen`, TCP or Unix, or of `inheritedListener()`.
 * @returns A handle with the shape of `Deno.HttpServer`.
 * @throws {Error} If other machines can reach the listener and no option allows this.
 * @throws {RangeError} If a limit or timeout is negative or NaN.
 * @throws {TypeError} If `basePath`, `trustForwarded` or `webServerAddresses` is invalid.
 *
 * @example A daemon for nginx's `scgi_pass 127.0.0.1:4000`
 * ```ts no-assert
 * import { serveSCGI } from "@gatehouse/cgi/scgi";
 *
 * const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
 * await using server = serveSCGI(
 *   (request) => new Response(`You requested ${new URL(request.url).pathname}`),
 *   listener,
 * );
 * ```
 */
export function serveSCGI(app: App, listener: Listener, options: SCGIOptions = {}): Server {
  checkRequestOptions(options);
  const log = safeLog(options.log);
  const { lenient = false } = options;
  const limits = resolveLimits(options);
  const slowLog = openSlowLog(options.slowLog);
  const service: SCGIService = {
    handler: toHandler(slowLog?.watch(app) ?? app),
    options,
    lenient,
    limits,
    log,
    running: new RunningRequests(log),
    memory: new BodyMemory(limits.maxBufferedTotal),
    requestTimeout: options.requestTimeout ?? Infinity,
    program: mainModulePath(),
    debug: { load: () => import("./debug/debug_page.ts"), address: listener.addr },
  };
  const server = startServer(
    listener,
    options,
    (duplex, overloaded) => new SCGIConnection(service, duplex, overloaded),
  );
  slowLog?.closeAfter(server);
  return server;
}
