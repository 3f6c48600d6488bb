import type { Duplex, Listener } from "./duplex.ts";
import { checkExposure, isAllowedPeer } from "./peers.ts";

/** A running server: the shape of `Deno.HttpServer`. */
export interface Server extends AsyncDisposable {
  /** Where it listens. */
  readonly addr: Deno.Addr;
  /** Resolves when it has stopped and every connection is closed. */
  readonly finished: Promise<void>;
  /** Stops accepting, lets the requests under way finish, for as long as `shutdownTimeout` allows, and stops. */
  shutdown(): Promise<void>;
  /** Lets the process live while the server does. */
  ref(): void;
  /** Lets the process end while the server lives. */
  unref(): void;
}

/** Options that all servers share. */
export interface ServerOptions {
  /** Stops the server at once: requests under way are called off. */
  signal?: AbortSignal;
  /** Called with the address once it listens. */
  onListen?: (addr: Deno.Addr) => void;
  /**
   * How many connections may be open. Further ones are told 503; past 64 of these, they wait in the system's queue.
   *
   * @default 1024
   */
  maxConnections?: number;
  /**
   * How long {@linkcode Server.shutdown} lets requests finish before they are called off, in milliseconds.
   *
   * @default 10_000
   */
  shutdownTimeout?: number;
  /**
   * Allows a listener that other machines can reach. Who can connect can pretend to be any client and any user.
   *
   * @default false
   */
  allowRemote?: boolean;
  /**
   * Addresses that connections may come from; others are closed, and so are those over Unix sockets.
   *
   * @default undefined, any address
   */
  webServerAddresses?: string[];
  /** Where errors of no request go. @default console.error */
  log?: (message: string) => void;
}

/** The protocol's side of one connection. */
export interface ServerConnection {
  /** Serves the connection to its end; never rejects. */
  run(): Promise<void>;
  /** Finishes the requests under way, or on a new connection the one to come, and closes. */
  drain(): void;
  /** Calls all requests off and closes. */
  abort(reason: unknown): void;
  /** Called about once a second with `performance.now()`, to see to deadlines. */
  check(now: number): void;
}

const TICK = 500;
/** Connections that are open only to be told 503. */
const REFUSALS = 64;
/** After a failed accept, as when no descriptor is left, so as not to spin. */
const ACCEPT_PAUSE = 100;

/**
 * Accepts connections and serves each.
 *
 * @param open Creates the protocol's side of a connection. It refuses requests if the server is overloaded.
 * @throws {Error} If other machines can reach the listener and no option allows this.
 */
export function startServer(
  listener: Listener,
  options: ServerOptions,
  open: (duplex: Duplex, overloaded: boolean) => ServerConnection,
): Server {
  const {
    maxConnections = 1024,
    shutdownTimeout = 10_000,
    allowRemote = false,
    webServerAddresses,
    log = console.error,
    signal,
  } = options;
  checkExposure(
    listener.addr,
    allowRemote || webServerAddresses !== undefined,
    "allowRemote: true",
  );
  const connections = new Set<ServerConnection>();
  const finished = Promise.withResolvers<void>();
  let stopping: Promise<void> | null = null;
  let room: (() => void) | null = null;
  let timer: ReturnType<typeof setInterval> | undefined;
  let accepting = true;

  function serve(duplex: Duplex): void {
    if (webServerAddresses && !isAllowedPeer(duplex.remoteAddr, webServerAddresses)) {
      log(`Refused a connection as it must come from ${webServerAddresses.join(", ")}`);
      return duplex.close();
    }
    const connection = open(duplex, connections.size >= maxConnections);
    connections.add(connection);
    if (!accepting) connection.drain();
    timer ??= startTimer();
    connection.run().catch((error) => log(String(error))).finally(() => {
      connections.delete(connection);
      room?.();
      if (connections.size > 0) return;
      clearInterval(timer);
      timer = undefined;
      if (!accepting) finished.resolve();
    });
  }

  function startTimer(): ReturnType<typeof setInterval> {
    const started = setInterval(() => {
      const now = performance.now();
      for (const connection of connections) connection.check(now);
    }, TICK);
    Deno.unrefTimer(started as unknown as number);
    return started;
  }

  async function accept(): Promise<void> {
    const accepted = listener[Symbol.asyncIterator]();
    // To the listener's end: what it had accepted when it was closed is served as well.
    while (true) {
      try {
        const { done, value } = await accepted.next();
        if (done) break;
        serve(value);
      } catch (error) {
        if (!accepting) break;
        log(`Cannot accept a connection: ${(error as Error).message}`);
        await new Promise((resolve) => setTimeout(resolve, ACCEPT_PAUSE));
      }
      if (accepting && connections.size >= maxConnections + REFUSALS) {
        await new Promise<void>((resolve) => room = resolve);
        room = null;
      }
    }
    stop();
  }

  function stop(): void {
    if (!accepting) return;
    accepting = false;
    try {
      listener.close();
    } catch {
      // It was closed from outside.
    }
    room?.();
    signal?.removeEventListener("abort", abort);
    if (connections.size === 0) finished.resolve();
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
        const reason = new DOMException("The server shut down", "AbortError");
        for (const connection of connections) connection.abort(reason);
      }, shutdownTimeout);
      await finished.promise;
      clearTimeout(deadline);
    })();
  }

  if (signal?.aborted) abort();
  else {
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
