import { type Address, parseAddress } from "../io/address.ts";
import { ConnectionPool, type PooledConnection, PoolFullError } from "../io/connection_pool.ts";
import { WriteQueue } from "../io/write_queue.ts";
import { ByteBuffer } from "../wire/byte_buffer.ts";
import { ProtocolError } from "../wire/protocol_error.ts";
import { DEFAULTS } from "./options.ts";

/** Limits of {@linkcode ApplicationConnections}. */
export interface ConnectionOptions {
  /** The maximum number of open connections. */
  maxConnections?: number;
  /** The maximum number of idle connections that are kept for the next request. @default 0 */
  maxIdleConnections?: number;
  /** How long an idle connection is kept, in milliseconds. */
  idleTimeout?: number;
  /** How long connecting may take, in milliseconds. */
  connectTimeout?: number;
}

/** The connections to one application. */
export class ApplicationConnections {
  #pool: ConnectionPool;

  /** @throws {TypeError} If the address is invalid. */
  constructor(address: Address, options: ConnectionOptions) {
    const {
      maxConnections = DEFAULTS.maxConnections,
      maxIdleConnections = 0,
      idleTimeout = DEFAULTS.idleTimeout,
      connectTimeout = DEFAULTS.connectTimeout,
    } = options;
    this.#pool = new ConnectionPool(parseAddress(address), {
      maxConnections,
      maxIdle: maxIdleConnections,
      idleTimeout,
      connectTimeout,
    });
  }

  /**
   * Returns an idle connection, or opens one.
   *
   * @param fresh Whether it must be a new connection.
   * @throws {ProtocolError} If connecting fails: 503 if too many are open or wait, 504 if it takes too long, else 502.
   */
  async acquire(fresh: boolean, signal: AbortSignal): Promise<Connection> {
    try {
      return new Connection(await this.#pool.acquire(fresh, signal), this.#pool);
    } catch (error) {
      if (signal.aborted || error instanceof Deno.errors.NotCapable) throw error;
      throw new ProtocolError((error as Error).message, connectStatus(error));
    }
  }

  /** Closes all connections. */
  close(): void {
    this.#pool.close();
  }
}

function connectStatus(error: unknown): number {
  if (error instanceof PoolFullError) return 503;
  if (error instanceof Deno.errors.TimedOut) return 504;
  // The listen queue of a Unix socket is full.
  if (error instanceof Deno.errors.WouldBlock) return 503;
  return 502;
}

/** A connection to an application, for one request. */
export class Connection {
  /** The bytes to send. */
  readonly out: ByteBuffer = new ByteBuffer();
  #connection: PooledConnection;
  #pool: ConnectionPool;
  #queue: WriteQueue;

  constructor(connection: PooledConnection, pool: ConnectionPool) {
    this.#connection = connection;
    this.#pool = pool;
    this.#queue = new WriteQueue(connection.duplex, this.out, () => {});
  }

  /** Whether the connection has carried another request before. */
  get reused(): boolean {
    return this.#connection.reused;
  }

  /** Whether all bytes are sent. */
  get sent(): boolean {
    return !this.#queue.writing && this.out.length === 0;
  }

  /** Reads the next bytes, which are the caller's to keep, or null at the end. */
  read(): Promise<Uint8Array<ArrayBuffer> | null> {
    return this.#connection.read();
  }

  /** Starts to send the bytes. Returns a promise if there are so many that the caller should wait. */
  flush(): Promise<void> | void {
    return this.#queue.flush();
  }

  /** Returns the connection to the pool. @param reusable Whether it may carry another request. */
  release(reusable: boolean): void {
    this.#pool.release(this.#connection, reusable);
  }

  /** Closes the connection. */
  close(): void {
    this.#connection.close();
  }
}
