import { type Address, parseAddress } from "../io/address.ts";
import { ConnectionPool, type PooledConnection, PoolFullError } from "../io/connection_pool.ts";
import { WriteQueue } from "../io/write_queue.ts";
import { ByteBuffer } from "../wire/byte_buffer.ts";
import { ProtocolError } from "../wire/protocol_error.ts";
import { DEFAULTS } from "./options.ts";

/** Limits of {@linkcode ApplicationConnections}. */
export interface ConnectionOptions {
  /** How many connections may be open. */
  maxConnections?: number;
  /** How many idle connections are kept for the next request. @default 0 */
  maxIdleConnections?: number;
  /** How long an idle connection is kept, in milliseconds. */
  idleTimeout?: number;
  /** How long connecting may take, in milliseconds. */
  connectTimeout?: number;
}

/** The connections to one application. */
export class ApplicationConnections {
  #pool: ConnectionPool;

  /** @throws {TypeError} If the address is none that can be connected to. */
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
   * Takes an idle connection, or connects.
   *
   * @param fresh Whether it must be a new connection.
   * @throws {ProtocolError} If there is none to be had: 502, 503 or 504.
   */
  async acquire(fresh: boolean, signal: AbortSignal): Promise<Connection> {
    try {
      return new Connection(await this.#pool.acquire(fresh, signal), this.#pool);
    } catch (error) {
      if (signal.aborted || error instanceof Deno.errors.NotCapable) throw error;
      throw new ProtocolError((error as Error).message, connectStatus(error));
    }
  }

  /** Closes all of them. */
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

/** A connection to an application for one request. */
export class Connection {
  /** What waits to be sent. */
  readonly out: ByteBuffer = new ByteBuffer();
  #connection: PooledConnection;
  #pool: ConnectionPool;
  #queue: WriteQueue;

  constructor(connection: PooledConnection, pool: ConnectionPool) {
    this.#connection = connection;
    this.#pool = pool;
    this.#queue = new WriteQueue(connection.duplex, this.out, () => {});
  }

  /** Whether it has served another request before. */
  get reused(): boolean {
    return this.#connection.reused;
  }

  /** Whether all has been sent. */
  get sent(): boolean {
    return !this.#queue.writing && this.out.length === 0;
  }

  /** Reads the next bytes, which are the caller's to keep, or null at the end. */
  read(): Promise<Uint8Array<ArrayBuffer> | null> {
    return this.#connection.read();
  }

  /** Begins to send what waits. Returns a promise if there is so much that the caller should wait. */
  flush(): Promise<void> | void {
    return this.#queue.flush();
  }

  /** Gives the connection back. @param reusable Whether it may serve another request. */
  release(reusable: boolean): void {
    this.#pool.release(this.#connection, reusable);
  }

  /** Closes it. */
  close(): void {
    this.#connection.close();
  }
}
