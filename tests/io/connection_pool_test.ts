import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  ConnectionPool,
  CONTENTION_MS,
  PooledConnection,
  PoolFullError,
  type PoolOptions,
  type PoolShare,
} from "../../io/connection_pool.ts";
import type { Endpoint } from "../../io/address.ts";
import type { Duplex } from "../../io/duplex.ts";
import { Ticker, tickFor } from "../../io/ticker.ts";
import { bytes, text } from "../testing/bytes.ts";
import { JumpingClock, standStill, StoppedClock } from "../testing/clock.ts";
import { deadline } from "../testing/deadline.ts";
import { connected } from "../testing/duplex.ts";

const DEFAULTS: PoolOptions = {
  maxConnections: 8,
  maxIdle: 8,
  idleTimeout: 60_000,
  maxAge: 60_000,
  maxWait: 60_000,
  connectTimeout: 60_000,
};

/** A ticker whose timer stops as soon as nothing is to be checked. */
function closedTicker(): Ticker {
  const ticker = new Ticker(tickFor(DEFAULTS.connectTimeout));
  ticker.close();
  return ticker;
}

const create = (duplex: Duplex) => new PooledConnection(duplex);

/** Both ends of a connection. */
interface Pair {
  ours: PooledConnection;
  theirs: Deno.Conn;
}

/** A share of a new pool. */
function poolOf(
  endpoint: Endpoint,
  options: Partial<PoolOptions> = {},
  ticker = closedTicker(),
): PoolShare<PooledConnection> {
  return new ConnectionPool(endpoint, create).share({ ...DEFAULTS, ...options }, ticker);
}

/** A pool, and the application at its address. Its clock stands still, so that a busy machine makes nothing wait for long. */
class Rig implements Disposable {
  readonly clock = new StoppedClock();
  /** The first share. */
  readonly pool: PoolShare<PooledConnection>;
  #pool: ConnectionPool<PooledConnection>;
  #shares: PoolShare<PooledConnection>[] = [];
  #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  #accepted: Deno.Conn[] = [];
  #ticker = new Ticker(tickFor(DEFAULTS.connectTimeout));

  /** @param patience How long a request waits for a connection in use. */
  constructor(options: Partial<PoolOptions> = {}, patience?: number) {
    const { hostname, port } = this.#listener.addr;
    this.#pool = new ConnectionPool({ transport: "tcp", hostname, port }, create, patience);
    this.pool = this.share(options);
  }

  /** Creates a share. */
  share(options: Partial<PoolOptions> = {}): PoolShare<PooledConnection> {
    const share = this.#pool.share({ ...DEFAULTS, ...options }, this.#ticker);
    this.#shares.push(share);
    return share;
  }

  /** Opens a new connection. */
  async connect(pool = this.pool): Promise<Pair> {
    const ours = await deadline(pool.connect(), "the connection");
    return { ours, theirs: await deadline(this.accept(), "the application's accept") };
  }

  /** Accepts the next connection. */
  async accept(): Promise<Deno.Conn> {
    const conn = await this.#listener.accept();
    this.#accepted.push(conn);
    return conn;
  }

  /** Opens a new connection, which the application keeps open and has sent bytes over. */
  async connectAndRead(pool = this.pool): Promise<Pair> {
    const pair = await this.connect(pool);
    pair.ours.keeps = true;
    await send(pair);
    return pair;
  }

  /** Resolves when the pool has counted what the application serves: its timer began earlier than this one. */
  learned(): Promise<void> {
    this.clock.advance(CONTENTION_MS);
    return new Promise((resolve) => setTimeout(resolve, CONTENTION_MS));
  }

  [Symbol.dispose](): void {
    this.clock[Symbol.dispose]();
    for (const share of this.#shares) share.close();
    this.#ticker.close();
    this.#listener.close();
    for (const conn of this.#accepted) conn.close();
  }
}

async function send({ ours, theirs }: Pair): Promise<void> {
  await theirs.write(bytes("hello"));
  assertEquals(text((await deadline(ours.read(), "the bytes"))!), "hello");
}

/** Waits until the pool has closed a connection. */
async function seesClose({ theirs }: Pair): Promise<void> {
  assertEquals(await deadline(theirs.read(new Uint8Array(1)), "the connection's close"), null);
}

/** Resolves when the pool closes a connection by itself. */
function closing({ ours: { duplex } }: Pair): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const close = duplex.close.bind(duplex);
  duplex.close = () => {
    close();
    resolve();
  };
  return deadline(promise, "the pool to close the connection");
}

Deno.test("ConnectionPool keeps a released connection for the next request", async () => {
  using rig = new Rig();
  const pair = await rig.connectAndRead();
  for (let i = 0; i < 3; i++) {
    rig.pool.release(pair.ours, true);
    assertEquals(rig.pool.reuse(), pair.ours);
    assertEquals(pair.ours.uses, i + 2);
    await send(pair);
  }
});

Deno.test("ConnectionPool reuses the connection that was released last", async () => {
  using rig = new Rig();
  const pairs = [await rig.connectAndRead(), await rig.connectAndRead()];
  for (const { ours } of pairs) rig.pool.release(ours, true);
  assertEquals(rig.pool.reuse(), pairs[1].ours);
  assertEquals(rig.pool.reuse(), pairs[0].ours);
});

Deno.test("ConnectionPool closes an idle connection for a new one", async () => {
  using rig = new Rig({ maxConnections: 1 });
  const idle = await rig.connectAndRead();
  rig.pool.release(idle.ours, true);
  await rig.connect();
  await seesClose(idle);
});

Deno.test("ConnectionPool closes a connection that is not reusable", async () => {
  using rig = new Rig();
  const pair = await rig.connectAndRead();
  rig.pool.release(pair.ours, false);
  await seesClose(pair);
  await rig.connect();
});

Deno.test("ConnectionPool closes idle connections beyond maxIdle", async () => {
  using rig = new Rig({ maxIdle: 1 });
  const [first, second] = [await rig.connectAndRead(), await rig.connectAndRead()];
  rig.pool.release(first.ours, true);
  rig.pool.release(second.ours, true);
  await seesClose(second);
  assertEquals(rig.pool.reuse(), first.ours);
});

Deno.test("ConnectionPool closes an idle connection while another waits for its first byte", async () => {
  using rig = new Rig();
  const first = await rig.connectAndRead();
  const waiting = await rig.connect();
  rig.pool.release(first.ours, true);
  rig.clock.advance(CONTENTION_MS);
  // PHP-FPM has a process for each connection: this one's may now serve the second request.
  await seesClose(first);
  await send(waiting);
  rig.pool.release(waiting.ours, true);
  assertEquals(rig.pool.reuse(), waiting.ours);
});

Deno.test("ConnectionPool keeps no connection while another has waited for long", async () => {
  using rig = new Rig();
  const first = await rig.connectAndRead();
  await rig.connect();
  await rig.learned();
  rig.pool.release(first.ours, true);
  assertEquals(rig.pool.reuse(), undefined);
  await seesClose(first);
});

Deno.test("ConnectionPool keeps a connection while another waits, if the application serves both", async () => {
  using rig = new Rig();
  const [first, second] = [await rig.connectAndRead(), await rig.connectAndRead()];
  rig.pool.release(second.ours, true);
  await rig.learned();
  rig.pool.release(rig.pool.reuse()!, false);
  await rig.connect();
  rig.pool.release(first.ours, true);
  assertEquals(rig.pool.reuse(), first.ours);
});

Deno.test("ConnectionPool keeps a connection while a slow response is awaited on one that was accepted", async () => {
  using rig = new Rig();
  await rig.connect();
  // Connections are accepted in turn, so that the first one is served.
  const second = await rig.connectAndRead();
  rig.pool.release(second.ours, true);
  await rig.learned();
  assertEquals(rig.pool.reuse(), second.ours);
});

Deno.test("ConnectionPool closes a connection for one that waits though the application served both before", async () => {
  using rig = new Rig();
  const before = [await rig.connectAndRead(), await rig.connectAndRead()];
  rig.pool.release(before[1].ours, true);
  await rig.learned();
  rig.pool.release(rig.pool.reuse()!, false);
  rig.pool.release(before[0].ours, false);
  // It has restarted with one process, or its other one serves another client.
  const first = await rig.connectAndRead();
  await rig.connect();
  rig.pool.release(first.ours, true);
  rig.clock.run();
  await seesClose(first);
});

Deno.test("ConnectionPool closes a connection for one that waits behind a balancer", async () => {
  using rig = new Rig();
  const first = await rig.connectAndRead();
  await rig.connect();
  // The second connection waits for the process of the first: the third has another application.
  const third = await rig.connectAndRead();
  rig.pool.release(first.ours, true);
  assertEquals(rig.pool.reuse(), first.ours);
  rig.pool.release(third.ours, true);
  rig.clock.run();
  await seesClose(third);
  // The first one is released only now.
  rig.pool.release(first.ours, true);
  await seesClose(first);
});

Deno.test("ConnectionPool learns nothing from a connection that the application need not keep", async () => {
  using rig = new Rig();
  const [first, second] = [await rig.connectAndRead(), await rig.connectAndRead()];
  first.ours.keeps = false;
  rig.pool.release(second.ours, true);
  await rig.learned();
  await rig.connect();
  rig.clock.advance(CONTENTION_MS);
  await seesClose(second);
});

/** Longer than any test waits for a connection. */
const LONG = 60_000;

/** Lets a pool learn that the application serves one connection at once. Returns that one. */
async function learnOne(rig: Rig): Promise<Pair> {
  const first = await rig.connectAndRead();
  const second = await rig.connect();
  second.ours.keeps = true;
  await rig.learned();
  rig.pool.release(first.ours, true);
  await seesClose(first);
  await send(second);
  return second;
}

Deno.test("PoolShare.connect() waits in turn for a connection, once a new one has waited for a process", async () => {
  using rig = new Rig({}, LONG);
  const only = await learnOne(rig);
  const order: number[] = [];
  const waiting = [1, 2, 3].map((i) =>
    rig.pool.connect(true).then((connection) => {
      order.push(i);
      return connection;
    })
  );
  for (const one of waiting) {
    rig.pool.release(only.ours, true);
    assertEquals(await deadline(one, "the connection"), only.ours);
  }
  assertEquals(order, [1, 2, 3]);
  assertEquals(only.ours.uses, 4);
  rig.pool.release(only.ours, true);
  assertEquals(rig.pool.reuse(), only.ours);
});

Deno.test("PoolShare.connect() opens a connection after a moment, as the application may serve more by now", async () => {
  using rig = new Rig();
  const first = await learnOne(rig);
  const connecting = rig.pool.connect(true);
  rig.clock.advance(10);
  const [second, theirs] = await Promise.all([
    deadline(connecting, "the connection"),
    deadline(rig.accept(), "the application's accept"),
  ]);
  assertEquals(second.uses, 1);
  second.keeps = true;
  await send({ ours: second, theirs });
  await rig.learned();
  // Both are kept, and a third request waits again.
  rig.pool.release(first.ours, true);
  assertEquals(rig.pool.reuse(), first.ours);
  const third = rig.pool.connect(true);
  rig.pool.release(second, true);
  assertEquals(await deadline(third, "the connection"), second);
});

Deno.test("PoolShare.connect() opens a connection as soon as another has closed", async () => {
  using rig = new Rig({}, LONG);
  const only = await learnOne(rig);
  const waiting = rig.pool.connect(true);
  rig.pool.release(only.ours, false);
  await deadline(rig.accept(), "the application's accept");
  assertEquals((await deadline(waiting, "the connection")).uses, 1);
});

Deno.test("ConnectionPool closes a connection for a request that cannot wait for it", async () => {
  using rig = new Rig({}, LONG);
  const only = await learnOne(rig);
  const waiting = rig.pool.connect(true);
  // A POST is sent over a connection of its own.
  const post = await rig.connect();
  rig.pool.release(only.ours, true);
  await seesClose(only);
  post.ours.keeps = true;
  await send(post);
  rig.pool.release(post.ours, true);
  assertEquals(await deadline(waiting, "the connection"), post.ours);
});

Deno.test("PoolShare.connect() waits for no connection if the share keeps none", async () => {
  using rig = new Rig({}, LONG);
  const share = rig.share({ maxIdle: 0 });
  await learnOne(rig);
  const connecting = share.connect(true);
  await deadline(rig.accept(), "the application's accept");
  assertEquals((await deadline(connecting, "the connection")).uses, 1);
});

Deno.test("PoolShare.close() ends the wait of its requests only", async () => {
  using rig = new Rig({}, LONG);
  const other = rig.share();
  const only = await learnOne(rig);
  const waiting = other.connect(true);
  const next = rig.pool.connect(true);
  other.close();
  await deadline(rig.accept(), "the application's accept");
  assertEquals((await deadline(waiting, "the connection")).uses, 1);
  other.release(await waiting, true);
  rig.pool.release(only.ours, true);
  assertEquals(await deadline(next, "the connection"), only.ours);
});

for (const limit of ["idleTimeout", "maxAge"] as const) {
  Deno.test(`ConnectionPool closes a connection that is idle for ${limit}`, async () => {
    using rig = new Rig({ [limit]: 20 });
    const pair = await rig.connectAndRead();
    const closed = closing(pair);
    rig.pool.release(pair.ours, true);
    rig.clock.run();
    await closed;
    await seesClose(pair);
    await rig.connect();
  });
}

Deno.test("ConnectionPool uses a connection for maxAge only", async () => {
  using rig = new Rig({ maxAge: 0 });
  const pair = await rig.connectAndRead();
  rig.pool.release(pair.ours, true);
  assertEquals(rig.pool.reuse(), undefined);
  await seesClose(pair);
});

Deno.test("ConnectionPool does not reuse an idle connection that is older than maxAge", async () => {
  using rig = new Rig({ maxAge: 60_000 });
  const [young, old] = [await rig.connectAndRead(), await rig.connectAndRead()];
  rig.pool.release(young.ours, true);
  rig.pool.release(old.ours, true);
  Object.assign(old.ours, { openedAt: old.ours.openedAt - 60_000 });
  assertEquals(rig.pool.reuse(), young.ours);
  await seesClose(old);
  assertEquals(rig.pool.reuse(), undefined);
});

/** Makes connections older than `maxWait`, and than the last request. */
function age(...pairs: Pair[]): void {
  for (const { ours } of pairs) Object.assign(ours, { openedAt: ours.openedAt - 60_000 });
}

Deno.test("ConnectionPool keeps connections beyond maxWait once a new one is served", async () => {
  using rig = new Rig({ maxAge: Infinity });
  const [first, second] = [await rig.connectAndRead(), await rig.connectAndRead()];
  age(first, second);
  rig.pool.release(first.ours, true);
  await seesClose(first);
  // Who waited before it was served before it.
  const next = await rig.connectAndRead();
  rig.pool.release(next.ours, true);
  rig.pool.release(second.ours, true);
  assertEquals(rig.pool.reuse(), second.ours);
  assertEquals(rig.pool.reuse(), next.ours);
});

Deno.test("ConnectionPool closes connections in turn while no new one is served", async () => {
  using rig = new Rig({ maxAge: Infinity });
  const pairs = [await rig.connectAndRead(), await rig.connectAndRead()];
  age(...pairs);
  for (const pair of pairs) {
    rig.pool.release(pair.ours, true);
    await seesClose(pair);
    // It waits for the process, as others do.
    await rig.connect();
    await rig.learned();
  }
});

Deno.test("ConnectionPool closes one connection at a time for others that may wait", async () => {
  using rig = new Rig({ maxAge: Infinity });
  const [first, second] = [await rig.connectAndRead(), await rig.connectAndRead()];
  age(first, second);
  rig.pool.release(first.ours, true);
  rig.pool.release(second.ours, true);
  assertEquals(rig.pool.reuse(), second.ours);
  await seesClose(first);
});

Deno.test("ConnectionPool drops an idle connection that the application closes", async () => {
  using rig = new Rig();
  const pair = await rig.connectAndRead();
  const closed = closing(pair);
  rig.pool.release(pair.ours, true);
  await pair.theirs.closeWrite();
  await closed;
  await rig.connect();
});

Deno.test("ConnectionPool drops an idle connection that receives bytes", async () => {
  using rig = new Rig();
  const pair = await rig.connectAndRead();
  const closed = closing(pair);
  rig.pool.release(pair.ours, true);
  await pair.theirs.write(bytes("nobody sent a request"));
  await closed;
  await rig.connect();
});

Deno.test("ConnectionPool keeps a connection that receives bytes once it is in use again", async () => {
  using rig = new Rig();
  const pair = await rig.connectAndRead();
  rig.pool.release(pair.ours, true);
  assertEquals(rig.pool.reuse(), pair.ours);
  // This read began while the connection was idle.
  await send(pair);
  await send(pair);
});

Deno.test("ConnectionPool rejects more than maxConnections, until one is released", async () => {
  using rig = new Rig({ maxConnections: 2 });
  const pairs = [await rig.connectAndRead(), await rig.connectAndRead()];
  for (let i = 0; i < 2; i++) {
    await assertRejects(
      () => rig.pool.connect(),
      PoolFullError,
      "Cannot connect: all 2 connections are in use (maxConnections)",
    );
  }
  rig.pool.release(pairs[0].ours, false);
  await rig.connect();
  rig.pool.release(pairs[1].ours, true);
});

Deno.test("ConnectionPool counts a connection that is being opened", async () => {
  using rig = new Rig({ maxConnections: 1 });
  const first = rig.connect();
  await assertRejects(() => rig.pool.connect(), PoolFullError);
  await first;
});

/** Creates an address where connecting never completes: its queue is full, and nothing accepts. */
async function withFullQueue(use: (endpoint: Deno.NetAddr) => Promise<void>): Promise<void> {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0, tcpBacklog: 1 });
  const { port } = listener.addr;
  const waiting = await Promise.all(
    [1, 2].map(() => Deno.connect({ hostname: "127.0.0.1", port })),
  );
  try {
    await use(listener.addr);
  } finally {
    for (const conn of waiting) conn.close();
    listener.close();
  }
}

Deno.test("ConnectionPool stops connecting after connectTimeout, and frees its slot", async () => {
  await withFullQueue(async ({ port }) => {
    const endpoint = { transport: "tcp", hostname: "127.0.0.1", port } as const;
    const ticker = new Ticker(tickFor(1));
    const pool = poolOf(endpoint, { maxConnections: 1, connectTimeout: 1 }, ticker);
    for (let i = 0; i < 2; i++) {
      await assertRejects(
        () => deadline(pool.connect(), "the timeout"),
        Deno.errors.TimedOut,
        `Cannot connect to 127.0.0.1:${port} within 1 ms`,
      );
    }
    pool.close();
    ticker.close();
  });
});

Deno.test("ConnectionPool names the address that it cannot connect to", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  listener.close();
  const endpoint = { transport: "tcp", hostname: "127.0.0.1", port } as const;
  await assertRejects(
    () => poolOf(endpoint).connect(),
    Deno.errors.ConnectionRefused,
    `Cannot connect to 127.0.0.1:${port}: `,
  );
  const directory = await Deno.makeTempDir();
  const unix = { transport: "unix", path: `${directory}/none.sock` } as const;
  await assertRejects(
    () => poolOf(unix).connect(),
    Deno.errors.NotFound,
    `Cannot connect to unix:${directory}/none.sock: `,
  );
  await Deno.remove(directory);
  assertThrows(
    () => poolOf({ ...endpoint, port: 0 }),
    TypeError,
    'Cannot connect as the port must be from 1 to 65535: current address is "127.0.0.1:0"',
  );
});

Deno.test("ConnectionPool keeps connections over a Unix socket", async () => {
  const directory = await Deno.makeTempDir();
  const path = `${directory}/socket`;
  const listener = Deno.listen({ transport: "unix", path });
  const pool = poolOf({ transport: "unix", path });
  const ours = await deadline(pool.connect(), "the connection");
  const theirs = await deadline(listener.accept(), "the application's accept");
  await send({ ours, theirs });
  pool.release(ours, true);
  assertEquals(pool.reuse(), ours);
  pool.close();
  await seesClose({ ours, theirs });
  theirs.close();
  listener.close();
  await Deno.remove(directory, { recursive: true });
});

Deno.test("PoolShare reuses a connection that another share released", async () => {
  using rig = new Rig();
  const other = rig.share();
  const pair = await rig.connectAndRead();
  rig.pool.release(pair.ours, true);
  assertEquals(other.reuse(), pair.ours);
  await send(pair);
  other.release(pair.ours, true);
  assertEquals(rig.pool.reuse(), pair.ours);
});

Deno.test("PoolShare.connect() closes an idle connection of another share for a new one", async () => {
  using rig = new Rig();
  const other = rig.share({ maxIdle: 0 });
  const idle = await rig.connectAndRead();
  rig.pool.release(idle.ours, true);
  await rig.learned();
  // The application has been seen to serve one connection at once.
  await rig.connect(other);
  await seesClose(idle);
});

Deno.test("PoolShare.connect() closes a connection of another share that is released while it waits", async () => {
  using rig = new Rig();
  const first = await rig.connectAndRead();
  await rig.connect(rig.share({ maxIdle: 0 }));
  await rig.learned();
  rig.pool.release(first.ours, true);
  await seesClose(first);
});

Deno.test("PoolShare.reuse() returns nothing if the share keeps no connections", async () => {
  using rig = new Rig();
  const pair = await rig.connectAndRead();
  rig.pool.release(pair.ours, true);
  assertEquals(rig.share({ maxIdle: 0 }).reuse(), undefined);
  assertEquals(rig.pool.reuse(), pair.ours);
});

Deno.test("PoolShare.reuse() drops a connection that is too old for this share", async () => {
  using rig = new Rig();
  const young = rig.share({ maxAge: 0 });
  const pair = await rig.connectAndRead();
  rig.pool.release(pair.ours, true);
  assertEquals(young.reuse(), undefined);
  await seesClose(pair);
});

Deno.test("PoolShare counts its own connections, and all idle ones", async () => {
  using rig = new Rig();
  const small = rig.share({ maxConnections: 1 });
  const [first, second] = [await rig.connectAndRead(), await rig.connectAndRead()];
  // Those in use by another share do not count.
  const own = await rig.connectAndRead(small);
  await assertRejects(() => small.connect(), PoolFullError, "all 1 connections are in use");
  rig.pool.release(first.ours, true);
  assertEquals(small.reuse(), undefined);
  rig.pool.release(second.ours, true);
  // As those two are idle, it is not kept as well.
  small.release(own.ours, true);
  await seesClose(own);
  await rig.connect(small);
  await seesClose(first);
  await seesClose(second);
});

Deno.test("PoolShare.connect() that fails leaves room for another", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  listener.close();
  const pool = poolOf({ transport: "tcp", hostname: "127.0.0.1", port }, { maxConnections: 1 });
  for (let i = 0; i < 2; i++) {
    await assertRejects(() => pool.connect(), Deno.errors.ConnectionRefused);
  }
});

Deno.test("ConnectionPool closes each idle connection after the time of its share", async () => {
  using rig = new Rig();
  const brief = rig.share({ idleTimeout: 20 });
  const [long, short] = [await rig.connectAndRead(), await rig.connectAndRead(brief)];
  rig.pool.release(long.ours, true);
  const closed = closing(short);
  brief.release(short.ours, true);
  rig.clock.run();
  await closed;
  assertEquals(rig.pool.reuse(), long.ours);
});

Deno.test("PoolShare.close() leaves the connections of another share", async () => {
  using rig = new Rig();
  const other = rig.share();
  const [idle, busy] = [await rig.connectAndRead(other), await rig.connectAndRead(other)];
  const own = await rig.connectAndRead();
  other.release(idle.ours, true);
  rig.pool.close();
  await seesClose(own);
  await send(busy);
  assertEquals(other.reuse(), idle.ours);
});

Deno.test("PoolShare.close() closes all connections, and those that are released later", async () => {
  using rig = new Rig();
  const [idle, busy] = [await rig.connectAndRead(), await rig.connectAndRead()];
  rig.pool.release(idle.ours, true);
  rig.pool.close();
  await seesClose(idle);
  await seesClose(busy);
  rig.pool.release(busy.ours, true);
  const late = await rig.connectAndRead();
  rig.pool.release(late.ours, true);
  await seesClose(late);
});

Deno.test("PooledConnection reads the bytes received while it was watched", async () => {
  const [theirs, duplex] = connected();
  const connection = new PooledConnection(duplex);
  const event = Promise.withResolvers<void>();
  connection.watch(event.resolve);
  await theirs.write(bytes("first"));
  await deadline(event.promise, "the event");
  await theirs.write(bytes("second"));
  assertEquals(text((await connection.read())!), "first");
  assertEquals(text((await connection.read())!), "second");
  theirs.close();
  assertEquals(await deadline(connection.read(), "the end"), null);
  connection.close();
  connection.close();
});

Deno.test("ConnectionPool reads what has arrived while the machine was suspended before it observes", async () => {
  using rig = new Rig({ maxAge: Infinity, maxWait: Infinity });
  const [idle, other] = [await rig.connectAndRead(), await rig.connectAndRead()];
  await rig.learned();
  // The application serves two at once.
  rig.pool.release(other.ours, false);
  rig.pool.release(idle.ours, true);
  using clock = new JumpingClock();
  const next = await rig.connect();
  const read = next.ours.read();
  const written = next.theirs.write(bytes("hello"));
  clock.jump();
  standStill(20 * CONTENTION_MS);
  await deadline(Promise.all([read, written]), "the bytes");
  await rig.learned();
  await rig.learned();
  assertEquals(rig.pool.reuse(), idle.ours);
});
