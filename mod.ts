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
 * The transports by name are in `@gatehouse/cgi/cgi`, `/fastcgi`, `/scgi` and `/http`: a CGI script pays for each module
 * at each request, so this one loads only what it needs.
 *
 * @module
 */

import type { App } from "./bridge/app.ts";
import { type CGIOptions, serveCGI } from "./cgi.ts";
import type { FastCGIOptions, Server } from "./fastcgi.ts";
import type { HTTPOptions } from "./http.ts";

export { type CGIInput, type CGIOptions, type CGIOutput, localRedirect, serveCGI } from "./cgi.ts";
export type {
  App,
  AppObject,
  AppOptions,
  FilterInfo,
  Handler,
  HandlerInfo,
  Protocol,
} from "./bridge/app.ts";
export type { FastCGIOptions, LimitOptions, Server, ServerOptions } from "./fastcgi.ts";
export type { HTTPOptions } from "./http.ts";

/** Options of {@linkcode serve}: each transport takes those that it knows. */
export interface ServeOptions extends CGIOptions, FastCGIOptions, HTTPOptions {}

/**
 * Serves an app as what the process was started as, found out from its surroundings:
 *
 * - by a web server as a CGI script (`GATEWAY_INTERFACE` and `REQUEST_METHOD` are set): answers that request;
 * - by a web server as a FastCGI application (file descriptor 0 is a listening socket): serves FastCGI on it;
 * - by systemd or a supervisor with a listening socket (LISTEN_FDS, or descriptor 0): the same;
 * - by hand: serves HTTP by `Deno.serve`, on port 8000 unless the options name another.
 *
 * SIGTERM and SIGINT shut a server down: requests under way are finished.
 *
 * Needs `--allow-env` as a CGI script, `--allow-net` for HTTP.
 *
 * @param app A handler, or an object with `fetch`.
 * @returns Resolves when the script has answered, or the server has stopped.
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
  if (isCGI()) return await serveCGI(app, options);
  const server = await serveInherited(app, options) ??
    endInTime((await import("./http.ts")).serveHTTP(app, options), options.shutdownTimeout);
  const { onTermination } = await import("./io/signals.ts");
  const remove = onTermination(() => server.shutdown());
  await server.finished;
  remove();
}

/** `Deno.serve` waits for requests without end: past the deadline the process ends over them. */
function endInTime(
  server: Deno.HttpServer,
  timeout = 10_000,
): Pick<Server, "finished" | "shutdown"> {
  return {
    finished: server.finished,
    shutdown: () => {
      Deno.unrefTimer(setTimeout(() => Deno.exit(1), timeout));
      return server.shutdown();
    },
  };
}

/** Serves FastCGI on a socket that was handed down, if one was (SPEC A1). */
async function serveInherited(app: App, options: ServeOptions): Promise<Server | undefined> {
  const { hasInheritedSocket, inheritedListener } = await import("./io/inherited.ts");
  if (!await hasInheritedSocket()) return undefined;
  const listener = await inheritedListener();
  const { serveFastCGI } = await import("./fastcgi.ts");
  const { reportReady } = await import("./io/worker.ts");
  const server = serveFastCGI(app, listener, options);
  await reportReady(() => server.shutdown());
  return server;
}

/** Whether a web server runs this process for one request (SPEC A1). */
function isCGI(): boolean {
  return hasVariable("GATEWAY_INTERFACE") && hasVariable("REQUEST_METHOD");
}

function hasVariable(variable: string): boolean {
  // At a terminal Deno would ask for the permission; elsewhere to try takes less time than to find out.
  if (Deno.stdin.isTerminal()) {
    const { state } = Deno.permissions.querySync({ name: "env", variable });
    if (state !== "granted") return false;
  }
  try {
    return Deno.env.has(variable);
  } catch {
    return false;
  }
}
