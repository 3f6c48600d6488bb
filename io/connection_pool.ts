import { type Endpoint, nameOf } from "./address.ts";
import { connect } from "./connect.ts";
import type { Duplex } from "./duplex.ts";
import { Progress } from "./progress.ts";
import { type Member, Roster } from "./roster.ts";
import { type Ticked, Ticker, tickFor } from "./ticker.ts";
import { runtime } from "./runtime.ts";

/** Limits of a {@linkcode PoolShare}. */
export interface PoolOptions {
  /** The maximum number of connections: those in use, and the idle ones of the pool. */
  maxConnections: number;
  /** The maximum number of idle connections that are kept. */
  maxIdle: number;
  /** How long an idle connection is kept, in milliseconds. */
  idleTimeout: number;
  /** How long a connection is used for further requests, in milliseconds. */
  maxAge: number;
  /**
   * How long other clients may have to wait for a process, in milliseconds. Connections close in turn unless a new one
   * has been served since then: those that waited before it are served, too.
   */
  maxWait: number;
  /** How long connecting may take, in milliseconds. */
  connectTimeout: number;
}

/** Large enough for most responses; a longer one is read in larger parts. */
const SMALL_READ = 4096;
const LARGE_READ = 32_768;
/** How long a new connection may wait for a process that an idle connection occupies, in milliseconds. */
export const CONTENTION_MS = 2;
/** How long a request waits for a connection that is in use where a new one would wait, too, in milliseconds. */
const WAIT_MS = 10;
/** How long it may wait if it seems to have a process, and how long others are then used, in milliseconds. */
const CROWDED_MS = 100;

/** How late a timer is once this process has been stopped or suspended, in milliseconds. */
const STANDSTILL = 1000;

/** Thrown if the maximum number of connections is open. */
export class PoolFullError extends Error {
  override name = "PoolFullError";
}

/** A connection to an application. While it is idle a read is pending, which detects when the application closes it. */
export class PooledConnection implements Member {
  place = -1;
  /** The connection's bytes. */
  readonly duplex: Duplex;
  /** The number of requests that it has carried, with the current one. */
  uses = 1;
  /** When it was opened. */
  readonly openedAt: number = performance.now();
  /** Which connection of its pool it is, in the order of opening. */
  number = 0;
  /** Whether the application keeps it open after a response. It may then occupy a process until it closes. */
  keeps = false;
  /** Whether any bytes have been read. */
  hasRead = false;
  /** The share that uses it, or used it last. */
  share: PoolShare<PooledConnection> | undefined;
  #idling = new Progress();
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
    if (idle) this.duplex.unref?.();
    else this.duplex.ref?.();
  }

  /** Returns how long it has been idle, in milliseconds. @param now The time of a ticker. */
  idleFor(now: number): number {
    return this.#idling.elapsed(now, this.uses);
  }

  /** Whether this side has closed it. */
  get closed(): boolean {
    return this.#closed;
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
 * Whether new connections wait for their first byte. "calm": none waits long. "contended": one probably waits for a process.
 * "crowded": one has waited so long that it may wait for a process, although it seems to have one.
 */
type Phase = "calm" | "contended" | "crowded";

/** A request that waits for a connection. */
interface Waiter<Connection extends PooledConnection> {
  share: PoolShare<Connection>;
  since: number;
  /** Gives it a connection, or lets it open one. */
  resolve(connection: Connection | undefined): void;
}

/**
 * The connections to one address. Idle ones are kept for the next request. The one released last is reused first, so that
 * those beyond the current concurrency reach `idleTimeout` and close.
 *
 * An application may serve one connection per process, as PHP-FPM and programs of libfcgi do, and accept another only when
 * a process is free. An idle connection must not occupy the process that a new connection waits for: when one has waited
 * for a few milliseconds, idle connections close, unless the application is known to serve as many at once. Connections
 * are accepted in the order in which they were opened, so that a response over one shows that those before it have a
 * process as well. Neither is certain after a restart or behind a balancer: when one has waited for long, the others are
 * used for a short time only.
 *
 * Once it is known how many connections the application serves at once, a request waits for one of them instead of opening
 * another that would wait: in turn, and for a few milliseconds, as the application may serve more by then.
 *
 * Whether other clients of the application wait cannot be seen. They are accepted in the same order, so that a response
 * over a new connection shows that nobody waits who came before it. From time to time one is therefore replaced.
 */
export class ConnectionPool<Connection extends PooledConnection> {
  #endpoint: Endpoint;
  #create: (duplex: Duplex) => Connection;
  #open = new Roster<Connection>();
  /** In the order in which they became idle. */
  #idle: Connection[] = [];
  #connecting = 0;
  #opened = 0;
  /** The number of the last connection that is known to have been accepted. */
  #accepted = 0;
  /** The number of connections that the application has been seen to serve at once. */
  #served = 0;
  /** The number of connections beyond which one has been seen to wait. */
  #limit = Infinity;
  /** In the order of their arrival. */
  #waiters: Waiter<Connection>[] = [];
  #patience: number;
  #waking: ReturnType<typeof setTimeout> | undefined;
  /** When the last connection was opened that has been served: no older one waits. */
  #servedSince = -Infinity;
  /** When a connection was last closed so that another may show this. */
  #replacedAt = -Infinity;
  #phase: Phase = "calm";
  /** Whether a share keeps connections, so that new ones are observed. */
  #keeps = false;
  #observation: ReturnType<typeof setTimeout> | undefined;
  /** When that is due. */
  #observesAt = 0;

  /**
   * @param create Wraps the bytes of a new connection.
   * @param patience How long a request waits for a connection in use where a new one would wait, too, in milliseconds.
   * @throws {TypeError} If the endpoint's port is 0.
   */
  constructor(
    endpoint: Endpoint,
    create: (duplex: Duplex) => Connection,
    patience: number = WAIT_MS,
  ) {
    if (endpoint.transport === "tcp" && endpoint.port === 0) {
      throw new TypeError(
        `Cannot connect as the port must be from 1 to 65535: current address is "${
          nameOf(endpoint)
        }"`,
      );
    }
    this.#endpoint = endpoint;
    this.#create = create;
    this.#patience = patience;
  }

  /** Creates a share of the pool. @param ticker Enforces `connectTimeout`. */
  share(options: PoolOptions, ticker: Ticker): PoolShare<Connection> {
    if (options.maxIdle > 0) this.#keeps = true;
    return new PoolShare(this, options, ticker);
  }

  /** Returns an idle connection, or undefined if there is none. */
  reuse(share: PoolShare<Connection>): Connection | undefined {
    let connection = this.#idle.pop();
    while (connection !== undefined && this.#isOld(connection, share, performance.now())) {
      this.#drop(connection);
      connection = this.#idle.pop();
    }
    if (connection === undefined) return undefined;
    connection.share = share;
    connection.idle(false);
    connection.uses++;
    return connection;
  }

  /**
   * Waits for a connection that has carried a request, if a new one would wait for a process.
   *
   * @returns Undefined if one must be opened.
   */
  wait(share: PoolShare<Connection>): Promise<Connection | undefined> | undefined {
    if (share.options.maxIdle === 0 || this.#count < this.#limit) return undefined;
    const { promise, resolve } = Promise.withResolvers<Connection | undefined>();
    this.#waiters.push({ share, since: performance.now(), resolve });
    this.#waking ??= setTimeout(() => this.#wake(), this.#patience);
    return promise;
  }

  /** Lets the requests open a connection that have waited for long. */
  #wake(): void {
    this.#waking = undefined;
    const now = performance.now();
    while (this.#waiters.length > 0 && this.#waiters[0].since <= now - this.#patience) {
      this.#nextWaiter()!.resolve(undefined);
    }
    const [next] = this.#waiters;
    this.#waking = next && setTimeout(() => this.#wake(), next.since + this.#patience - now);
  }

  #nextWaiter(): Waiter<Connection> | undefined {
    const waiter = this.#waiters.shift();
    if (waiter !== undefined && this.#waiters.length === 0) this.#stopWaking();
    return waiter;
  }

  #stopWaking(): void {
    clearTimeout(this.#waking);
    this.#waking = undefined;
  }

  /** Opens a connection. Connecting is not aborted when the client disconnects: `Deno.connect` could leak the socket. */
  async connect(share: PoolShare<Connection>): Promise<Connection> {
    const { connectTimeout } = share.options;
    if (this.#idle.length > 0 && this.#count >= this.#served) this.#drop(this.#idle[0]);
    while (this.#idle.length > 0 && !this.#hasRoom(share)) this.#drop(this.#idle[0]);
    this.#connecting++;
    try {
      const connection = this.#create(await connect(this.#endpoint, connectTimeout, share.ticker));
      connection.share = share;
      connection.number = ++this.#opened;
      this.#open.add(connection);
      if (this.#keeps && this.#observation === undefined) this.#observeAfter(CONTENTION_MS);
      return connection;
    } finally {
      this.#connecting--;
    }
  }

  /** Takes a connection back. @param keep Whether it may carry another request. */
  release(connection: Connection, keep: boolean): void {
    const share = connection.share!;
    if (!keep) return this.#drop(connection);
    // The first byte may have arrived since.
    if (this.#phase === "contended") this.#observe();
    const now = performance.now();
    if (connection.hasRead) {
      this.#servedSince = Math.max(this.#servedSince, connection.openedAt);
    }
    // One beyond the limit waits for the process of this one.
    if (this.#count > this.#limit) return this.#drop(connection);
    if (this.#isOld(connection, share, now)) return this.#drop(connection);
    const waiter = this.#nextWaiter();
    if (waiter !== undefined) {
      connection.share = waiter.share;
      connection.uses++;
      return waiter.resolve(connection);
    }
    if (this.#idle.length >= share.options.maxIdle || !this.#hasRoom(share)) {
      return this.#drop(connection);
    }
    this.#keep(connection);
    share.keeps();
  }

  /** Closes the connections that a share uses or used last. */
  close(share: PoolShare<Connection>): void {
    const left = this.#waiters.filter((waiter) => waiter.share === share);
    this.#waiters = this.#waiters.filter((waiter) => waiter.share !== share);
    if (this.#waiters.length === 0) this.#stopWaking();
    for (const { resolve } of left) resolve(undefined);
    for (const connection of this.#open) {
      if (connection.share === share) this.#drop(connection);
    }
    if (this.#open.size > 0) return;
    clearTimeout(this.#observation);
    this.#observation = undefined;
  }

  get #count(): number {
    return this.#open.size + this.#connecting;
  }

  /** Whether a share may have one more connection. */
  #hasRoom({ used, options }: PoolShare<PooledConnection>): boolean {
    return used + this.#idle.length <= options.maxConnections;
  }

  /** Whether a connection must not carry another request of a share. */
  #isOld({ openedAt }: Connection, { options }: PoolShare<PooledConnection>, now: number): boolean {
    const { maxAge, maxWait } = options;
    const limits = { calm: maxAge, contended: 0, crowded: Math.min(maxAge, CROWDED_MS) };
    if (now - openedAt >= limits[this.#phase]) return true;
    if (now - Math.max(openedAt, this.#servedSince) < maxWait) return false;
    // One at a time: the next connection has a moment to be served.
    if (now - this.#replacedAt < CONTENTION_MS) return false;
    this.#replacedAt = now;
    return true;
  }

  #observeAfter(delay: number): void {
    this.#observesAt = performance.now() + delay;
    this.#observation = setTimeout(() => this.#observeOnTime(), delay);
    runtime.unrefTimer(this.#observation);
  }

  /** Observes later if this process stood still: the first bytes may have arrived meanwhile, and are read first. */
  #observeOnTime(): void {
    if (performance.now() - this.#observesAt < STANDSTILL) this.#observe();
    else this.#observeAfter(CONTENTION_MS);
  }

  /** Observes which connections are served and which wait, and closes idle ones accordingly. */
  #observe(): void {
    clearTimeout(this.#observation);
    this.#observation = undefined;
    const now = performance.now();
    // When the oldest connection without a byte was opened, and the oldest that may not have been accepted.
    let unread = Infinity;
    let waiting = Infinity;
    let accepted = 0;
    let served = 0;
    for (const { hasRead, number, openedAt } of this.#open) {
      if (hasRead) this.#accepted = Math.max(this.#accepted, number);
      else unread = Math.min(unread, openedAt);
    }
    for (const { keeps, number, openedAt } of this.#open) {
      if (number > this.#accepted) {
        waiting = Math.min(waiting, openedAt);
      } else {
        accepted++;
        if (keeps) served++;
      }
    }
    const isLong = unread <= now - CROWDED_MS;
    this.#served = isLong ? served : Math.max(this.#served, served);
    if (this.#count > this.#served && waiting <= now - CONTENTION_MS) this.#phase = "contended";
    else this.#phase = isLong ? "crowded" : "calm";
    const known = this.#phase === "contended" ? this.#served : this.#limit;
    this.#limit = Math.max(accepted, known, 1);
    for (const connection of [...this.#idle]) {
      if (this.#isOld(connection, connection.share!, now)) this.#drop(connection);
    }
    if (unread === Infinity) return;
    this.#observeAfter(this.#phase === "crowded" ? CROWDED_MS : CONTENTION_MS);
  }

  #keep(connection: Connection): void {
    this.#idle.push(connection);
    connection.watch(() => {
      if (!this.#idle.includes(connection)) return;
      this.#drop(connection);
      // The application may have restarted with another number of processes.
      this.#served = 0;
      this.#limit = Infinity;
    });
    connection.idle(true);
  }

  /**
   * Closes a share's connections that have been idle for too long.
   *
   * @param now The time of the share's ticker.
   * @returns Whether idle ones are left.
   */
  expire(share: PoolShare<Connection>, now: number): boolean {
    const { idleTimeout, maxAge } = share.options;
    let left = false;
    for (const connection of [...this.#idle]) {
      if (connection.share !== share) continue;
      if (connection.idleFor(now) >= Math.min(idleTimeout, maxAge)) this.#drop(connection);
      else left = true;
    }
    return left;
  }

  #drop(connection: Connection): void {
    const at = this.#idle.indexOf(connection);
    if (at >= 0) this.#idle.splice(at, 1);
    this.#open.delete(connection);
    connection.close();
    if (this.#count < this.#limit) this.#nextWaiter()?.resolve(undefined);
  }
}

/** What one gateway uses of the connections to an address, within its own limits. */
export class PoolShare<Connection extends PooledConnection> implements Ticked {
  place = -1;
  /** The limits. */
  readonly options: PoolOptions;
  /** Enforces `connectTimeout`. */
  readonly ticker: Ticker;
  /** The number of connections that are in use or being opened. */
  used = 0;
  #pool: ConnectionPool<Connection>;
  /** Closes idle connections. Does not keep the process alive, as they do not. */
  #idleTicker: Ticker;
  #closed = false;

  /** Creates the share. Use {@linkcode ConnectionPool.share}. */
  constructor(pool: ConnectionPool<Connection>, options: PoolOptions, ticker: Ticker) {
    this.#pool = pool;
    this.options = options;
    this.ticker = ticker;
    this.#idleTicker = new Ticker(tickFor(options.idleTimeout, options.maxAge));
  }

  /** Returns an idle connection, or undefined if there is none. */
  reuse(): Connection | undefined {
    const { maxConnections, maxIdle } = this.options;
    if (maxIdle === 0 || this.used >= maxConnections) return undefined;
    const connection = this.#pool.reuse(this);
    if (connection !== undefined) this.used++;
    return connection;
  }

  /**
   * Opens a connection.
   *
   * @param mayWait Whether it may be a used connection where a new one would have to wait.
   * @throws {PoolFullError} If the maximum number is in use.
   */
  async connect(mayWait = false): Promise<Connection> {
    const { maxConnections } = this.options;
    if (this.used >= maxConnections) {
      throw new PoolFullError(
        `Cannot connect: all ${maxConnections} connections are in use (maxConnections)`,
      );
    }
    this.used++;
    try {
      const waiting = mayWait ? this.#pool.wait(this) : undefined;
      return await waiting ?? await this.#pool.connect(this);
    } catch (error) {
      this.used--;
      throw error;
    }
  }

  /**
   * Returns a connection to the pool.
   *
   * @param reusable Whether it may carry another request.
   */
  release(connection: Connection, reusable: boolean): void {
    this.#pool.release(connection, reusable && !this.#closed && this.options.maxIdle > 0);
    this.used--;
  }

  /** Records that an idle connection is kept, which closes after its time. */
  keeps(): void {
    if (this.place < 0) this.#idleTicker.add(this);
  }

  check(now: number): void {
    if (!this.#pool.expire(this, now)) this.#idleTicker.delete(this);
  }

  /** Closes the connections. */
  close(): void {
    this.#closed = true;
    this.#pool.close(this);
    this.#idleTicker.delete(this);
    this.#idleTicker.close();
  }
}
