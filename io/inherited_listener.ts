import type * as Net from "node:net";
import type { Duplex, Listener } from "./duplex.ts";
import { inheritedBacklog, type ListeningSocket } from "./listening_socket.ts";
import { logLine } from "./log.ts";
import { type NativeSockets, nativeSockets } from "./private_fields.ts";
import type { Addr } from "./addr.ts";
import type { NodeSocket } from "./node_socket.ts";
import { denoOnly, runtime } from "./runtime.ts";

/** The number of accepted connections that may wait to be served before accepting pauses. */
const MAX_WAITING = 32;
/** The minimum and maximum time without a connection after which the socket is renewed, in milliseconds. */
const MIN_SILENCE = 500;
const MAX_SILENCE = 16_000;

let reported = false;

/** Logs once that connections cost more than necessary. */
function reportNode(): void {
  if (reported) return;
  reported = true;
  logLine(
    `Accepting connections by node:net, which takes up to twice the CPU: ${navigator.userAgent} lacks a function that the faster way needs`,
  );
}

/**
 * Accepts the connections of a listening socket that the process has inherited, as `Deno.listen` cannot use a descriptor,
 * and on Node and Bun those of any other.
 * Accepting stops without an event when the process runs out of descriptors, so the listener renews the socket when no
 * connection has come for some time.
 */
export class InheritedListener implements Listener {
  /** Exhausted: the process has no free descriptor, so that accepting may have stopped. */
  #phase: "listening" | "paused" | "exhausted" | "closed" = "listening";
  #socket!: ListeningSocket;
  #connections: Duplex[] = [];
  #error: Error | null = null;
  #waiting: PromiseWithResolvers<void> | null = null;
  /** Whether a connection has come since the last check. */
  #accepted = false;
  #silence = MIN_SILENCE;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /**
   * Listens on a descriptor.
   *
   * @param native The functions to accept connections as `Deno.listen` does; null to use node:net.
   * @throws {Error} If it is not a listening socket.
   */
  static async open(
    fd: number,
    native: NativeSockets | null | Promise<NativeSockets | null> = nativeSockets(),
  ): Promise<InheritedListener> {
    const found = await native;
    if (found === null) {
      if (denoOnly !== undefined) reportNode();
      return await InheritedListener.openNode((socket) =>
        socket.listen({ fd }, inheritedBacklog())
      );
    }
    const { NativeSocket } = await import("./native_socket.ts");
    const listener = new InheritedListener();
    listener.#socket = new NativeSocket(found, fd, () => listener.#arrived());
    listener.#schedule();
    return listener;
  }

  /**
   * Listens by node:net.
   *
   * @param listen Lets a socket listen.
   * @param net What creates its servers.
   */
  static async openNode(
    listen: (socket: NodeSocket) => Promise<void>,
    net: typeof Net | Promise<typeof Net> = import("node:net"),
  ): Promise<InheritedListener> {
    const [found, { NodeSocket }] = await Promise.all([net, import("./node_socket.ts")]);
    const listener = new InheritedListener();
    const socket = new NodeSocket(
      found,
      () => listener.#arrived(),
      (error) => listener.#break(error),
    );
    listener.#socket = socket;
    try {
      await listen(socket);
    } catch (error) {
      socket.close();
      throw error;
    }
    listener.#schedule();
    return listener;
  }

  private constructor() {}

  get addr(): Addr {
    return this.#socket.addr;
  }

  #arrived(): void {
    if (!this.#accepted && this.#silence > MIN_SILENCE) {
      clearTimeout(this.#timer);
      this.#silence = MIN_SILENCE;
      this.#schedule();
    }
    this.#accepted = true;
    if (this.#connections.length >= MAX_WAITING) {
      this.#phase = "paused";
      this.#socket.pause();
      return;
    }
    if (this.#phase === "exhausted") this.#phase = "listening";
    this.#connections.push(this.#socket.accept()!);
    this.#wake();
  }

  #resume(): void {
    try {
      if (this.#socket.resume()) {
        this.#phase = "listening";
        return;
      }
    } catch (error) {
      return this.#break(error as Error);
    }
    if (this.#phase === "exhausted") return;
    this.#phase = "exhausted";
    this.#fail(new Error("All file descriptors are in use. Raise their limit (ulimit -n)"));
  }

  #schedule(): void {
    this.#timer = setTimeout(() => this.#check(), this.#silence);
    runtime.unrefTimer(this.#timer);
  }

  /** Renews the socket if no connection has come since the last check. */
  #check(): void {
    const renew = !this.#accepted && this.#phase !== "paused";
    if (renew) this.#resume();
    if (this.#phase === "closed") return;
    this.#silence = renew && this.#phase === "listening"
      ? Math.min(this.#silence * 2, MAX_SILENCE)
      : MIN_SILENCE;
    this.#accepted = false;
    this.#schedule();
  }

  /** Ends after an error. */
  #break(error: Error): void {
    this.#phase = "closed";
    clearTimeout(this.#timer);
    this.#fail(error);
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
      const connection = this.#connections.shift() ??
        (this.#phase === "paused" ? this.#socket.accept() : null);
      if (connection !== null) return { done: false, value: connection };
      if (this.#phase === "paused") this.#resume();
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

  /** Accepts no more. Connections that have arrived are still returned. */
  close(): void {
    if (this.#phase === "closed") return;
    this.#phase = "closed";
    clearTimeout(this.#timer);
    let connection: Duplex | null;
    while ((connection = this.#socket.accept()) !== null) this.#connections.push(connection);
    this.#socket.close();
    this.#wake();
  }

  ref(): void {
    this.#socket.ref();
  }

  unref(): void {
    this.#socket.unref();
  }
}
