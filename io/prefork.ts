/**
 * Several processes that share one listening socket. Each has it as file descriptor 0: this process opens it, and hands it
 * to a supervisor, which never accepts and whose workers inherit it.
 *
 * The supervisor is a process of its own because only a descriptor that is inherited as it is stays as it is: one that is
 * handed down by number is made blocking, for all who share it, and a worker that finds nobody waiting would stand still.
 *
 * @module
 */

import { type ChildProcess, spawn } from "node:child_process";
import { fstatSync } from "node:fs";
import { createServer } from "node:net";
import { parseAddress } from "./address.ts";
import { applyOwnership, type ListenOptions, removeQuietly, removeStaleSocket } from "./listen.ts";
import { reportReady } from "./worker.ts";

/** Options of {@linkcode prefork}. */
export interface PreforkOptions extends ListenOptions {
  /**
   * Where to listen: `host:port`, `unix:/path`, or `fd:N` for a listening socket that another program opened.
   *
   * @default "fd:0"
   */
  listen?: string;
  /** How many workers to keep. */
  workers: number;
  /** A worker's command line, after the name of the Deno executable. It has the socket as file descriptor 0. */
  command: string[];
  /** Called once the socket listens, but not for one that another program opened. */
  onListen?: (addr: Deno.Addr) => void;
}

/** How long to wait before a worker that ended is replaced: longer each time, as long as none stays up. */
const BACKOFF = [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000];
/** A worker that was up for so long has not failed at its start. */
const HEALTHY = 10_000;
/** How the supervisor ends where no worker starts. */
const NO_WORKER = 3;

/**
 * Keeps workers running until SIGTERM or SIGINT, which drains them all; one that ends is replaced. SIGHUP replaces them one
 * by one; the socket stays open throughout, so that no connection is refused.
 *
 * Needs `--allow-run` of Deno itself and `--allow-env`. To listen on TCP, it needs `--allow-net` of the address; on a Unix
 * socket, `--allow-net`, `--allow-read` and `--allow-write` of its path, and of the same path with `.new` at its end,
 * where the socket is until it has its mode and group: `--allow-net=unix:/run/app.sock,unix:/run/app.sock.new`.
 *
 * @returns Resolves when all workers have ended.
 * @throws {Error} If the address is in use, or none of the first workers starts.
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
      "Cannot start the workers as at least one must serve: all ended. What they wrote says why",
    );
  }
  if (code !== 0) {
    throw new Error(
      `Cannot keep workers running as their supervisor must run: it ended with ${code}`,
    );
  }
}

/** Runs a supervisor that has the socket as file descriptor 0. @returns How it ended. */
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
  const signals = ["SIGTERM", "SIGINT", "SIGHUP"] as const;
  // Not before it minds them.
  const ready = new Promise<void>((resolve) => supervisor.once("message", () => resolve()));
  const forward = signals.map((signal) => () => void ready.then(() => send(supervisor, signal)));
  signals.forEach((signal, i) => Deno.addSignalListener(signal, forward[i]));
  if (socket.addr !== undefined) onListen?.(socket.addr);
  const result = await ended(supervisor);
  signals.forEach((signal, i) => Deno.removeSignalListener(signal, forward[i]));
  return result;
}

/** Keeps workers running on file descriptor 0. @returns The code to exit with. */
async function supervise(count: number, command: string[]): Promise<number> {
  const children = new Set<ChildProcess>();
  const retired = new WeakSet<ChildProcess>();
  const serving = Promise.withResolvers<void>();
  const done = Promise.withResolvers<number>();
  let phase: "starting" | "serving" | "stopping" = "starting";
  let failures = 0;
  let replacing = serving.promise;

  /**
   * Starts a worker; resolves when it serves, or has ended.
   *
   * @param needed Whether it must be replaced if it ends before it serves.
   */
  function start(needed: boolean): Promise<boolean> {
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
        console.error(how);
        if (children.size === 0) done.resolve(NO_WORKER);
      } else if (needed && !retired.has(child)) {
        failures = performance.now() - started > HEALTHY ? 0 : failures + 1;
        const pause = BACKOFF[Math.min(failures, BACKOFF.length - 1)];
        console.error(`${how}: replaced in ${pause} ms`);
        setTimeout(() => phase === "stopping" || start(true), pause);
      }
    });
    return ready.promise;
  }

  /** From now on workers that end are replaced, and those that did not start once more. */
  function serve(): void {
    if (phase !== "starting") return;
    phase = "serving";
    serving.resolve();
    while (children.size < count) start(true);
  }

  /** Replaces each worker once its successor serves; keeps it where the successor fails. */
  async function replaceAll(): Promise<void> {
    for (const child of [...children]) {
      if (phase === "stopping") return;
      // It ended meanwhile, and was replaced.
      if (!children.has(child)) continue;
      // Its successor replaces it, even if it ends first.
      retired.add(child);
      if (!await start(false)) {
        retired.delete(child);
        if (!children.has(child)) start(true);
        console.error("Kept the workers as a new one must start to replace them: it ended");
        return;
      }
      if (!children.has(child)) continue;
      send(child, "SIGTERM");
      await ended(child);
    }
  }

  function stop(): void {
    phase = "stopping";
    if (children.size === 0) done.resolve(0);
    for (const child of children) send(child, "SIGTERM");
  }

  const replace = () => void (replacing = replacing.then(replaceAll));
  Deno.addSignalListener("SIGTERM", stop);
  Deno.addSignalListener("SIGINT", stop);
  Deno.addSignalListener("SIGHUP", replace);
  await reportReady(stop);
  for (let i = 0; i < count; i++) start(true);
  // A worker that does not report when it serves has started if it is still there.
  const timer = setTimeout(serve, HEALTHY);
  const code = await done.promise;
  clearTimeout(timer);
  Deno.removeSignalListener("SIGTERM", stop);
  Deno.removeSignalListener("SIGINT", stop);
  Deno.removeSignalListener("SIGHUP", replace);
  return code;
}

/** ChildProcess.kill() would close the channel to the child as well, and it would think itself orphaned. */
function send(child: ChildProcess, signal: Deno.Signal): void {
  try {
    Deno.kill(child.pid!, signal);
  } catch {
    // It has ended.
  }
}

/** Resolves with its exit code, or the signal that ended it. */
function ended(child: ChildProcess): Promise<number | string> {
  return new Promise((resolve) => {
    child.once("exit", (code, signal) => resolve(signal ?? code ?? 0));
  });
}

interface SharedSocket {
  fd: number;
  /** Absent where another program opened it. */
  addr?: Deno.Addr;
  remove(): void;
}

/** A listening socket that another program opened. */
function inheritedSocket(fd: number): SharedSocket {
  let isSocket = false;
  try {
    isSocket = fstatSync(fd).isSocket();
  } catch {
    // It is not open.
  }
  if (!isSocket) {
    throw new Error(
      `Cannot share file descriptor ${fd} as it must be a listening socket: it is none`,
    );
  }
  return { fd, remove: () => {} };
}

/** Opens a listening socket and keeps a descriptor of it that no event loop accepts on. */
async function openSocket(listen: string, options: ListenOptions): Promise<SharedSocket> {
  const descriptor = /^fd:(\d+)$/.exec(listen);
  if (descriptor !== null) return inheritedSocket(Number(descriptor[1]));
  const address = parseAddress(listen);
  const server = createServer((socket) => socket.destroy());
  const unix = address.transport === "unix";
  // Closing the server removes its path: it gets one of its own, and the socket another name.
  const path = unix ? `${address.path}.new` : "";
  if (unix) await removeStaleSocket(address.path);
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(unix ? { path } : { host: address.hostname, port: address.port }, resolve);
  });
  const handle = (server as unknown as { _handle: { fdForIpc(): number } })._handle;
  const bound = server.address();
  const fd = handle.fdForIpc();
  if (unix) {
    applyOwnership(path, options);
    Deno.renameSync(path, address.path);
  }
  server.close();
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
  Deno.exit(await supervise(workers, command));
}
