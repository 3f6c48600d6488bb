import type { createServer, Server as NodeServer, Socket } from "node:net";
import type { Duplex, Listener } from "./duplex.ts";

/** The number of connections that may wait to be served before accepting pauses. */
const PAUSE_AT = 64;
/** The maximum number that may wait: node:net accepts all that have arrived before it reports the first. */
const MAX_WAITING = 1024;
/** The minimum and maximum time without a connection after which the server is renewed, in milliseconds. */
const MIN_SILENCE = 500;
const MAX_SILENCE = 16_000;

/** The part of a server's handle that node:net does not document. */
interface Handle {
  /** Duplicates the descriptor. Returns -1 if the process has no free one. */
  fdForIpc?(): number;
}

/**
 * Accepts the connections of a listening socket by node:net, as `Deno.listen` cannot use a descriptor. But node:net
 * accepts without a limit, and stops for good, without an event, when the process runs out of descriptors. A new server
 * on a duplicate of the descriptor solves both: the listener closes its server to pause, starts another to resume, and
 * renews it when no connection has come for some time.
 */
export class InheritedListener implements Listener {
  addr: Deno.Addr = toAddr(null);
  /** Exhausted: the process has no free descriptor, so that the server may have stopped. */
  #phase: "listening" | "paused" | "exhausted" | "closed" = "listening";
  #createServer: typeof createServer;
  #server: NodeServer;
  /** The descriptor to resume on. */
  #pausedDescriptor = -1;
  #sockets: Socket[] = [];
  #error: Error | null = null;
  #waiting: PromiseWithResolvers<void> | null = null;
  #keepsAlive = true;
  /** Whether a connection has come since the last check. */
  #accepted = false;
  #silence = MIN_SILENCE;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /**
   * Listens on a descriptor.
   *
   * @throws {Error} If it is not a listening socket.
   */
  static async open(fd: number): Promise<InheritedListener> {
    const listener = new InheritedListener((await import("node:net")).createServer);
    await new Promise<void>((resolve, reject) => {
      listener.#server.once("error", reject);
      listener.#server.listen({ fd }, resolve);
    });
    listener.addr = toAddr(listener.#server.address());
    listener.#schedule();
    return listener;
  }

  private constructor(create: typeof createServer) {
    this.#createServer = create;
    this.#server = this.#newServer();
  }

  /** Creates a server with its handlers: on a shared socket a connection may come as soon as it listens. */
  #newServer(): NodeServer {
    const server = this.#createServer({ allowHalfOpen: true, pauseOnConnect: true });
    server.on("connection", (socket) => this.#accept(socket));
    server.on("error", (error) => {
      this.#phase = "closed";
      this.#fail(error);
    });
    return server;
  }

  #accept(socket: Socket): void {
    this.#accepted = true;
    if (this.#phase === "exhausted") this.#phase = "listening";
    if (this.#sockets.length >= MAX_WAITING) {
      socket.destroy();
      return;
    }
    this.#sockets.push(socket);
    this.#wake();
    if (this.#sockets.length >= PAUSE_AT && this.#phase === "listening") this.#pause();
  }

  /** Leaves further connections in the system's queue, if the descriptor can be duplicated. */
  #pause(): void {
    const { _handle: handle } = this.#server as unknown as { _handle?: Handle | null };
    const fd = handle?.fdForIpc?.();
    if (fd === undefined) return;
    if (fd === -1) {
      if (this.#phase === "exhausted") return;
      this.#phase = "exhausted";
      this.#fail(new Error("All file descriptors are in use. Raise their limit (ulimit -n)"));
      return;
    }
    this.#phase = "paused";
    this.#pausedDescriptor = fd;
    this.#server.close();
  }

  #resume(): void {
    if (this.#phase !== "paused") return;
    this.#phase = "listening";
    this.#server = this.#newServer();
    this.#server.listen({ fd: this.#pausedDescriptor });
    if (!this.#keepsAlive) this.#server.unref();
  }

  #schedule(): void {
    this.#timer = setTimeout(() => this.#check(), this.#silence);
    Deno.unrefTimer(this.#timer as unknown as number);
  }

  /** Renews the server if no connection has come since the last check. */
  #check(): void {
    const renew = !this.#accepted && this.#phase !== "paused";
    if (renew) {
      this.#pause();
      this.#resume();
    }
    this.#silence = renew && this.#phase === "listening"
      ? Math.min(this.#silence * 2, MAX_SILENCE)
      : MIN_SILENCE;
    this.#accepted = false;
    this.#schedule();
  }

  /** Lets the next call of next() reject. */
  #fail(error: Error): void {
    this.#error = error;
    this.#wake();
  }

  #wake(): void {
    this.#waiting?.resolve();
    this.#waiting = null;
  }

  async next(): Promise<IteratorResult<Duplex>> {
    while (true) {
      const socket = this.#sockets.shift();
      if (socket !== undefined) {
        if (this.#sockets.length === 0) this.#resume();
        return { done: false, value: new SocketDuplex(socket) };
      }
      if (this.#error !== null) {
        const error = this.#error;
        this.#error = null;
        throw error;
      }
      if (this.#phase === "closed") return { done: true, value: undefined };
      await (this.#waiting = Promise.withResolvers()).promise;
    }
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  close(): void {
    if (this.#phase === "closed") return;
    // Only a server can close the descriptor.
    this.#resume();
    this.#phase = "closed";
    clearTimeout(this.#timer);
    this.#server.close();
    this.#wake();
  }

  ref(): void {
    this.#keepsAlive = true;
    this.#server.ref();
  }

  unref(): void {
    this.#keepsAlive = false;
    this.#server.unref();
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
