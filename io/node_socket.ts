import type * as Net from "node:net";
import type { ListenOptions, Server, Socket } from "node:net";
import type { Endpoint } from "./address.ts";
import type { Duplex } from "./duplex.ts";
import { inheritedBacklog, type ListeningSocket } from "./listening_socket.ts";
import { duplicateDescriptor } from "./private_fields.ts";
import type { Addr } from "./addr.ts";

/**
 * A listening socket of node:net. It accepts without a limit, so it pauses by closing its server. When a server closes,
 * node:net drops the connections that it has accepted and not yet reported, but it reports all in one turn of the event
 * loop.
 */
export class NodeSocket implements ListeningSocket {
  addr: Addr = toAddr(null);
  #net: typeof Net;
  #arrived: () => void;
  #failed: (error: Error) => void;
  #server: Server;
  #connections: NodeConnection[] = [];
  #pausing: ReturnType<typeof setImmediate> | undefined;
  /** The descriptor of a paused socket, or -1. */
  #paused = -1;
  #keepsAlive = true;

  /**
   * @param net node:net, which a script that is bundled into one file would load for CGI if it were imported above.
   * @param arrived Called for each connection.
   * @param failed Called if the socket cannot listen again after a pause.
   */
  constructor(net: typeof Net, arrived: () => void, failed: (error: Error) => void) {
    this.#net = net;
    this.#arrived = arrived;
    this.#failed = failed;
    this.#server = this.#createServer();
  }

  /**
   * Listens on an address, or on a descriptor. A path, and a descriptor, are bound when this returns.
   *
   * @throws {Error} If that is not possible.
   */
  async listen(where: ListenOptions & { fd?: number }, backlog: number): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#server.once("error", reject);
    this.#server.listen(where, backlog, resolve);
    await promise;
    this.addr = toAddr(this.#server.address());
  }

  /** Whether the socket is bound. */
  get bound(): boolean {
    return this.#server.listening;
  }

  /** Creates a server with its handlers: on a shared socket a connection may come as soon as it listens. */
  #createServer(): Server {
    const server = this.#net.createServer({ allowHalfOpen: true, pauseOnConnect: true });
    server.on("connection", (socket) => {
      this.#connections.push(new NodeConnection(socket));
      this.#arrived();
    });
    server.on("error", (error) => this.#failed(error));
    return server;
  }

  accept(): Duplex | null {
    return this.#connections.shift() ?? null;
  }

  pause(): void {
    this.#pausing ??= setImmediate(() => {
      this.#pausing = undefined;
      const fd = duplicateDescriptor(this.#server) ?? -1;
      if (fd === -1) return;
      this.#paused = fd;
      this.#server.close();
    });
  }

  resume(): boolean {
    if (this.#pausing !== undefined) {
      clearImmediate(this.#pausing);
      this.#pausing = undefined;
      return true;
    }
    let fd: number | undefined = this.#paused;
    if (fd === -1) {
      fd = duplicateDescriptor(this.#server);
      if (fd === undefined) return true;
      if (fd === -1) return false;
      this.#server.close();
    }
    this.#paused = -1;
    this.#server = this.#createServer();
    this.#server.listen({ fd }, inheritedBacklog());
    if (!this.#keepsAlive) this.#server.unref();
    return true;
  }

  ref(): void {
    this.#keepsAlive = true;
    this.#server.ref();
  }

  unref(): void {
    this.#keepsAlive = false;
    this.#server.unref();
  }

  close(): void {
    // Only a server can close the descriptor.
    if (this.#paused !== -1) this.resume();
    clearImmediate(this.#pausing);
    this.#server.close();
  }
}

function toAddr(address: ReturnType<Server["address"]>): Addr {
  if (typeof address === "string") return { transport: "unix", path: address };
  // Bun has an empty object for an inherited Unix socket.
  if (address?.address === undefined) return { transport: "unix", path: "" };
  return { transport: "tcp", hostname: address.address, port: address.port };
}

/**
 * Connects by node:net.
 *
 * @throws The error of node:net, or the signal's reason.
 */
export async function connectNode(endpoint: Endpoint, signal?: AbortSignal): Promise<Duplex> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const { createConnection } = await import("node:net");
  const socket = createConnection({
    ...(endpoint.transport === "unix"
      ? { path: endpoint.path }
      : { host: endpoint.hostname, port: endpoint.port }),
    allowHalfOpen: true,
  });
  const abort = () => reject(signal!.reason);
  signal?.addEventListener("abort", abort);
  socket.once("error", reject);
  socket.once("connect", resolve);
  try {
    await promise;
  } catch (error) {
    socket.destroy();
    throw error;
  } finally {
    signal?.removeEventListener("abort", abort);
    socket.off("error", reject);
  }
  return new NodeConnection(socket);
}

interface PendingRead {
  buffer: Uint8Array;
  resolve(count: number | null): void;
  reject(error: Error): void;
}

/** A node:net socket with the shape of `Deno.Conn`. */
export class NodeConnection implements Duplex {
  readonly remoteAddr: Addr;
  readonly ignoresEmptyWrites = true;
  #socket: Socket;
  /** A chunk that no read has taken yet. One may arrive while nobody reads: to pause for each would cost more. */
  #chunks: Uint8Array[] = [];
  #ended = false;
  #error: Error | null = null;
  /** The read that is pending. */
  #reading: PendingRead | null = null;

  constructor(socket: Socket) {
    this.#socket = socket;
    this.remoteAddr = socket.remoteAddress === undefined
      ? { transport: "unix", path: "" }
      : { transport: "tcp", hostname: socket.remoteAddress, port: socket.remotePort ?? 0 };
    socket.on("data", (chunk: Uint8Array) => {
      if (this.#chunks.push(chunk) > 1) socket.pause();
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

  // Neither this nor write() is an async function, which would create more promises for each request.
  read(buffer: Uint8Array): Promise<number | null> {
    if (this.#chunks.length > 0) return Promise.resolve(this.#take(buffer));
    if (this.#error !== null) return Promise.reject(this.#error);
    if (this.#ended) return Promise.resolve(null);
    if (this.#socket.isPaused()) this.#socket.resume();
    return new Promise((resolve, reject) => this.#reading = { buffer, resolve, reject });
  }

  #take(buffer: Uint8Array): number {
    const [chunk] = this.#chunks;
    const part = chunk.subarray(0, buffer.length);
    buffer.set(part);
    if (part.length < chunk.length) this.#chunks[0] = chunk.subarray(part.length);
    else this.#chunks.shift();
    return part.length;
  }

  write(bytes: Uint8Array): Promise<number> {
    const socket = this.#socket;
    let settle: ((error?: Error | null) => void) | undefined;
    socket.write(bytes, (error) => settle?.(error));
    // The system has taken them already, as it does unless the peer is slow.
    if (socket.writableLength === 0 && socket.writable) return Promise.resolve(bytes.length);
    return new Promise((resolve, reject) =>
      settle = (error) => error ? reject(error) : resolve(bytes.length)
    );
  }

  closeWrite(): Promise<void> {
    return new Promise((resolve) => this.#socket.end(resolve));
  }

  close(): void {
    this.#socket.destroy();
  }

  ref(): void {
    this.#socket.ref();
  }

  unref(): void {
    this.#socket.unref();
  }

  setNoDelay(on?: boolean): void {
    this.#socket.setNoDelay(on);
  }

  #wake(): void {
    const reading = this.#reading;
    if (reading === null) return;
    this.#reading = null;
    if (this.#chunks.length > 0) reading.resolve(this.#take(reading.buffer));
    else if (this.#error !== null) reading.reject(this.#error);
    else reading.resolve(null);
  }
}
