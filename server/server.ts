import { type Balanced, takePart } from "../io/balance.ts";
import type { Duplex, Listener } from "../io/duplex.ts";
import { safeLog } from "../io/log.ts";
import { MAX_DELAY } from "../io/max_delay.ts";
import { SHUTDOWN_TIMEOUT } from "../io/timeouts.ts";
import { ServerStopped } from "./exchange.ts";
import { AllowedPeers, checkExposure } from "./peers.ts";
import { type Ticked, Ticker } from "../io/ticker.ts";
import type { Addr } from "../io/addr.ts";

/** A running server: the shape of `Deno.HttpServer`. */
export interface Server extends AsyncDisposable {
  /** The address that it listens on. */
  readonly addr: Addr;
  /** Resolves when the server has stopped and every connection is closed. Rejects if the listener breaks. */
  readonly finished: Promise<void>;
  /**
   * Stops accepting connections, waits until the requests in progress are finished, and stops. Aborts those that are
   * not finished within `shutdownTimeout`.
   */
  shutdown(): Promise<void>;
  /** Keeps the process alive while the server runs. */
  ref(): void;
  /** Lets the process end while the server runs. */
  unref(): void;
}

/** Options that all servers share. */
export interface ServerOptions {
  /**
   * Stops the server at once, also while it shuts down, and aborts the requests in progress.
   *
   * @default undefined, only `shutdown()` stops it
   */
  signal?: AbortSignal;
  /**
   * Called with the address once the server listens.
   *
   * @default undefined
   */
  onListen?: (addr: Addr) => void;
  /**
   * The maximum number of open connections, from 0; Infinity for no limit. Up to 64 more get 503; beyond these,
   * connections wait in the system's queue.
   *
   * @default 1024
   */
  maxConnections?: number;
  /**
   * How long {@linkcode Server.shutdown} waits for requests before it aborts them, in milliseconds, from 0;
   * Infinity for no limit.
   *
   * @default 10_000
   */
  shutdownTimeout?: number;
  /**
   * Allows a listener that other machines can reach. Any program that can connect can pose as any client and any user.
   *
   * @default false
   */
  allowRemote?: boolean;
  /**
   * The IP addresses that connections may come from, and ranges of them, such as `10.0.0.0/8`, whose other bits must be
   * 0. Connections from others, and over Unix sockets, are closed.
   *
   * @default undefined, any address
   */
  webServerAddresses?: string[];
  /**
   * Writes a line of the log: what `info.log()` gets, and errors that belong to no request.
   *
   * @default console.error
   */
  log?: (message: string) => void;
}

/** One connection, as its protocol serves it. */
export interface ServerConnection extends Ticked {
  /** Serves the connection. Resolves when it is closed, and never rejects. */
  run(): Promise<void>;
  /** Finishes the requests in progress, or on a new connection its first request, and closes. */
  drain(): void;
  /** Aborts all requests and closes. */
  abort(reason: unknown): void;
  /**
   * Returns whether it had requests since the last call, and {@linkcode drain} loses none: the web server opens another
   * connection in its place.
   */
  takeBusy?(): boolean;
}

/** The default of `maxConnections`. */
export const MAX_CONNECTIONS = 1024;
/** The time between two checks of the connections' deadlines, in milliseconds. */
const TICK = 500;
/** The maximum number of connections beyond `maxConnections`, which get 503. */
const REFUSALS = 64;
/** The pause after a failed accept, for instance when no descriptor is left, in milliseconds. */
const ACCEPT_PAUSE = 100;
/** The time without a failed accept after which the next one is logged again, in milliseconds. */
const REPORT_PAUSE = 10_000;

/** Creates the protocol's side of a connection. If the server is overloaded, it refuses requests. */
type Open = (duplex: Duplex, overloaded: boolean) => ServerConnection;

/**
 * Accepts connections and serves each of them.
 *
 * @throws {Error} If other machines can reach the listener and no option allows this.
 */
export function startServer(listener: Listener, options: ServerOptions, open: Open): Server {
  const { allowRemote = false, webServerAddresses, signal } = options;
  checkExposure(
    listener.addr,
    allowRemote || webServerAddresses !== undefined,
    "allowRemote: true",
  );
  const server = new ListeningServer(listener, options, open);
  server.start();
  if (signal?.aborted !== true) options.onListen?.(listener.addr);
  return server;
}

/** The server of a listener, whatever the protocol. */
class ListeningServer implements Server, Balanced {
  /** Closing: accepts no more, but may still serve what the listener has accepted. */
  #phase: "accepting" | "closing" | "closed" = "accepting";
  #listener: Listener;
  #open: Open;
  #maxConnections: number;
  #shutdownTimeout: number;
  #webServerAddresses: string[] | undefined;
  #allowed: AllowedPeers | undefined;
  #signal: AbortSignal | undefined;
  #log: (message: string) => void;
  #connections = new Ticker<ServerConnection>(TICK);
  #finished = Promise.withResolvers<void>();
  #stopping: Promise<void> | null = null;
  /** Continues to accept once there is room for another connection. */
  #room: (() => void) | null = null;
  /** The error of the last accept, if it failed. */
  #failure: Error | null = null;
  /** When a failed accept is logged again. */
  #silentUntil = 0;
  /** The connections that {@linkcode countBusy} counted last. */
  #busy: ServerConnection[] = [];
  #leaveBalance: () => void;
  #abort = () => {
    this.#stop();
    this.#abortAll(this.#signal!.reason);
  };

  constructor(listener: Listener, options: ServerOptions, open: Open) {
    const { maxConnections = MAX_CONNECTIONS, shutdownTimeout = SHUTDOWN_TIMEOUT } = options;
    this.#listener = listener;
    this.#open = open;
    this.#maxConnections = maxConnections;
    this.#shutdownTimeout = shutdownTimeout;
    this.#webServerAddresses = options.webServerAddresses;
    this.#allowed = options.webServerAddresses && new AllowedPeers(options.webServerAddresses);
    this.#signal = options.signal;
    this.#log = safeLog(options.log);
    this.#leaveBalance = takePart(this);
  }

  get addr(): Addr {
    return this.#listener.addr;
  }

  get finished(): Promise<void> {
    return this.#finished.promise;
  }

  ref(): void {
    this.#listener.ref?.();
  }

  unref(): void {
    this.#listener.unref?.();
  }

  /** Starts to accept connections, unless the signal is aborted already. */
  start(): void {
    if (this.#signal?.aborted) {
      this.#stop();
      this.#close();
    } else {
      this.#signal?.addEventListener("abort", this.#abort);
      this.#accept();
    }
  }

  async #accept(): Promise<void> {
    const accepted = this.#listener[Symbol.asyncIterator]();
    // Until the listener ends: connections that it accepted before it closed are served too.
    while (true) {
      try {
        const { done, value } = await accepted.next();
        if (done) break;
        this.#failure = null;
        this.#serve(value);
      } catch (error) {
        if (this.#phase !== "accepting") break;
        this.#failed(error as Error);
        await new Promise((resolve) => setTimeout(resolve, ACCEPT_PAUSE));
      }
      const isFull = this.#connections.size >= this.#maxConnections + REFUSALS;
      if (this.#phase === "accepting" && isFull) {
        await new Promise<void>((resolve) => this.#room = resolve);
        this.#room = null;
      }
    }
    // A listener that ends by itself after an error has broken: let the program end, so that its supervisor restarts it.
    if (this.#phase === "accepting" && this.#failure !== null) {
      this.#finished.reject(this.#failure);
    }
    this.#stop();
    this.#close();
  }

  #failed(error: Error): void {
    this.#failure = error;
    if (performance.now() > this.#silentUntil) {
      this.#log(`Cannot accept a connection: ${error.message}`);
    }
    this.#silentUntil = performance.now() + REPORT_PAUSE;
  }

  #serve(duplex: Duplex): void {
    if (this.#signal?.aborted) return duplex.close();
    if (this.#allowed?.has(duplex.remoteAddr) === false) {
      this.#log(
        `Refused a connection: it does not come from ${this.#webServerAddresses?.join(", ")}`,
      );
      return duplex.close();
    }
    const connections = this.#connections;
    const connection = this.#open(duplex, connections.size >= this.#maxConnections);
    connections.add(connection);
    if (this.#phase !== "accepting") connection.drain();
    connection.run().catch((error) => this.#log(String(error))).finally(() => {
      connections.delete(connection);
      this.#room?.();
      if (this.#phase === "closed") this.#endIfEmpty();
    });
  }

  /** Stops accepting. */
  #stop(): void {
    if (this.#phase !== "accepting") return;
    this.#phase = "closing";
    this.#leaveBalance();
    try {
      this.#listener.close();
    } catch {
      // The caller has closed it.
    }
    this.#room?.();
  }

  /** Ends once the open connections are closed, as there will be no others. */
  #close(): void {
    this.#phase = "closed";
    this.#endIfEmpty();
  }

  #endIfEmpty(): void {
    if (this.#connections.size > 0) return;
    this.#connections.close();
    this.#signal?.removeEventListener("abort", this.#abort);
    this.#finished.resolve();
  }

  #abortAll(reason: unknown): void {
    for (const connection of this.#connections) connection.abort(reason);
  }

  shutdown(): Promise<void> {
    return this.#stopping ??= this.#shutdown();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.shutdown();
  }

  async #shutdown(): Promise<void> {
    this.#stop();
    for (const connection of this.#connections) connection.drain();
    const timer = setTimeout(() => {
      const { size } = this.#connections;
      if (size > 0) {
        this.#log(
          `Aborted requests ${this.#shutdownTimeout} ms after shutdown(): ${size} connections were still open`,
        );
      }
      this.#abortAll(new ServerStopped());
    }, Math.min(this.#shutdownTimeout, MAX_DELAY));
    await this.finished;
    clearTimeout(timer);
  }

  countBusy(): number {
    this.#busy = [...this.#connections].filter((connection) => connection.takeBusy?.());
    return this.#busy.length;
  }

  release(count: number): number {
    const released = this.#busy.splice(0, count);
    for (const connection of released) connection.drain();
    return released.length;
  }
}
