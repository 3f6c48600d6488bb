/**
 * Serves an app over HTTP with `Deno.serve`, and with the same `info` as the other transports.
 *
 * @module
 */

import type { App, AppOptions } from "./bridge/app.ts";
import { checkNumbers } from "./io/check_numbers.ts";
import { checkRequestOptions } from "./server/exchange.ts";
import type { Addr, NetAddr, UnixAddr } from "./io/addr.ts";
import { DEFAULT_PORTS } from "./io/address.ts";
import { type ListenOptions, openNamed, openUnixSocket } from "./io/listen.ts";
import { type DenoOnly, type HTTPServer, requireDeno, type ServeInfo } from "./io/runtime.ts";
import { HTTPService } from "./server/http_service.ts";
import { limitShutdown } from "./server/http_shutdown.ts";
import type { ServerOptions } from "./server/server.ts";
import { openSlowLog } from "./server/slow_log.ts";

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
  const service = new HTTPService(slowLog?.watch(app) ?? app, options, {
    load: () => import("./debug/debug_page.ts"),
  });
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
  handler: (request: Request, info: ServeInfo) => Response | Promise<Response>,
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
