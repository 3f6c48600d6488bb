import type { Endpoint } from "./address.ts";
import type { Duplex } from "./duplex.ts";
import { MAX_DELAY } from "./max_delay.ts";
import { type Member, Roster } from "./roster.ts";

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
const SMALL_READ = 4096;
const LARGE_READ = 65536;

/** Thrown if the maximum number of connections is open. */
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
async function connect(
  endpoint: Endpoint,
  timeout: number,
): Promise<Duplex> {
  const controller = new AbortController();
  const { signal } = controller;
  const timer = timeout === Infinity || endpoint.transport === "unix" ? undefined : setTimeout(
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
  try {
    if (endpoint.transport === "unix") return await Deno.connect(endpoint);
    return await Deno.connect({ ...endpoint, signal });
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    (error as Error).message = `Cannot connect to ${nameOf(endpoint)}: ${(error as Error).message}`;
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** A connection to an application. While it is idle a read is pending, which detects when the application closes it. */
export class PooledConnection implements Member {
  place = -1;
  /** The connection's bytes. */
  readonly duplex: Duplex;
  /** The number of requests that it has carried, with the current one. */
  uses = 1;
  /** Whether any bytes have been read. */
  hasRead = false;
  /** When it became idle. */
  idleSince = 0;
  #ahead: Promise<Uint8Array<ArrayBuffer> | null> | null = null;
  #buffer: Uint8Array<ArrayBuffer> = new Uint8Array(SMALL_READ);
  #closed = false;

  /** @param duplex The connection's bytes. */
  constructor(duplex: Duplex) {
    this.duplex = duplex;
  }

  /** Reads the next bytes, which are valid until the next read; null at the end. */
  read(): Promise<Uint8Array<ArrayBuffer> | null> {
    const ahead = this.#ahead ?? this.#read();
    this.#ahead = null;
    return ahead;
  }

  /**
   * Starts the next read and calls back when it completes. An idle connection is then no longer usable.
   */
  watch(onevent: () => void): void {
    this.#ahead = this.#read();
    this.#ahead.then(onevent, onevent);
  }

  /** Marks the connection as idle or in use. An idle one does not keep the process alive. */
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
    const buffer = this.#buffer;
    const count = await this.duplex.read(buffer);
    if (count === null) return null;
    this.hasRead = true;
    if (count === SMALL_READ && buffer.length === SMALL_READ) {
      this.#buffer = new Uint8Array(LARGE_READ);
    } else if (count < SMALL_READ && buffer.length > SMALL_READ) {
      this.#buffer = new Uint8Array(SMALL_READ);
    }
    return buffer.subarray(0, count);
  }
}

/**
 * Connections to one application. Idle ones are kept for the next request. The one released last is reused first, so that
 * those beyond the current concurrency reach `idleTimeout` and close.
 *
 * An application such as PHP-FPM has a process for each connection and accepts another only when a process is free. An
 * idle connection must not occupy the process that a new connection waits for.
 */
export class ConnectionPool<Connection extends PooledConnection> {
  #endpoint: Endpoint;
  #options: PoolOptions;
  #create: (duplex: Duplex) => Connection;
  #open = new Roster<Connection>();
  /** In the order in which they became idle. */
  #idle: Connection[] = [];
  #connecting = 0;
  /** The number of connections that the application has been seen to serve at once. */
  #served = 0;
  #expiry: ReturnType<typeof setTimeout> | undefined;
  #closed = false;

  /**
   * @param create Wraps the bytes of a new connection.
   * @throws {TypeError} If the endpoint's port is 0.
   */
  constructor(endpoint: Endpoint, options: PoolOptions, create: (duplex: Duplex) => Connection) {
    if (endpoint.transport === "tcp" && endpoint.port === 0) {
      throw new TypeError(
        `Cannot connect as the port must be from 1 to 65535: current address is "${endpoint.hostname}:0"`,
      );
    }
    this.#endpoint = endpoint;
    this.#options = options;
    this.#create = create;
  }

  /** Returns an idle connection, or undefined if there is none. */
  reuse(): Connection | undefined {
    const connection = this.#idle.pop();
    if (connection === undefined) return undefined;
    connection.idle(false);
    connection.uses++;
    return connection;
  }

  /**
   * Opens a connection. Connecting is not aborted when the client disconnects: `Deno.connect` could leak the socket.
   *
   * @throws {PoolFullError} If the maximum number is open.
   */
  async connect(): Promise<Connection> {
    const { maxConnections, connectTimeout } = this.#options;
    const idle = this.#idle.at(0);
    const full = this.#count >= maxConnections;
    if (idle !== undefined && (full || this.#count >= this.#served)) this.#drop(idle);
    if (this.#count >= maxConnections) {
      throw new PoolFullError(
        `Cannot connect as there must be at most ${maxConnections} connections: all are in use`,
      );
    }
    this.#connecting++;
    try {
      const connection = this.#create(await connect(this.#endpoint, connectTimeout));
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
  release(connection: Connection, reusable: boolean): void {
    if (!reusable || this.#closed || this.#options.maxIdle === 0) return this.#drop(connection);
    if (this.#served < this.#count) this.#observe();
    if (!this.#needsProcess()) return this.#keep(connection);
    // Responses that have arrived already show that the application serves more connections.
    setTimeout(() => {
      this.#observe();
      if (this.#closed || this.#needsProcess()) this.#drop(connection);
      else this.#keep(connection);
    }, 0);
  }

  /** Closes all connections. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#expiry);
    for (const connection of this.#open) this.#drop(connection);
  }

  get #count(): number {
    return this.#open.size + this.#connecting;
  }

  /** Counts the connections that the application serves. */
  #observe(): void {
    let served = 0;
    for (const connection of this.#open) if (connection.hasRead) served++;
    this.#served = Math.max(this.#served, served);
  }

  /** Whether a connection may wait for a process of the application. */
  #needsProcess(): boolean {
    return this.#count > this.#served;
  }

  #keep(connection: Connection): void {
    if (this.#idle.length >= this.#options.maxIdle) return this.#drop(connection);
    connection.idleSince = performance.now();
    this.#idle.push(connection);
    connection.watch(() => {
      if (!this.#idle.includes(connection)) return;
      this.#drop(connection);
      // The application may have restarted with fewer processes.
      this.#served = 0;
    });
    connection.idle(true);
    if (this.#expiry === undefined) this.#expire();
  }

  /** Closes the connections that have been idle for too long. One timer serves all of them. */
  #expire(): void {
    const { idleTimeout } = this.#options;
    const now = performance.now();
    while (this.#idle.length > 0 && now - this.#idle[0].idleSince >= idleTimeout) {
      this.#drop(this.#idle[0]);
    }
    this.#expiry = undefined;
    if (this.#idle.length === 0 || idleTimeout === Infinity) return;
    const left = this.#idle[0].idleSince + idleTimeout - now;
    this.#expiry = setTimeout(() => this.#expire(), Math.min(Math.ceil(left), MAX_DELAY));
    Deno.unrefTimer(this.#expiry as unknown as number);
  }

  #drop(connection: Connection): void {
    const at = this.#idle.indexOf(connection);
    if (at >= 0) this.#idle.splice(at, 1);
    this.#open.delete(connection);
    connection.close();
  }
}
