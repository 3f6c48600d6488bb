import type { Server as NodeServer, Socket } from "node:net";
import type { Duplex, Listener } from "./duplex.ts";

/** Options of {@linkcode inheritedListener}. */
export interface InheritedListenerOptions {
  /**
   * The file descriptor of the listening socket.
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
  // Deno.listen({ fd }) would open another socket; node:net uses this one.
  const { createServer } = await import("node:net");
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true });
  // Created before listening starts: on a shared socket a connection may be waiting.
  const listener = new InheritedListener(server);
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error) => {
      reject(
        new Error(
          `Cannot listen on file descriptor ${fd} as it must be a listening socket: ${error.message}`,
          { cause: error },
        ),
      );
    });
    server.listen({ fd }, resolve);
  });
  return listener;
}

/**
 * Listens on standard input if it is a listening socket, as when a web server spawns a FastCGI application. Otherwise
 * returns whether it is a stream (a pipe or a connection), as the body of a CGI request is. Only an attempt to listen
 * distinguishes a listening socket from a connection, and it closes a connection.
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
  const read = (variable: string) =>
    Deno.permissions.querySync({ name: "env", variable }).state === "granted"
      ? Deno.env.get(variable)
      : undefined;
  const count = read("LISTEN_FDS");
  if (count === undefined || read("LISTEN_PID") !== String(Deno.pid)) return 0;
  if (count !== "1") {
    throw new Error(
      `Cannot listen on an inherited socket as LISTEN_FDS must be 1: current value is ${count}. Choose a socket by its fd`,
    );
  }
  return LISTEN_FDS_START;
}

class InheritedListener implements Listener {
  #server: NodeServer;
  #sockets: Socket[] = [];
  #waiting: PromiseWithResolvers<void> | null = null;
  #closed = false;
  #error: Error | null = null;

  constructor(server: NodeServer) {
    this.#server = server;
    server.on("connection", (socket) => {
      this.#sockets.push(socket);
      this.#wake();
    });
    server.on("error", (error) => {
      this.#error = error;
      this.#wake();
    });
  }

  get addr(): Deno.Addr {
    return toAddr(this.#server.address());
  }

  async *[Symbol.asyncIterator](): AsyncIterator<Duplex> {
    while (true) {
      const socket = this.#sockets.shift();
      if (socket !== undefined) yield new SocketDuplex(socket);
      else if (this.#error !== null) throw this.#error;
      else if (this.#closed) return;
      else await (this.#waiting = Promise.withResolvers()).promise;
    }
  }

  close(): void {
    this.#closed = true;
    this.#server.close();
    this.#wake();
  }

  ref(): void {
    this.#server.ref();
  }

  unref(): void {
    this.#server.unref();
  }

  #wake(): void {
    this.#waiting?.resolve();
    this.#waiting = null;
  }
}

function toAddr(address: ReturnType<NodeServer["address"]>): Deno.Addr {
  if (address === null || typeof address === "string") {
    return { transport: "unix", path: address ?? "" };
  }
  return { transport: "tcp", hostname: address.address, port: address.port };
}

/** A node:net socket with the shape of `Deno.Conn`. */
class SocketDuplex implements Duplex {
  readonly remoteAddr: Deno.Addr;
  readonly ignoresEmptyWrites = true;
  #socket: Socket;
  #chunk: Uint8Array | null = null;
  #ended = false;
  #error: Error | null = null;
  #waiting: PromiseWithResolvers<void> | null = null;

  constructor(socket: Socket) {
    this.#socket = socket;
    this.remoteAddr = socket.remoteAddress === undefined
      ? { transport: "unix", path: "" }
      : { transport: "tcp", hostname: socket.remoteAddress, port: socket.remotePort ?? 0 };
    socket.on("data", (chunk: Uint8Array) => {
      socket.pause();
      this.#chunk = chunk;
      this.#wake();
    });
    socket.on("end", () => {
      this.#ended = true;
      this.#wake();
    });
    socket.on("error", (error) => {
      this.#error = error;
      this.#wake();
    });
    socket.on("close", () => {
      this.#ended = true;
      this.#wake();
    });
  }

  async read(buffer: Uint8Array): Promise<number | null> {
    while (this.#chunk === null) {
      if (this.#error !== null) throw this.#error;
      if (this.#ended) return null;
      this.#socket.resume();
      await (this.#waiting = Promise.withResolvers()).promise;
    }
    const part = this.#chunk.subarray(0, buffer.length);
    buffer.set(part);
    this.#chunk = part.length < this.#chunk.length ? this.#chunk.subarray(part.length) : null;
    return part.length;
  }

  write(bytes: Uint8Array): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#socket.write(bytes, (error) => error ? reject(error) : resolve(bytes.length));
    });
  }

  closeWrite(): Promise<void> {
    return new Promise((resolve) => this.#socket.end(resolve));
  }

  close(): void {
    this.#socket.destroy();
    this.#wake();
  }

  setNoDelay(on?: boolean): void {
    this.#socket.setNoDelay(on);
  }

  #wake(): void {
    this.#waiting?.resolve();
    this.#waiting = null;
  }
}
