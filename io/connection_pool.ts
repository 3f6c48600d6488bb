import type { Endpoint } from "./address.ts";
import type { Duplex } from "./duplex.ts";

/** Limits of a {@linkcode ConnectionPool}. */
export interface PoolOptions {
  /** The maximum number of open connections. */
  maxConnections: number;
  /** The maximum number of idle connections that are kept. */
  maxIdle: number;
  /** How long an idle connection is kept, in milliseconds. */
  idleTimeout: number;
  /** How long connecting may take, in milliseconds. */
  connectTimeout: number;
}

/** Large enough for most responses; a longer one is read in larger parts. */
const SMALL_READ = 8192;
const LARGE_READ = 65536;

/** Thrown when the maximum number of connections is open. */
export class PoolFullError extends Error {
  override name = "PoolFullError";
}

function nameOf(endpoint: Endpoint): string {
  return endpoint.transport === "unix"
    ? `unix:${endpoint.path}`
    : `${endpoint.hostname}:${endpoint.port}`;
}

/**
 * Connects to an endpoint.
 *
 * @param timeout How long connecting may take, in milliseconds. A Unix socket connects or fails at once.
 * @throws {Deno.errors.TimedOut} If it takes longer.
 * @throws The error of `Deno.connect`.
 */
export async function connect(
  endpoint: Endpoint,
  timeout: number,
  signal?: AbortSignal,
): Promise<PooledConnection> {
  const controller = new AbortController();
  const abort = () => controller.abort(signal?.reason);
  const timer = timeout === Infinity ? undefined : setTimeout(
    () =>
      controller.abort(
        new Deno.errors.TimedOut(
          `Cannot connect to ${
            nameOf(endpoint)
          } as it must take at most ${timeout} ms: it takes longer`,
        ),
      ),
    timeout,
  );
  if (signal?.aborted) abort();
  signal?.addEventListener("abort", abort);
  try {
    if (endpoint.transport === "unix") return new PooledConnection(await Deno.connect(endpoint));
    const connection = await Deno.connect({ ...endpoint, signal: controller.signal });
    connection.setNoDelay(true);
    return new PooledConnection(connection);
  } catch (error) {
    if (controller.signal.aborted) throw controller.signal.reason;
    (error as Error).message = `Cannot connect to ${nameOf(endpoint)}: ${(error as Error).message}`;
    throw error;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  }
}

/** A connection to an application. While it is idle a read is pending, which shows that the application closes it. */
export class PooledConnection {
  /** The connection's bytes. */
  readonly duplex: Duplex;
  /** Whether it has carried another request before. */
  reused = false;
  /** Whether any bytes have been read. */
  hasRead = false;
  #ahead: Promise<Uint8Array<ArrayBuffer> | null> | null = null;
  #size = SMALL_READ;
  #closed = false;

  /** @param duplex The connection's bytes. */
  constructor(duplex: Duplex) {
    this.duplex = duplex;
  }

  /** Reads the next bytes, which are the caller's to keep; null at the end. */
  read(): Promise<Uint8Array<ArrayBuffer> | null> {
    const ahead = this.#ahead ?? this.#read();
    this.#ahead = null;
    return ahead;
  }

  /**
   * Starts the next read and calls back when it completes. On an idle connection that means that it is no longer
   * usable.
   */
  watch(onevent: () => void): void {
    this.#ahead = this.#read();
    this.#ahead.then(onevent, onevent);
  }

  /** Marks the connection as idle or in use. An idle one lets the process end. */
  idle(idle: boolean): void {
    const conn = this.duplex as Partial<Deno.TcpConn>;
    if (idle) conn.unref?.();
    else conn.ref?.();
  }

  /** Closes the connection; later calls do nothing. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    try {
      this.duplex.close();
    } catch {
      // It is closed already.
    }
  }

  async #read(): Promise<Uint8Array<ArrayBuffer> | null> {
    const buffer = new Uint8Array(this.#size);
    const count = await this.duplex.read(buffer);
    if (count === null) return null;
    this.hasRead = true;
    this.#size = count === buffer.length ? LARGE_READ : SMALL_READ;
    return buffer.subarray(0, count);
  }
}

/** Connections to one application, of which some idle ones are kept for the next request. */
export class ConnectionPool {
  #endpoint: Endpoint;
  #options: PoolOptions;
  #open = new Set<PooledConnection>();
  #idle: { connection: PooledConnection; timer: ReturnType<typeof setTimeout> }[] = [];
  #connecting = 0;
  #closed = false;

  /** @throws {TypeError} If the endpoint's port is 0. */
  constructor(endpoint: Endpoint, options: PoolOptions) {
    if (endpoint.transport === "tcp" && endpoint.port === 0) {
      throw new TypeError(
        `Cannot connect as the port must be from 1 to 65535: current address is "${endpoint.hostname}:0"`,
      );
    }
    this.#endpoint = endpoint;
    this.#options = options;
  }

  /**
   * Returns an idle connection, or opens one.
   *
   * @param fresh Whether it must be a new connection.
   * @throws {PoolFullError} If the maximum number is open.
   */
  async acquire(fresh: boolean, signal?: AbortSignal): Promise<PooledConnection> {
    const idle = this.#idle.pop();
    if (idle !== undefined && fresh) {
      // It may occupy the process that the new one needs.
      this.#idle.push(idle);
      this.#drop(idle.connection);
    } else if (idle !== undefined) {
      clearTimeout(idle.timer);
      idle.connection.idle(false);
      idle.connection.reused = true;
      return idle.connection;
    }
    const { maxConnections, connectTimeout } = this.#options;
    if (this.#open.size + this.#connecting >= maxConnections) {
      throw new PoolFullError(
        `Cannot connect as there must be at most ${maxConnections} connections: all are in use`,
      );
    }
    this.#connecting++;
    try {
      const connection = await connect(this.#endpoint, connectTimeout, signal);
      this.#open.add(connection);
      return connection;
    } finally {
      this.#connecting--;
    }
  }

  /**
   * Returns a connection to the pool.
   *
   * @param reusable Whether it may carry another request.
   */
  release(connection: PooledConnection, reusable: boolean): void {
    const { maxIdle, idleTimeout } = this.#options;
    // An application with a process per connection (PHP-FPM) accepts a new one only when a process is free.
    const waiting = this.#connecting > 0 || [...this.#open].some((other) => !other.hasRead);
    if (!reusable || waiting || this.#closed || this.#idle.length >= maxIdle) {
      return this.#drop(connection);
    }
    const timer = setTimeout(() => this.#drop(connection), idleTimeout);
    Deno.unrefTimer(timer as unknown as number);
    this.#idle.push({ connection, timer });
    connection.watch(() => {
      if (this.#idle.some((idle) => idle.connection === connection)) this.#drop(connection);
    });
    connection.idle(true);
  }

  /** Closes all connections. */
  close(): void {
    this.#closed = true;
    for (const connection of [...this.#open]) this.#drop(connection);
  }

  #drop(connection: PooledConnection): void {
    const at = this.#idle.findIndex((idle) => idle.connection === connection);
    if (at >= 0) clearTimeout(this.#idle.splice(at, 1)[0].timer);
    this.#open.delete(connection);
    connection.close();
  }
}
