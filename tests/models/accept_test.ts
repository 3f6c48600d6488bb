/**
 * A model of workers that accept the connections of one listening socket: in a time that is simulated, bursts arrive, workers
 * are slow to take what has arrived, run out of descriptors, end, and others take their place. Each connection must be
 * served once, none lost with a worker that ends.
 *
 * It assumes of the system that a connection waits at the socket until some process accepts it. It assumes of Deno's native
 * listener that it accepts up to 128 connections at a time, calls `onconnection` for each of them in one turn of the event loop,
 * and accepts no more while one of these is not taken; of node:net that it accepts as many, and reports all of them in one turn
 * of the event loop unless the server is closed meanwhile; and of both that closing drops what was accepted and not handed
 * out, and that they stop without an event when no descriptor is free.
 */
import { EventEmitter } from "node:events";
import type * as Net from "node:net";
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { InheritedListener } from "../../io/inherited_listener.ts";
import type { NativeSockets, SocketAddress, TCPHandle } from "../../io/private_fields.ts";
import { modelRuns } from "../testing/model_runs.ts";
import { VirtualTime } from "../testing/virtual_time.ts";

/** How many connections the runtime accepts at a time. */
const AT_ONCE = 128;
/** The longest time for which a listener may not notice that it accepts nothing, in milliseconds. */
const SILENCE = 16_000;

interface WorkerPlan {
  /** How long it takes until it looks at its sockets again, in milliseconds. */
  turn: number;
  /** How long it takes to take a connection that has arrived, in milliseconds. */
  takes: number;
  /** When it stops accepting and another takes its place, in milliseconds, or that it does not. */
  stop: number | null;
  /** When it has no free descriptor. */
  exhausted: { at: number; for: number } | null;
}

interface Scenario {
  workers: WorkerPlan[];
  bursts: { at: number; count: number }[];
}

/** The listening socket, and the processes that accept from it. */
class SharedSocket {
  readonly time: VirtualTime;
  readonly queue: number[] = [];
  readonly served: number[] = [];
  /** The connections that were closed with what had accepted them. */
  readonly lost: number[] = [];
  readonly listening = new Set<Acceptor>();
  #count = 0;

  constructor(time: VirtualTime) {
    this.time = time;
  }

  connect(count: number): void {
    for (let i = 0; i < count; i++) this.queue.push(++this.#count);
    for (const acceptor of this.listening) acceptor.wake();
  }

  get count(): number {
    return this.#count;
  }
}

class Worker {
  readonly socket: SharedSocket;
  readonly plan: WorkerPlan;
  readonly #start: number;

  constructor(socket: SharedSocket, plan: WorkerPlan) {
    this.socket = socket;
    this.plan = plan;
    this.#start = socket.time.now;
  }

  get isExhausted(): boolean {
    const { exhausted } = this.plan;
    const now = this.socket.time.now - this.#start;
    return exhausted !== null && now >= exhausted.at && now < exhausted.at + exhausted.for;
  }
}

/** What the runtime does for one descriptor that listens. */
class Acceptor {
  readonly accepted: number[] = [];
  readonly worker: Worker;
  /** Deaf: it accepts nothing, and nothing says so. */
  #phase: "created" | "listening" | "deaf" | "closed" = "created";
  #scheduled = false;
  readonly #report: () => void;

  /** @param report Reports the connections that were accepted. */
  constructor(worker: Worker, report: () => void) {
    this.worker = worker;
    this.#report = report;
  }

  get isClosed(): boolean {
    return this.#phase === "closed";
  }

  listen(): void {
    this.#phase = "listening";
    this.worker.socket.listening.add(this);
    this.wake();
  }

  wake(): void {
    const { socket, plan } = this.worker;
    if (this.#scheduled || this.#phase !== "listening" || socket.queue.length === 0) return;
    this.#scheduled = true;
    socket.time.at(socket.time.now + plan.turn, () => {
      this.#scheduled = false;
      this.#poll();
    });
  }

  #poll(): void {
    const { socket } = this.worker;
    if (this.#phase !== "listening" || socket.queue.length === 0) return;
    if (this.worker.isExhausted) {
      this.#phase = "deaf";
      return;
    }
    this.accepted.push(...socket.queue.splice(0, AT_ONCE));
    this.#report();
    if (this.accepted.length > 0 && !this.isClosed) this.#phase = "deaf";
    this.wake();
  }

  close(): void {
    this.#phase = "closed";
    const { socket } = this.worker;
    socket.listening.delete(this);
    socket.lost.push(...this.accepted.splice(0));
  }
}

/** A handle of the native listener, or of a connection, which has a number in place of an address. */
class Handle implements TCPHandle {
  onconnection?: () => void;
  #acceptor: Acceptor;
  #connection: number | undefined;

  constructor(worker: Worker) {
    this.#acceptor = new Acceptor(worker, () => {
      const { length } = this.#acceptor.accepted;
      for (let i = 0; i < length; i++) this.onconnection?.();
    });
  }

  listen(): number {
    this.#acceptor.listen();
    return 0;
  }

  accept(connection: Handle): number {
    connection.#connection = this.#acceptor.accepted.shift();
    return connection.#connection === undefined ? -11 : 0;
  }

  open(): number {
    return 0;
  }

  fdForIpc(): number {
    return this.#acceptor.worker.isExhausted ? -1 : 4;
  }

  takeStream(): number {
    return this.#connection!;
  }

  setNoDelay(): number {
    return 0;
  }

  getpeername(address: Partial<SocketAddress>): number {
    address.port = this.#connection;
    return 0;
  }

  getsockname(): number {
    return 0;
  }

  ref(): void {}
  unref(): void {}

  close(): void {
    if (this.#connection === undefined && !this.#acceptor.isClosed) this.#acceptor.close();
  }
}

function createNative(worker: Worker): NativeSockets {
  const unused = () => Promise.reject(new Error("no bytes are sent"));
  return {
    openListener: () => new Handle(worker),
    createTCP: () => new Handle(worker),
    createConnection: () => new Handle(worker),
    createSocket: () => {
      throw new Error("each connection has a stream");
    },
    errorName: String,
    read: unused,
    write: unused,
    shutdown: unused,
    tryClose() {},
  };
}

/** A server of node:net. */
class NetServer extends EventEmitter {
  listening = false;
  readonly _handle: { fdForIpc(): number };
  readonly #acceptor: Acceptor;

  constructor(worker: Worker) {
    super();
    this._handle = { fdForIpc: () => worker.isExhausted ? -1 : 4 };
    this.#acceptor = new Acceptor(worker, () => {
      // Closing drops the rest.
      let connection: number | undefined;
      while ((connection = this.#acceptor.accepted.shift()) !== undefined) {
        const socket = new EventEmitter();
        this.emit(
          "connection",
          Object.assign(socket, { remoteAddress: "", remotePort: connection }),
        );
      }
    });
  }

  listen(_where: unknown, _backlog: number, listening?: () => void): this {
    this.listening = true;
    this.#acceptor.listen();
    if (listening !== undefined) queueMicrotask(listening);
    return this;
  }

  address(): unknown {
    return { address: "127.0.0.1", port: 1 };
  }

  ref(): void {}
  unref(): void {}

  close(): void {
    if (!this.#acceptor.isClosed) this.#acceptor.close();
  }
}

type Open = (worker: Worker) => Promise<InheritedListener>;

const WAYS: Record<string, Open> = {
  native: (worker) => InheritedListener.open(0, createNative(worker)),
  "node:net": (worker) => {
    const net = { createServer: () => new NetServer(worker) } as unknown as typeof Net;
    return InheritedListener.openNode((socket) => socket.listen({ fd: 0 }, 511), net);
  },
};

async function run({ workers, bursts }: Scenario, open: Open): Promise<void> {
  using time = new VirtualTime();
  const socket = new SharedSocket(time);
  const passed = (ms: number) =>
    new Promise<void>((resolve) => time.at(time.now + ms, () => resolve()));
  const listeners = new Set<InheritedListener>();
  const work = async (plan: WorkerPlan) => {
    const worker = new Worker(socket, plan);
    const listener = await open(worker);
    listeners.add(listener);
    if (plan.stop !== null) {
      time.at(time.now + plan.stop, () => {
        // As a supervisor does: the next one serves before this one ends.
        work({ ...plan, stop: null, exhausted: null }).then(() => {}, () => {});
        listener.close();
      });
    }
    while (true) {
      try {
        const { done, value } = await listener.next();
        if (done) return;
        socket.served.push((value.remoteAddr as Deno.NetAddr).port);
      } catch (error) {
        if (!(error as Error).message.includes("descriptors")) throw error;
      }
      if (plan.takes > 0) await passed(plan.takes);
    }
  };
  const running = workers.map(work);
  for (const { at, count } of bursts) time.at(at, () => socket.connect(count));
  await time.run(60_000 + 2 * SILENCE);
  for (const listener of listeners) listener.close();
  // A slow worker may have some of a long burst left.
  const ended = Promise.all(running);
  await time.run(time.now + 600_000, ended);
  await ended;
  assertEquals(socket.lost, [], "lost");
  const served = socket.served.toSorted((a, b) => a - b);
  assertEquals(served, Array.from({ length: socket.count }, (_, i) => i + 1));
}

const SCENARIOS: fc.Arbitrary<Scenario> = fc.record({
  workers: fc.array(
    fc.record({
      turn: fc.constantFrom(0, 1, 1, 20),
      takes: fc.constantFrom(0, 0, 1, 5),
      stop: fc.option(fc.integer({ min: 0, max: 3000 })),
      exhausted: fc.option(
        fc.record({ at: fc.integer({ min: 0, max: 3000 }), for: fc.constantFrom(10, 800, 5000) }),
      ),
    }),
    { minLength: 1, maxLength: 4 },
  ),
  bursts: fc.array(
    fc.record({
      at: fc.integer({ min: 0, max: 3000 }),
      count: fc.constantFrom(1, 10, 33, 64, 200, 500),
    }),
    { minLength: 1, maxLength: 8 },
  ),
});

for (const [way, open] of Object.entries(WAYS)) {
  Deno.test(`InheritedListener loses and repeats no connection of a burst, ${way}`, async () => {
    const property = fc.asyncProperty(SCENARIOS, (scenario) => run(scenario, open));
    await fc.assert(property, { numRuns: 2 * modelRuns() });
  });
}
