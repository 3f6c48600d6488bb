/**
 * One fetch handler, any web server: serves a Web `Request -> Response` handler over CGI, FastCGI, SCGI and HTTP.
 *
 * ```ts ignore
 * #!/usr/bin/env -S deno run --allow-env --allow-net
 * import { serve } from "@gatehouse/cgi";
 *
 * await serve(() => new Response("Hello"));
 * ```
 *
 * `@gatehouse/cgi/cgi`, `/fastcgi`, `/scgi` and `/http` have one function each. A CGI script pays for each
 * module at each request, so this module loads the others only when it needs them.
 *
 * @module
 */

import type { App } from "./bridge/app.ts";
import { type CGIOptions, serveCGI } from "./cgi.ts";
import type { FastCGIOptions, Server } from "./fastcgi.ts";
import type { HTTPOptions } from "./http.ts";
import { guardConsole } from "./io/log.ts";

export { type CGIInput, type CGIOptions, type CGIOutput, localRedirect, serveCGI } from "./cgi.ts";
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
import { type HTTPServer, runtime } from "./io/runtime.ts";
export type { FastCGIOptions, LimitOptions, Server, ServerOptions } from "./fastcgi.ts";
export type { HTTPOptions } from "./http.ts";

/** Where a command line, of whichever version of this package, says that it loads a module: see cli/load_app.ts. */
const LOADER: unique symbol = Symbol.for("@gatehouse/cgi loader");

/** Options of {@linkcode serve}. Each transport uses those that it has. */
export interface ServeOptions extends CGIOptions, FastCGIOptions, HTTPOptions {}

/**
 * Serves an app over the transport that the process was started for:
 *
 * - by a web server as a CGI script (`GATEWAY_INTERFACE` and `REQUEST_METHOD` are set): serves that request;
 * - by a web server as a FastCGI application (file descriptor 0 is a listening socket): serves FastCGI on the socket;
 * - by systemd or a supervisor with a listening socket (LISTEN_FDS, or descriptor 0): the same;
 * - otherwise: serves HTTP with `Deno.serve`, on 127.0.0.1:8000 unless the options set another address.
 *
 * On SIGTERM and SIGINT a server shuts down: it finishes the requests in progress. The methods of `console` never throw,
 * as they else do on a full disk.
 *
 * Needs `--allow-env` as a CGI script, `--allow-net` for HTTP.
 *
 * @param app A handler, or an object with `fetch`. If the module exports such an object as its default, Deno writes a
 * hint about `deno serve` to the log of each CGI request: export `app.fetch`.
 * @returns Resolves when the script has responded, or the server has stopped.
 *
 * @example
 * ```ts no-assert
 * import { serve } from "@gatehouse/cgi";
 *
 * const stop = new AbortController();
 * await serve(() => new Response("Hello"), {
 *   hostname: "127.0.0.1",
 *   port: 0,
 *   signal: stop.signal,
 *   onListen: () => stop.abort(),
 * });
 * ```
 */
export async function serve(app: App, options: ServeOptions = {}): Promise<void> {
  const { [LOADER]: loader } = globalThis as { [LOADER]?: (app: App) => Promise<void> };
  if (loader !== undefined) return await loader(app);
  const environment = readEnvironment();
  if (environment === "cgi") return await serveCGI(app, options);
  guardConsole();
  // Before it serves: a signal may follow the first request.
  const { runUntilTerminated } = await import("./process/signals.ts");
  const inherited = await serveInherited(app, options, environment);
  const server = inherited ?? await serveOverHTTP(app, options, environment);
  // Listens for signals before the supervisor may send one.
  const running = runUntilTerminated(server);
  if (inherited !== undefined) {
    const { reportReady } = await import("./process/worker.ts");
    reportReady(() => inherited.shutdown());
  }
  await running;
}

/** Serves FastCGI on an inherited socket. Returns undefined if there is none (rule A1). */
async function serveInherited(
  app: App,
  options: ServeOptions,
  environment: Environment,
): Promise<Server | undefined> {
  const { inheritedDescriptor, inheritedListener, openStandardInput } = await import(
    "./io/inherited.ts"
  );
  const fd = inheritedDescriptor();
  const input = fd === 0 ? await openStandardInput() : await inheritedListener({ fd });
  if (input === "stream" && environment === "unreadable") {
    throw await unreadable(options);
  }
  if (typeof input === "string") return undefined;
  const { serveFastCGI } = await import("./fastcgi.ts");
  return serveFastCGI(app, input, options);
}

async function serveOverHTTP(
  app: App,
  options: ServeOptions,
  environment: Environment,
): Promise<HTTPServer> {
  const { serveHTTP } = await import("./http.ts");
  try {
    return serveHTTP(app, options);
  } catch (error) {
    if (error instanceof runtime.errors.AddrInUse && options.path === undefined) {
      const { DEFAULT_PORTS } = await import("./io/address.ts");
      const { port = DEFAULT_PORTS.http } = options;
      throw failure(`${error.message}. Set another port, as in: serve(app, { port: ${port + 1} })`);
    }
    const mayBeCGI = environment === "unreadable" && !runtime.stdin.isTerminal();
    if (mayBeCGI && error instanceof runtime.errors.NotCapable) throw await unreadable(options);
    throw error;
  }
}

/** Creates the error of a script whose variables may not be read. It may be an HTTP server instead. */
async function unreadable({ hostname = "127.0.0.1", port }: ServeOptions): Promise<Error> {
  const { DEFAULT_PORTS, nameOf } = await import("./io/address.ts");
  const host = nameOf({ transport: "tcp", hostname, port: port ?? DEFAULT_PORTS.http });
  const { state } = runtime.permissions.querySync({ name: "net", host });
  return failure(
    state === "granted"
      ? "Cannot serve as this looks like a CGI request, but its variables may not be read: " +
        "add --allow-env to the first line"
      : `Cannot serve as neither the variables of a CGI request may be read nor ${host} be listened on: ` +
        "add --allow-env to the first line of a CGI script, and start a server with --allow-net",
  );
}

/** Creates an error whose stack is that of the caller of {@linkcode serve}. */
function failure(message: string): Error {
  const error = new Error(message);
  Error.captureStackTrace(error, serve);
  return error;
}

/** Whether the environment is that of a CGI script, another, or may not be read. */
type Environment = "cgi" | "other" | "unreadable";

function readEnvironment(): Environment {
  const names = ["GATEWAY_INTERFACE", "REQUEST_METHOD"];
  // At a terminal Deno would prompt for the permission. Elsewhere trying is faster than querying.
  if (runtime.stdin.isTerminal()) {
    const isReadable = (variable: string) =>
      runtime.permissions.querySync({ name: "env", variable }).state === "granted";
    if (!names.every(isReadable)) return "unreadable";
  }
  try {
    return names.every((name) => runtime.env.has(name)) ? "cgi" : "other";
  } catch {
    return "unreadable";
  }
}
