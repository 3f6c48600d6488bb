/**
 * Several processes that share one listening socket: a supervisor holds it and never accepts; its workers inherit it as
 * file descriptor 0.
 *
 * @module
 */

import { spawn } from "node:child_process";
import { createServer } from "node:net";
import { applyOwnership, type ListenOptions, parseAddress, removeStaleSocket } from "./listen.ts";

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
  /** Where the supervisor's own log goes. @default console.error */
  log?: (message: string) => void;
}

/** How long to wait before a worker that ended is replaced: longer each time, as long as none stays up. */
const BACKOFF = [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000];
/** A worker that was up for so long has not failed at its start. */
const HEALTHY = 10_000;

type Child = ReturnType<typeof spawn>;

/**
 * Keeps workers running until SIGTERM or SIGINT, which drains them all. SIGHUP replaces them one by one; the socket
 * stays open throughout, so that no connection is refused.
 *
 * @returns Resolves when all workers have ended.
 */
export async function prefork(options: PreforkOptions): Promise<void> {
  const { log = console.error, workers, command } = options;
  const socket = options.listen === undefined ? inheritedSocket() : await openSocket(options);
  options.onListen?.(socket.addr);
  const children = new Set<Child>();
  const done = Promise.withResolvers<void>();
  let stopping = false;
  let failures = 0;
  let replacing = Promise.resolve();

  /** Starts a worker; resolves when it serves, or has ended. */
  function start(): Promise<boolean> {
    const child = spawn(Deno.execPath(), command, {
      stdio: [socket.fd, "inherit", "inherit", "ipc"],
    });
    const started = performance.now();
    const ready = Promise.withResolvers<boolean>();
    children.add(child);
    child.once("message", () => ready.resolve(true));
    child.once("exit", (code, signal) => {
      children.delete(child);
      ready.resolve(false);
      if (stopping) {
        if (children.size === 0) done.resolve();
      } else if (!retired.has(child)) {
        failures = performance.now() - started > HEALTHY ? 0 : failures + 1;
        const pause = BACKOFF[Math.min(failures, BACKOFF.length - 1)];
        log(
          `Worker ${child.pid} ended with ${signal ?? `code ${code}`}: replaced in ${pause} ms`,
        );
        setTimeout(() => stopping || start(), pause);
      }
    });
    return ready.promise;
  }

  const retired = new WeakSet<Child>();

  /** Replaces each worker once its successor serves; keeps it where the successor fails. */
  async function replaceAll(): Promise<void> {
    for (const child of [...children]) {
      if (stopping) return;
      if (!await start()) {
        log("Kept the workers as a new one must start to replace them: it ended");
        return;
      }
      retired.add(child);
      const exit = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGTERM");
      await exit;
    }
  }

  function stop(): void {
    stopping = true;
    if (children.size === 0) done.resolve();
    for (const child of children) child.kill("SIGTERM");
  }

  const replace = () => void (replacing = replacing.then(replaceAll));
  Deno.addSignalListener("SIGTERM", stop);
  Deno.addSignalListener("SIGINT", stop);
  Deno.addSignalListener("SIGHUP", replace);
  for (let i = 0; i < workers; i++) start();
  await done.promise;
  Deno.removeSignalListener("SIGTERM", stop);
  Deno.removeSignalListener("SIGINT", stop);
  Deno.removeSignalListener("SIGHUP", replace);
  socket.close();
}

interface SharedSocket {
  fd: number;
  addr: Deno.Addr;
  close(): void;
}

function inheritedSocket(): SharedSocket {
  return { fd: 0, addr: { transport: "unix", path: "" }, close: () => {} };
}

/** Opens a listening socket and keeps a descriptor of it that no event loop accepts on. */
async function openSocket(options: PreforkOptions): Promise<SharedSocket> {
  const address = parseAddress(options.listen!);
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
    close: () => {
      if (unix) Deno.removeSync(address.path);
    },
  };
}
