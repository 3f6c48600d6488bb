/**
 * Several processes that share one listening socket. Each has it as file descriptor 0: this process opens it and passes
 * it to a supervisor, which never accepts and whose workers inherit it.
 *
 * The supervisor is a process of its own because `spawn` makes a socket that it is given by descriptor number
 * blocking for all processes that share it, and a worker would then block in accept. Only stdio `"inherit"` keeps it
 * non-blocking.
 *
 * @module
 */

import { type ChildProcess, spawn } from "node:child_process";
import { fstatSync } from "node:fs";
import { createServer } from "node:net";
import process from "node:process";
import { parseAddress } from "./address.ts";
import {
  applyOwnership,
  type ListenOptions,
  openPrivately,
  removeQuietly,
  removeStaleSocket,
} from "./listen.ts";
import { logLine } from "./log.ts";
import { reportReady } from "./worker.ts";

/** Options of {@linkcode prefork}. */
export interface PreforkOptions extends ListenOptions {
  /**
   * The address to listen on: `host:port`, `unix:/path`, or `fd:N` for an inherited listening socket. Deno shows a
   * descriptor other than 0 only if a Deno process passes it: have systemd pass the socket as `StandardInput=socket`.
   *
   * @default "fd:0"
   */
  listen?: string;
  /** The number of workers. */
  workers: number;
  /** The arguments that Deno runs a worker with. The worker has the socket as file descriptor 0. */
  command: string[];
  /** Called once the first worker serves the socket; not called for an inherited socket. */
  onListen?: (addr: Deno.Addr) => void;
}

/** The delay before a worker that ended is replaced, by the number of quick failures in a row, in milliseconds. */
const BACKOFF = [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000];
/** How long a worker must run for its end not to count as a quick failure, in milliseconds. */
const HEALTHY = 10_000;
/** The exit code of a supervisor of which no worker starts. */
const NO_WORKER = 3;
/** What a supervisor reports when its first worker serves. */
const SERVING = "serving";

/**
 * Runs workers until SIGTERM or SIGINT, which drains them all. A worker that ends is replaced. SIGHUP replaces the
 * workers one by one; the socket stays open, so that no connection is refused.
 *
 * Needs `--allow-run` of Deno itself and `--allow-env`. To listen on TCP, it needs `--allow-net` of the address; on a
 * Unix socket, `--allow-net`, `--allow-read` and `--allow-write` of its path, and of the same path with `.new`
 * appended, where the socket is until it has its mode and group:
 * `--allow-net=unix:/run/app.sock,unix:/run/app.sock.new`.
 *
 * @returns Resolves when all workers have ended.
 * @throws {Error} If the address is in use, or all of the first workers end before one serves.
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
  const { listen = "fd:0", workers, command } = options;
  const socket = await openSocket(listen, options);
  const code = socket.fd === 0
    ? await supervise(workers, command)
    : await runSupervisor(socket, options);
  socket.remove();
  if (code === NO_WORKER) {
    throw new Error(
      "Cannot start the workers as at least one must serve: all ended. See their output for the reason",
    );
  }
  if (code !== 0) {
    throw new Error(
      `Cannot keep workers running as their supervisor must run: it ended with ${code}`,
    );
  }
}

/** Runs a supervisor that has the socket as file descriptor 0. @returns Its exit code or signal. */
async function runSupervisor(
  socket: SharedSocket,
  { workers, command, onListen }: PreforkOptions,
): Promise<number | string> {
  const supervisor = spawn(Deno.execPath(), [
    "run",
    "--quiet",
    "--no-prompt",
    "--allow-run",
    "--allow-env",
    import.meta.url,
    JSON.stringify({ workers, command }),
  ], { stdio: [socket.fd, "inherit", "inherit", "ipc"] });
  supervisor.on("message", (message) => {
    if (message === SERVING && socket.addr !== undefined) onListen?.(socket.addr);
  });
  const signals = ["SIGTERM", "SIGINT", "SIGHUP"] as const;
  // As messages: to send a signal, Deno needs --allow-run without a list.
  const forward = signals.map((signal) => () => void supervisor.send(signal));
  signals.forEach((signal, i) => Deno.addSignalListener(signal, forward[i]));
  const result = await ended(supervisor);
  signals.forEach((signal, i) => Deno.removeSignalListener(signal, forward[i]));
  return result;
}

/** Runs workers on file descriptor 0. @returns The exit code. */
async function supervise(count: number, command: string[]): Promise<number> {
  const children = new Set<ChildProcess>();
  const retired = new WeakSet<ChildProcess>();
  const serving = Promise.withResolvers<void>();
  const done = Promise.withResolvers<number>();
  let phase: "starting" | "serving" | "stopping" = "starting";
  let failures = 0;
  let replacing = serving.promise;

  /**
   * Starts a worker, unless all are to end. Resolves to true when it serves, or to false when it has ended.
   *
   * @param needed Whether it is replaced if it ends before it serves.
   */
  function start(needed: boolean): Promise<boolean> {
    if (phase === "stopping") return Promise.resolve(false);
    const child = spawn(Deno.execPath(), command, {
      stdio: ["inherit", "inherit", "inherit", "ipc"],
    });
    const started = performance.now();
    const ready = Promise.withResolvers<boolean>();
    children.add(child);
    child.once("message", () => {
      needed = true;
      ready.resolve(true);
      serve();
    });
    child.once("exit", (code, signal) => {
      children.delete(child);
      ready.resolve(false);
      const how = `Worker ${child.pid} ended with ${signal ?? `code ${code}`}`;
      if (phase === "stopping") {
        if (children.size === 0) done.resolve(0);
      } else if (phase === "starting") {
        logLine(how);
        if (children.size === 0) done.resolve(NO_WORKER);
      } else if (needed && !retired.has(child)) {
        failures = performance.now() - started > HEALTHY ? 0 : failures + 1;
        const pause = BACKOFF[Math.min(failures, BACKOFF.length - 1)];
        logLine(`${how}: replaced in ${pause} ms`);
        setTimeout(() => start(true), pause);
      }
    });
    return ready.promise;
  }

  /** Enters the phase in which workers that end are replaced, and replaces those that have ended at their start. */
  function serve(): void {
    if (phase !== "starting") return;
    phase = "serving";
    serving.resolve();
    process.send?.(SERVING);
    while (children.size < count) start(true);
  }

  /** Replaces each worker once its successor serves. Stops if a successor ends first. */
  async function replaceAll(): Promise<void> {
    for (const child of [...children]) {
      // It ended meanwhile, and was replaced.
      if (!children.has(child)) continue;
      // Its successor replaces it, even if it ends first.
      retired.add(child);
      if (!await start(false)) {
        if (phase === "stopping") return;
        retired.delete(child);
        if (!children.has(child)) start(true);
        logLine("Kept the workers as a new one must start to replace them: it ended");
        return;
      }
      if (!children.has(child)) continue;
      terminate(child);
      await ended(child);
    }
  }

  function stop(): void {
    phase = "stopping";
    if (children.size === 0) done.resolve(0);
    for (const child of children) terminate(child);
  }

  const replace = () => void (replacing = replacing.then(replaceAll));
  Deno.addSignalListener("SIGTERM", stop);
  Deno.addSignalListener("SIGINT", stop);
  Deno.addSignalListener("SIGHUP", replace);
  process.on("message", (signal) => signal === "SIGHUP" ? replace() : stop());
  await reportReady(stop);
  for (let i = 0; i < count; i++) start(true);
  // A worker that does not report that it serves has started if it still runs.
  const timer = setTimeout(serve, HEALTHY);
  const code = await done.promise;
  clearTimeout(timer);
  Deno.removeSignalListener("SIGTERM", stop);
  Deno.removeSignalListener("SIGINT", stop);
  Deno.removeSignalListener("SIGHUP", replace);
  return code;
}

/** Ends a worker. */
function terminate(child: ChildProcess): void {
  try {
    Deno.kill(child.pid!, "SIGTERM");
  } catch (error) {
    if (!(error instanceof Deno.errors.NotCapable)) return;
    // Closes the IPC channel as well: the message says that the supervisor has not ended.
    child.send("SIGTERM", () => child.kill("SIGTERM"));
  }
}

/** Resolves to the exit code of a process, or to the signal that ended it. */
function ended(child: ChildProcess): Promise<number | string> {
  return new Promise((resolve) => {
    child.once("exit", (code, signal) => resolve(signal ?? code ?? 0));
  });
}

interface SharedSocket {
  fd: number;
  /** Absent if the socket is inherited. */
  addr?: Deno.Addr;
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
      `Cannot share file descriptor ${fd} as it must be a listening socket: it is not, or Deno does not show it. ` +
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
    if (unix) openPrivately(() => server.listen({ path }, resolve));
    else server.listen({ host: address.hostname, port: address.port }, resolve);
  });
  const handle = (server as unknown as { _handle: { fdForIpc(): number } })._handle;
  const bound = server.address();
  const fd = handle.fdForIpc();
  try {
    if (unix) {
      applyOwnership(path, options);
      Deno.renameSync(path, address.path);
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

if (import.meta.main) {
  const { workers, command } = JSON.parse(Deno.args[0]);
  Deno.exit(await supervise(workers, command) || undefined);
}
