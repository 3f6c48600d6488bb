import type { Listener } from "./duplex.ts";
import { grantedVariable } from "./environment.ts";
import { InheritedListener } from "./inherited_listener.ts";
import { runtime } from "./runtime.ts";

/** Options of {@linkcode inheritedListener}. */
export interface InheritedListenerOptions {
  /**
   * The file descriptor of the listening socket, an integer from 0.
   *
   * @default 3 if LISTEN_FDS and LISTEN_PID show that systemd passes a socket, else 0 (FCGI_LISTENSOCK_FILENO)
   */
  fd?: number;
}

/** The first descriptor that systemd passes (sd_listen_fds(3)). */
const LISTEN_FDS_START = 3;

/**
 * Listens on a TCP or Unix socket that the process inherits: from a web server that spawns FastCGI applications, from
 * spawn-fcgi, systemd or a supervisor. Needs no permission.
 *
 * @returns A listener with the shape of `Deno.Listener`.
 * @throws {Error} If the descriptor is not a listening socket.
 *
 * @example
 * ```ts
 * import { inheritedListener } from "@gatehouse/cgi/fastcgi";
 * import { assertRejects } from "@std/assert";
 *
 * // This process inherits no socket.
 * await assertRejects(() => inheritedListener({ fd: 0 }), Error, "must be a listening socket");
 * ```
 */
export async function inheritedListener(options: InheritedListenerOptions = {}): Promise<Listener> {
  const fd = options.fd ?? inheritedDescriptor();
  try {
    return await InheritedListener.open(fd);
  } catch (error) {
    throw new Error(
      `Cannot listen on file descriptor ${fd} as it must be a listening socket: ${
        (error as Error).message
      }`,
      { cause: error },
    );
  }
}

/**
 * Listens on standard input if it is a listening socket, as when a web server spawns a FastCGI application. Otherwise
 * returns whether it is a stream (a pipe or a connection), as the body of a CGI request is. Only an attempt to listen
 * distinguishes a listening socket from a connection, and node:net closes a connection when it tries.
 */
export async function openStandardInput(): Promise<Listener | "stream" | "other"> {
  const { fstatSync } = await import("node:fs");
  try {
    const stat = fstatSync(0);
    if (stat.isFIFO()) return "stream";
    if (!stat.isSocket()) return "other";
  } catch {
    // It is closed.
    return "other";
  }
  try {
    return await inheritedListener({ fd: 0 });
  } catch {
    return "stream";
  }
}

/**
 * Returns the descriptor that {@linkcode inheritedListener} listens on: 3 if systemd passes a socket, else 0.
 *
 * @throws {Error} If systemd passes several sockets.
 */
export function inheritedDescriptor(): number {
  const count = grantedVariable("LISTEN_FDS");
  if (count === undefined || grantedVariable("LISTEN_PID") !== String(runtime.pid)) return 0;
  if (count !== "1") {
    throw new Error(
      `Cannot listen on an inherited socket as LISTEN_FDS must be 1: current value is ${count}. Choose a socket by its fd`,
    );
  }
  return LISTEN_FDS_START;
}

/** Returns the value of LISTEN_PID if systemd passes sockets to another process than this one. */
export function otherListenPid(): string | undefined {
  const pid = grantedVariable("LISTEN_FDS") === undefined
    ? undefined
    : grantedVariable("LISTEN_PID");
  return pid === String(runtime.pid) ? undefined : pid;
}
