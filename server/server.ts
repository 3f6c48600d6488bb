import { takePart } from "../io/balance.ts";
import type { Duplex, Listener } from "../io/duplex.ts";
import { safeLog } from "../io/log.ts";
import { MAX_DELAY } from "../io/max_delay.ts";
import { AllowedPeers, checkExposure } from "./peers.ts";
import { type Ticked, Ticker } from "../io/ticker.ts";

/** A running server: the shape of `Deno.HttpServer`. */
export interface Server extends AsyncDisposable {
  /** The address that it listens on. */
  readonly addr: Deno.Addr;
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
  /** Stops the server at once, also while it shuts down, and aborts the requests in progress. */
  signal?: AbortSignal;
  /** Called with the address once the server listens. */
  onListen?: (addr: Deno.Addr) => void;
  /**
   * The maximum number of open connections. Up to 64 more get 503; beyond these, connections wait in the system's
   * queue.
   *
   * @default 1024
   */
  maxConnections?: number;
  /**
   * How long {@linkcode Server.shutdown} waits for requests before it aborts them, in milliseconds. Infinity
   * means no limit.
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
  /** Writes errors that belong to no request. @default console.error */
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

/** The defaults of `maxConnections` and `shutdownTimeout`. */
export const MAX_CONNECTIONS = 1024;
export const SHUTDOWN_TIMEOUT = 10_000;
/** The time between two checks of the connections' deadlines, in milliseconds. */
const TICK = 500;
/** The maximum number of connections beyond `maxConnections`, which get 503. */
const REFUSALS = 64;
/** The pause after a failed accept, for instance when no descriptor is left, in milliseconds. */
const ACCEPT_PAUSE = 100;
/** The time without a failed accept after which the next one is logged again, in milliseconds. */
const REPORT_PAUSE = 10_000;

/**
 * Accepts connections and serves each of them.
 *
 * @param open Creates the protocol's side of a connection. If the server is overloaded, it refuses requests.
 * @throws {Error} If other machines can reach the listener and no option allows this.
 */
export function startServer(
  listener: Listener,
  options: ServerOptions,
  open: (duplex: Duplex, overloaded: boolean) => ServerConnection,
): Server {
  const {
    maxConnections = MAX_CONNECTIONS,
    shutdownTimeout = SHUTDOWN_TIMEOUT,
    allowRemote = false,
    webServerAddresses,
    signal,
  } = options;
  const log = safeLog(options.log);
  checkExposure(
    listener.addr,
    allowRemote || webServerAddresses !== undefined,
    "allowRemote: true",
  );
  const allowed = webServerAddresses && new AllowedPeers(webServerAddresses);
  const connections = new Ticker<ServerConnection>(TICK);
  const finished = Promise.withResolvers<void>();
  let stopping: Promise<void> | null = null;
  let room: (() => void) | null = null;
  /** Closing: accepts no more, but may still serve what the listener has accepted. */
  let phase: "accepting" | "closing" | "closed" = "accepting";
  /** The error of the last accept, if it failed. */
  let failure: Error | null = null;
  let silentUntil = 0;

  function serve(duplex: Duplex): void {
    if (signal?.aborted) return duplex.close();
    if (allowed?.has(duplex.remoteAddr) === false) {
      log(`Refused a connection as it must come from ${webServerAddresses?.join(", ")}`);
      return duplex.close();
    }
    const connection = open(duplex, connections.size >= maxConnections);
    connections.add(connection);
    if (phase !== "accepting") connection.drain();
    connection.run().catch((error) => log(String(error))).finally(() => {
      connections.delete(connection);
      room?.();
      if (connections.size === 0 && phase === "closed") end();
    });
  }

  async function accept(): Promise<void> {
    const accepted = listener[Symbol.asyncIterator]();
    // Up to the listener's end: connections that it accepted before it closed are served too.
    while (true) {
      try {
        const { done, value } = await accepted.next();
        if (done) break;
        failure = null;
        serve(value);
      } catch (error) {
        if (phase !== "accepting") break;
        failure = error as Error;
        if (performance.now() > silentUntil) log(`Cannot accept a connection: ${failure.message}`);
        silentUntil = performance.now() + REPORT_PAUSE;
        await new Promise((resolve) => setTimeout(resolve, ACCEPT_PAUSE));
      }
      if (phase === "accepting" && connections.size >= maxConnections + REFUSALS) {
        await new Promise<void>((resolve) => room = resolve);
        room = null;
      }
    }
    // A listener that ends by itself after an error has broken: let the program end, so that its supervisor restarts it.
    if (phase === "accepting" && failure !== null) finished.reject(failure);
    stop();
    phase = "closed";
    if (connections.size === 0) end();
  }

  function end(): void {
    connections.close();
    signal?.removeEventListener("abort", abort);
    finished.resolve();
  }

  let busy: ServerConnection[] = [];
  const leave = takePart({
    countBusy() {
      busy = [...connections].filter((connection) => connection.takeBusy?.());
      return busy.length;
    },
    release(count) {
      const released = busy.splice(0, count);
      for (const connection of released) connection.drain();
      return released.length;
    },
  });

  function stop(): void {
    if (phase !== "accepting") return;
    phase = "closing";
    leave();
    try {
      listener.close();
    } catch {
      // The caller has closed it.
    }
    room?.();
  }

  function abort(): void {
    stop();
    for (const connection of connections) connection.abort(signal?.reason);
  }

  function shutdown(): Promise<void> {
    return stopping ??= (async () => {
      stop();
      for (const connection of connections) connection.drain();
      const deadline = setTimeout(() => {
        if (connections.size > 0) {
          log(
            `Aborted requests as they must end within ${shutdownTimeout} ms of shutdown(): ${connections.size} connections are still open`,
          );
        }
        const reason = new DOMException("The server shut down", "AbortError");
        for (const connection of connections) connection.abort(reason);
      }, Math.min(shutdownTimeout, MAX_DELAY));
      await finished.promise;
      clearTimeout(deadline);
    })();
  }

  if (signal?.aborted) {
    stop();
    phase = "closed";
    finished.resolve();
  } else {
    signal?.addEventListener("abort", abort);
    accept();
    options.onListen?.(listener.addr);
  }
  return {
    addr: listener.addr,
    finished: finished.promise,
    shutdown,
    ref: () => listener.ref?.(),
    unref: () => listener.unref?.(),
    [Symbol.asyncDispose]: shutdown,
  };
}
