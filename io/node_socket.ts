import { createServer, type Server, type Socket } from "node:net";
import { clearImmediate, setImmediate } from "node:timers";
import type { Duplex } from "./duplex.ts";
import { inheritedBacklog, type ListeningSocket } from "./listening_socket.ts";
import { duplicateDescriptor } from "./private_fields.ts";

/**
 * A listening socket of node:net. It accepts without a limit, so it pauses by closing its server. When a server closes,
 * node:net drops the connections that it has accepted and not yet reported, but it reports all in one turn of the event
 * loop.
 */
export class NodeSocket implements ListeningSocket {
  addr: Deno.Addr = toAddr(null);
  #arrived: () => void;
  #failed: (error: Error) => void;
  #server: Server;
  #connections: NodeConnection[] = [];
  #pausing: ReturnType<typeof setImmediate> | undefined;
  /** The descriptor of a paused socket, or -1. */
  #paused = -1;
  #keepsAlive = true;

  /**
   * @param arrived Called for each connection.
   * @param failed Called if the socket cannot listen again after a pause.
   */
  constructor(arrived: () => void, failed: (error: Error) => void) {
    this.#arrived = arrived;
    this.#failed = failed;
    this.#server = this.#createServer();
  }

  /** @throws {Error} If the descriptor is not a listening socket. */
  async listen(fd: number): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#server.once("error", reject);
    this.#server.listen({ fd }, inheritedBacklog(), resolve);
    await promise;
    this.addr = toAddr(this.#server.address());
  }

  /** Creates a server with its handlers: on a shared socket a connection may come as soon as it listens. */
  #createServer(): Server {
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true });
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

function toAddr(address: ReturnType<Server["address"]>): Deno.Addr {
  if (address === null || typeof address === "string") {
    return { transport: "unix", path: address ?? "" };
  }
  return { transport: "tcp", hostname: address.address, port: address.port };
}

/** A node:net socket with the shape of `Deno.Conn`. */
export class NodeConnection implements Duplex {
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
