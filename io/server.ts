import type { Duplex, Listener } from "./duplex.ts";

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
   * How long {@linkcode Server.shutdown} lets requests finish before they are called off, in milliseconds; Infinity for
   * without end.
   *
   * @default 10_000
   */
  shutdownTimeout?: number;
  /** Where errors of no request go. @default console.error */
  log?: (message: string) => void;
}

/** One connection's driver, as the server sees it. */
export interface Driver {
  /** Serves the connection to its end; never rejects. */
  run(): Promise<void>;
  /** Finishes the requests under way, or on a new connection the one to come, and closes. */
  drain(): void;
  /** Calls all requests off and closes. */
  abort(reason: unknown): void;
  /** Called about once a second with `performance.now()`, to see to deadlines. */
  check(now: number): void;
}

/** The longest time that a timer takes, about 25 days, in milliseconds: it would take a longer one for 1 ms. */
export const LONGEST_TIMER: number = 2 ** 31 - 1;
const TICK = 500;
/** Connections that are open only to be told 503. */
const REFUSALS = 64;
/** After a failed accept, as when no descriptor is left, so as not to spin. */
const ACCEPT_PAUSE = 100;

/**
 * Accepts connections and gives each its driver.
 *
 * @param open Makes the driver of a new connection, which is to refuse requests if there are too many already.
 */
export function startServer(
  listener: Listener,
  options: ServerOptions,
  open: (duplex: Duplex, overloaded: boolean) => Driver,
): Server {
  const { maxConnections = 1024, shutdownTimeout = 10_000, log = console.error, signal } = options;
  const drivers = new Set<Driver>();
  const finished = Promise.withResolvers<void>();
  let stopping: Promise<void> | null = null;
  let room: (() => void) | null = null;
  let timer: ReturnType<typeof setInterval> | undefined;
  let accepting = true;

  function serve(duplex: Duplex): void {
    const driver = open(duplex, drivers.size >= maxConnections);
    drivers.add(driver);
    if (!accepting) driver.drain();
    timer ??= startTimer();
    driver.run().catch((error) => log(String(error))).finally(() => {
      drivers.delete(driver);
      room?.();
      if (drivers.size > 0) return;
      clearInterval(timer);
      timer = undefined;
      if (!accepting) finished.resolve();
    });
  }

  function startTimer(): ReturnType<typeof setInterval> {
    const started = setInterval(() => {
      const now = performance.now();
      for (const driver of drivers) driver.check(now);
    }, TICK);
    Deno.unrefTimer(started as unknown as number);
    return started;
  }

  async function accept(): Promise<void> {
    const connections = listener[Symbol.asyncIterator]();
    // To the listener's end: what it had accepted when it was closed is served as well.
    while (true) {
      try {
        const { done, value } = await connections.next();
        if (done) break;
        serve(value);
      } catch (error) {
        if (!accepting) break;
        log(`Cannot accept a connection: ${(error as Error).message}`);
        await new Promise((resolve) => setTimeout(resolve, ACCEPT_PAUSE));
      }
      if (accepting && drivers.size >= maxConnections + REFUSALS) {
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
    if (drivers.size === 0) finished.resolve();
  }

  function abort(): void {
    stop();
    for (const driver of drivers) driver.abort(signal?.reason);
  }

  function shutdown(): Promise<void> {
    return stopping ??= (async () => {
      stop();
      for (const driver of drivers) driver.drain();
      const deadline = setTimeout(() => {
        const reason = new DOMException("The server shut down", "AbortError");
        for (const driver of drivers) driver.abort(reason);
      }, Math.min(shutdownTimeout, LONGEST_TIMER));
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
