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
import { createServer } from "node:net";
import { parseAddress } from "./address.ts";
import { applyOwnership, type ListenOptions, removeStaleSocket } from "./listen.ts";
import { reportReady } from "./worker.ts";

/** Options of {@linkcode prefork}. */
export interface PreforkOptions extends ListenOptions {
  /** Where to listen, `host:port` or `unix:/path`; absent if file descriptor 0 is the listening socket already. */
  listen?: string;
  /** How many workers to keep. */
  workers: number;
  /** A worker's command line, after the name of the Deno executable. */
  command: string[];
  /** Called once the socket listens. */
  onListen?: (addr: Deno.Addr) => void;
}

/** How long to wait before a worker that ended is replaced: longer each time, as long as none stays up. */
const BACKOFF = [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000];
/** A worker that was up for so long has not failed at its start. */
const HEALTHY = 10_000;

/**
 * Keeps workers running until SIGTERM or SIGINT, which drains them all; one that ends is replaced. SIGHUP replaces them one
 * by one; the socket stays open throughout, so that no connection is refused.
 *
 * Needs `--allow-run` of Deno itself and `--allow-env`; to listen, `--allow-net` of the address, for a Unix socket
 * `--allow-read` and `--allow-write` of its path as well.
 *
 * @returns Resolves when all workers have ended.
 * @throws {Error} If the address is in use.
 */
export async function prefork(options: PreforkOptions): Promise<void> {
  const { listen, workers, command } = options;
  if (listen === undefined) return await supervise(workers, command);
  const socket = await openSocket(listen, options);
  const supervisor = spawn(Deno.execPath(), [
    "run",
    "--quiet",
    "--no-prompt",
    "--allow-run",
    "--allow-env",
    import.meta.url,
    JSON.stringify({ workers, command }),
  ], { stdio: [socket.fd, "inherit", "inherit", "ipc"] });
  options.onListen?.(socket.addr);
  const signals = ["SIGTERM", "SIGINT", "SIGHUP"] as const;
  const forward = signals.map((signal) => () => send(supervisor, signal));
  signals.forEach((signal, i) => Deno.addSignalListener(signal, forward[i]));
  await ended(supervisor);
  signals.forEach((signal, i) => Deno.removeSignalListener(signal, forward[i]));
  socket.remove();
}

/** Keeps workers running on file descriptor 0. */
async function supervise(count: number, command: string[]): Promise<void> {
  const children = new Set<ChildProcess>();
  const retired = new WeakSet<ChildProcess>();
  const done = Promise.withResolvers<void>();
  let stopping = false;
  let failures = 0;
  let replacing = Promise.resolve();

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
    });
    child.once("exit", (code, signal) => {
      children.delete(child);
      ready.resolve(false);
      if (stopping) {
        if (children.size === 0) done.resolve();
      } else if (needed && !retired.has(child)) {
        failures = performance.now() - started > HEALTHY ? 0 : failures + 1;
        const pause = BACKOFF[Math.min(failures, BACKOFF.length - 1)];
        console.error(
          `Worker ${child.pid} ended with ${signal ?? `code ${code}`}: replaced in ${pause} ms`,
        );
        setTimeout(() => stopping || start(true), pause);
      }
    });
    return ready.promise;
  }

  /** Replaces each worker once its successor serves; keeps it where the successor fails. */
  async function replaceAll(): Promise<void> {
    for (const child of [...children]) {
      if (stopping) return;
      if (!await start(false)) {
        console.error("Kept the workers as a new one must start to replace them: it ended");
        return;
      }
      retired.add(child);
      send(child, "SIGTERM");
      await ended(child);
    }
  }

  function stop(): void {
    stopping = true;
    if (children.size === 0) done.resolve();
    for (const child of children) send(child, "SIGTERM");
  }

  const replace = () => void (replacing = replacing.then(replaceAll));
  Deno.addSignalListener("SIGTERM", stop);
  Deno.addSignalListener("SIGINT", stop);
  Deno.addSignalListener("SIGHUP", replace);
  await reportReady(stop);
  for (let i = 0; i < count; i++) start(true);
  await done.promise;
  Deno.removeSignalListener("SIGTERM", stop);
  Deno.removeSignalListener("SIGINT", stop);
  Deno.removeSignalListener("SIGHUP", replace);
}

/** ChildProcess.kill() would close the channel to the child as well, and it would think itself orphaned. */
function send(child: ChildProcess, signal: Deno.Signal): void {
  try {
    Deno.kill(child.pid!, signal);
  } catch {
    // It has ended.
  }
}

function ended(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => child.once("exit", () => resolve()));
}

interface SharedSocket {
  fd: number;
  addr: Deno.Addr;
  remove(): void;
}

/** Opens a listening socket and keeps a descriptor of it that no event loop accepts on. */
async function openSocket(listen: string, options: ListenOptions): Promise<SharedSocket> {
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
      if (unix) Deno.removeSync(address.path);
    },
  };
}

if (import.meta.main) {
  const { workers, command } = JSON.parse(Deno.args[0]);
  await supervise(workers, command);
}
