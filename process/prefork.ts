/**
 * Several processes that share one listening socket, each as its file descriptor 0: this process opens the socket and
 * passes it to a supervisor, which never accepts and whose workers inherit it.
 *
 * The supervisor is a process of its own because `spawn` makes a socket that is passed by its descriptor number blocking
 * for all processes that share it, and a worker would then block in accept. Only stdio `"inherit"` keeps it non-blocking.
 *
 * @module
 */

import { spawn } from "node:child_process";
import { fstatSync } from "node:fs";
import { createServer } from "node:net";
import { parseAddress } from "../io/address.ts";
import { EXEC_PATH } from "./exec_path.ts";
import { exit } from "./exit.ts";
import {
  applyOwnership,
  checkBacklog,
  type ListenOptions,
  openPrivately,
  removeQuietly,
  removeStaleSocket,
} from "../io/listen.ts";
import { duplicateDescriptor } from "../io/private_fields.ts";
import { SHUTDOWN_TIMEOUT } from "../io/timeouts.ts";
import { onTermination } from "./signals.ts";
import {
  KILLED,
  NO_WORKER,
  type Order,
  SERVING,
  supervise,
  type SupervisorOptions,
  TOO_LARGE,
} from "./supervisor.ts";
import type { Addr } from "../io/addr.ts";
import { requireDeno, runtime } from "../io/runtime.ts";

/** Options of {@linkcode prefork}. */
export interface PreforkOptions extends ListenOptions {
  /**
   * The address to listen on: `host:port`, `unix:/path`, or `fd:N` for an inherited listening socket. Deno shows a
   * descriptor other than 0 only if a Deno process passes it: have systemd pass the socket as `StandardInput=socket`.
   *
   * @default "fd:0"
   */
  listen?: string;
  /** The number of workers, from 1. */
  workers: number;
  /** The arguments that Deno runs a worker with. The worker has the socket as file descriptor 0. */
  command: string[];
  /**
   * The `shutdownTimeout` of the workers' servers, in milliseconds, from 0; Infinity for none. A worker that still runs
   * a second after it, such as one in an endless loop, gets SIGKILL, and this is logged.
   *
   * @default 10_000
   */
  shutdownTimeout?: number;
  /**
   * How long a worker may take from its start until it serves, in milliseconds, from 1; Infinity for no limit. Beyond
   * it the worker gets SIGKILL and counts as one that ended. Only workers of `serve()` and of the command line report
   * that they serve, and no worker is killed before one has: a worker that does not report counts as serving after 10
   * seconds.
   *
   * @default 60_000
   */
  startTimeout?: number;
  /**
   * How long a worker may block its event loop, in milliseconds, from 1000; 0 for no limit. After half of it this is
   * logged; beyond it the worker gets SIGKILL with its CGI scripts, this is logged with the number of requests in
   * progress, and another takes its place at once. A worker that is stopped by a signal or a debugger, or waits for an
   * inspector, is not killed; the time for which the machine is suspended does not count. Applies to the workers of
   * `serve()` and of the command line.
   *
   * @default 0
   */
  workerTimeout?: number;
  /**
   * After how many requests a worker is replaced, from 1; Infinity for never. Each worker adds up to a tenth at random,
   * so that not all are replaced at once. It finishes its requests once its successor serves, and one worker is
   * replaced at a time. Applies to the workers of `serve()` and of the command line.
   *
   * @default Infinity
   */
  maxRequests?: number;
  /**
   * The resident memory in bytes, from 1, beyond which a worker is replaced in the same way; Infinity for no limit. It
   * is checked each second. A worker that takes more when it starts to serve counts as one that ended, and if no
   * other serves, `prefork()` fails.
   *
   * @default Infinity
   */
  maxMemory?: number;
  /**
   * The format of the messages about workers: a line of text, or one JSON object a line, with `time`, `pid` and
   * `message`.
   *
   * @default "text"
   */
  logFormat?: "text" | "json";
  /**
   * Called once the first worker serves the socket; not called for an inherited socket.
   *
   * @default undefined
   */
  onListen?: (addr: Addr) => void;
}

/** Thrown by {@linkcode prefork} if no worker starts. */
export class NoWorkerError extends Error {
  /** The name of the error. */
  override name = "NoWorkerError";
}

/** How long killing the workers may take before this process exits without them, in milliseconds. */
const KILL_LIMIT = 10_000;

/**
 * Runs workers until SIGTERM or SIGINT, which lets them finish their requests. At another SIGINT, a second or more after
 * the first, they are killed and this program exits with 130. SIGHUP replaces the workers one by one, each once its
 * successor serves; the socket stays open, so that no connection is refused. If a successor does not start, all workers
 * stay. At a terminal that closes, SIGHUP stops them.
 *
 * A worker that ends is replaced: at once if it has run for 10 seconds, else after 100 ms. The delay doubles with each
 * such end in a row, up to 10 seconds, for each worker by itself, and up to 1 second while no other worker runs. A
 * worker that runs for 10 seconds resets it, and so does SIGHUP.
 *
 * Needs `--allow-run` of Deno itself and `--allow-env`. To listen on TCP, it needs `--allow-net` of the address; on a
 * Unix socket, `--allow-net`, `--allow-read` and `--allow-write` of its path, and of the same path with `.new`
 * appended, where the socket is until it has its mode and group:
 * `--allow-net=unix:/run/app.sock,unix:/run/app.sock.new`.
 *
 * @returns Resolves when all workers have ended.
 * @throws {RangeError} If an option is out of range.
 * @throws {NoWorkerError} If all of the first workers end before one serves.
 * @throws {Error} If the address is in use.
 *
 * @example Four workers behind nginx's `fastcgi_pass unix:/run/app.sock`
 * ```ts ignore
 * import { prefork } from "@gatehouse/cgi/prefork";
 *
 * await prefork({
 *   listen: "unix:/run/app.sock",
 *   group: "www-data",
 *   workers: 4,
 *   command: ["run", "--allow-env", "app.ts"],
 * });
 * ```
 */
export async function prefork(options: PreforkOptions): Promise<void> {
  requireDeno(
    "share a socket among processes",
    "Let the web server or systemd start several processes, as Apache with mod_fcgid does, or spawn-fcgi -F",
  );
  const { listen = "fd:0", onListen } = options;
  const supervised = checkOptions(options);
  const socket = await openSocket(listen, options);
  let code: number | string;
  try {
    code = socket.fd === 0
      ? await supervise(supervised)
      : await runSupervisor(socket, supervised, onListen);
  } finally {
    socket.remove();
  }
  if (code === KILLED) await exit(KILLED);
  if (code === NO_WORKER) {
    throw new NoWorkerError(
      "Cannot start the workers: all ended before one served. See their output for the reason",
    );
  }
  if (code === TOO_LARGE) {
    throw new NoWorkerError(
      `Cannot start the workers: a new one takes more memory than its limit, ${
        Math.ceil(options.maxMemory! / 2 ** 20)
      } MiB. Raise the limit`,
    );
  }
  if (code !== 0) {
    throw new Error(
      `Cannot keep workers running: their supervisor ended with ${code}`,
    );
  }
}

/**
 * Returns the options of the supervisor.
 *
 * @throws {RangeError} If one is out of range.
 */
function checkOptions(options: PreforkOptions): SupervisorOptions {
  const { workers, command, shutdownTimeout = SHUTDOWN_TIMEOUT, startTimeout = 60_000 } = options;
  const { workerTimeout = 0, maxRequests = Infinity, maxMemory = Infinity } = options;
  const check = (name: string, value: number, range: string, isInRange: boolean) => {
    if (isInRange) return value === Infinity ? null : value;
    throw new RangeError(
      `Cannot start workers as ${name} must be ${range}: current value is ${value}`,
    );
  };
  checkBacklog(options.backlog);
  const isWhole = (value: number) => value === Infinity || Number.isInteger(value);
  check("workers", workers, "an integer from 1", Number.isInteger(workers) && workers >= 1);
  return {
    workers,
    command,
    shutdownTimeout: check("shutdownTimeout", shutdownTimeout, "from 0", shutdownTimeout >= 0),
    startTimeout: check("startTimeout", startTimeout, "from 1", startTimeout >= 1),
    workerTimeout: check(
      "workerTimeout",
      workerTimeout || Infinity,
      "0 or from 1000",
      workerTimeout === 0 || workerTimeout >= 1000,
    ),
    maxRequests: check(
      "maxRequests",
      maxRequests,
      "an integer from 1, or Infinity",
      isWhole(maxRequests) && maxRequests >= 1,
    ),
    maxMemory: check("maxMemory", maxMemory, "from 1", maxMemory >= 1),
    backlog: options.backlog ?? null,
    logFormat: options.logFormat ?? "text",
  };
}

/**
 * Runs a supervisor that has the socket as file descriptor 0.
 *
 * @returns Its exit code or signal.
 * @throws {Error} If it cannot be started.
 */
async function runSupervisor(
  socket: SharedSocket,
  options: SupervisorOptions,
  onListen: PreforkOptions["onListen"],
): Promise<number | string> {
  const supervisor = spawn(EXEC_PATH, [
    "run",
    "--quiet",
    "--no-prompt",
    "--allow-run",
    "--allow-env",
    import.meta.resolve("./supervisor.ts"),
    JSON.stringify(options),
  ], { stdio: [socket.fd, "inherit", "inherit", "ipc"] });
  const ended = Promise.withResolvers<number | string>();
  supervisor.once("exit", (code, signal) => ended.resolve(signal ?? code ?? 0));
  supervisor.on("error", (error) => supervisor.pid === undefined && ended.reject(error));
  supervisor.on("message", (message) => {
    if (message === SERVING && socket.addr !== undefined) onListen?.(socket.addr);
  });
  // As messages: to send a signal, Deno needs --allow-run without a list.
  const send = (order: Order) => void supervisor.send(order, () => {});
  let limit: ReturnType<typeof setTimeout> | undefined;
  const force = () => {
    send("SIGKILL");
    limit ??= setTimeout(() => exit(KILLED), KILL_LIMIT);
  };
  using _ = onTermination(() => send("SIGTERM"), { force });
  const wasTerminal = runtime.stdin.isTerminal();
  // The terminal sends SIGHUP when it closes.
  const hangUp = () => send(wasTerminal && !runtime.stdin.isTerminal() ? "SIGTERM" : "SIGHUP");
  runtime.addSignalListener("SIGHUP", hangUp);
  try {
    return await ended.promise;
  } finally {
    clearTimeout(limit);
    runtime.removeSignalListener("SIGHUP", hangUp);
  }
}

interface SharedSocket {
  fd: number;
  /** Absent if the socket is inherited. */
  addr?: Addr;
  remove(): void;
}

/** Returns an inherited listening socket. */
function inheritedSocket(fd: number): SharedSocket {
  let isSocket = false;
  try {
    isSocket = fstatSync(fd).isSocket();
  } catch {
    // It is not open.
  }
  if (!isSocket) {
    throw new Error(
      `Cannot share file descriptor ${fd}: it is not a listening socket, or Deno does not show it. ` +
        "Pass the socket as descriptor 0, with StandardInput=socket in a .service of systemd, and use fd:0",
    );
  }
  return { fd, remove: () => {} };
}

/** Opens a listening socket and returns a descriptor of it on which no event loop accepts. */
async function openSocket(listen: string, options: ListenOptions): Promise<SharedSocket> {
  const descriptor = /^fd:(\d+)$/.exec(listen);
  if (descriptor !== null) return inheritedSocket(Number(descriptor[1]));
  const address = parseAddress(listen);
  const { backlog } = options;
  const server = createServer((socket) => socket.destroy());
  const unix = address.transport === "unix";
  // Closing the server removes the path that it listens on, so the socket is renamed first.
  const path = unix ? `${address.path}.new` : "";
  if (unix) {
    await removeStaleSocket(address.path);
    await removeStaleSocket(path);
  }
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    if (unix) openPrivately(() => server.listen({ path, backlog }, resolve));
    else server.listen({ host: address.hostname, port: address.port, backlog }, resolve);
  });
  const bound = server.address();
  const fd = duplicateDescriptor(server) ?? -1;
  try {
    if (fd < 0) {
      throw new Error(
        "Cannot share the listening socket: this runtime cannot duplicate it, or has no free file descriptor",
      );
    }
    if (unix) {
      applyOwnership(path, options);
      runtime.renameSync(path, address.path);
    }
  } finally {
    server.close();
  }
  return {
    fd,
    addr: unix || bound === null || typeof bound === "string"
      ? address
      : { transport: "tcp", hostname: bound.address, port: bound.port },
    remove: () => {
      if (unix) removeQuietly(address.path);
    },
  };
}
