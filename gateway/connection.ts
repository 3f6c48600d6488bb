import { type Address, type Endpoint, nameOf, parseAddress } from "../io/address.ts";
import {
  ConnectionPool,
  PooledConnection,
  PoolFullError,
  type PoolShare,
} from "../io/connection_pool.ts";
import type { Duplex } from "../io/duplex.ts";
import type { Ticker } from "../io/ticker.ts";
import { WriteQueue } from "../io/write_queue.ts";
import { ByteBuffer } from "../wire/byte_buffer.ts";
import { ProtocolError } from "../wire/protocol_error.ts";
import { DEFAULTS } from "./options.ts";
import type { RoundTrip } from "./round_trip.ts";
import { runtime } from "../io/runtime.ts";

/** How long other clients of the application may have to wait by default, in milliseconds. */
const MAX_WAIT = 100;
/** How long a connection is used by default while no client seems to wait, in milliseconds. A balancer can hide clients that wait. */
const MAX_AGE = 1000;

/** Limits of {@linkcode ApplicationConnections}. */
export interface ConnectionOptions {
  /** The maximum number of open connections. */
  maxConnections?: number;
  /** The maximum number of idle connections that are kept for the next request. @default 0 */
  maxIdleConnections?: number;
  /** How long an idle connection is kept, in milliseconds. */
  idleTimeout?: number;
  /** How long a connection is used for further requests, in milliseconds. */
  maxConnectionAge?: number;
  /** How long connecting may take, in milliseconds. */
  connectTimeout?: number;
}

/**
 * The pools of this process. Gateways to one address share a pool: an idle connection of one may occupy the process that
 * another waits for. A pool lives as long as a gateway refers to it.
 */
const pools = new Map<string, WeakRef<ConnectionPool<Connection>>>();
const abandoned = new FinalizationRegistry((key: string) => {
  if (pools.get(key)?.deref() === undefined) pools.delete(key);
});

function poolOf(endpoint: Endpoint): ConnectionPool<Connection> {
  const key = nameOf(endpoint);
  const known = pools.get(key)?.deref();
  if (known !== undefined) return known;
  const pool = new ConnectionPool(endpoint, (duplex) => new Connection(duplex));
  pools.set(key, new WeakRef(pool));
  abandoned.register(pool, key);
  return pool;
}

/** The connections of one gateway to its application. */
export class ApplicationConnections {
  #pool: PoolShare<Connection>;

  /**
   * @param ticker Enforces `connectTimeout`.
   * @throws {TypeError} If the address is invalid.
   */
  constructor(address: Address, options: ConnectionOptions, ticker: Ticker) {
    const {
      maxConnections = DEFAULTS.maxConnections,
      maxIdleConnections = 0,
      idleTimeout = DEFAULTS.idleTimeout,
      maxConnectionAge,
      connectTimeout = DEFAULTS.connectTimeout,
    } = options;
    const isDefault = maxConnectionAge === undefined && options.idleTimeout === undefined;
    this.#pool = poolOf(parseAddress(address)).share({
      maxConnections,
      maxIdle: maxIdleConnections,
      idleTimeout,
      maxAge: isDefault ? MAX_AGE : maxConnectionAge ?? Math.max(MAX_WAIT, idleTimeout),
      maxWait: isDefault ? MAX_WAIT : Infinity,
      connectTimeout,
    }, ticker);
  }

  /** Returns an idle connection, or undefined if there is none. */
  reuse(): Connection | undefined {
    return this.#pool.reuse();
  }

  /**
   * Opens a connection for a round trip.
   *
   * @param mayWait Whether it may be a used connection where a new one would have to wait.
   * @returns The connection, or undefined if the round trip was aborted meanwhile.
   * @throws {ProtocolError} If connecting fails: 503 if too many are open or wait, 504 if it takes too long, else 502.
   */
  async connect(roundTrip: RoundTrip, mayWait = false): Promise<Connection | undefined> {
    if (roundTrip.over) return undefined;
    try {
      const connection = await this.#pool.connect(mayWait);
      if (!roundTrip.over) return connection;
      this.release(connection, connection.uses > 1);
      return undefined;
    } catch (error) {
      if (roundTrip.over) return undefined;
      if (error instanceof runtime.errors.NotCapable) throw error;
      throw new ProtocolError((error as Error).message, connectStatus(error));
    }
  }

  /** Returns a connection to the pool. @param reusable Whether it may carry another request. */
  release(connection: Connection, reusable: boolean): void {
    this.#pool.release(connection, reusable);
  }

  /** Closes all connections. */
  close(): void {
    this.#pool.close();
  }
}

function connectStatus(error: unknown): number {
  if (error instanceof PoolFullError) return 503;
  if (error instanceof runtime.errors.TimedOut) return 504;
  // The listen queue of a Unix socket is full.
  if (error instanceof runtime.errors.WouldBlock) return 503;
  return 502;
}

/** A connection to an application, for one request at a time. */
export class Connection extends PooledConnection {
  /** The bytes to send. */
  readonly out: ByteBuffer = new ByteBuffer();
  #queue: WriteQueue;

  constructor(duplex: Duplex) {
    super(duplex);
    this.#queue = new WriteQueue(duplex, this.out, () => {});
  }

  /** Whether all bytes are sent. */
  get sent(): boolean {
    return !this.#queue.writing && this.out.length === 0;
  }

  /** Disables Nagle's algorithm. Call it only before several small writes in a row, as it takes a system call. */
  setNoDelay(): void {
    if (this.duplex.remoteAddr.transport === "tcp") this.duplex.setNoDelay?.(true);
  }

  /** Starts to send the bytes. Returns a promise if the queue is full: the caller should wait for it. */
  flush(): Promise<void> | void {
    return this.#queue.flush();
  }
}
