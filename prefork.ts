/**
 * Runs several processes that share one listening socket, so that a daemon uses more than one core.
 *
 * ```ts no-assert ignore
 * import { prefork } from "@gatehouse/cgi/prefork";
 *
 * // Each worker runs app.ts, whose serve() finds FastCGI on file descriptor 0.
 * await prefork({
 *   listen: "unix:/run/app.sock",
 *   workers: 4,
 *   command: ["run", "--allow-env", "app.ts"],
 * });
 * ```
 *
 * @module
 */

export { NoWorkerError, prefork, type PreforkOptions } from "./process/prefork.ts";
export type { ListenOptions } from "./io/listen.ts";
export type { Addr, NetAddr, UnixAddr, VsockAddr } from "./io/addr.ts";
