/**
 * A model of the FastCGI gateway and an application of few processes, each of which serves one connection at a time: in a
 * time that is simulated, processes die and are slow to accept, a balancer distributes the connections, and other clients
 * wait for the same processes. No request may be lost, be sent twice, or wait for a process that an idle connection occupies.
 *
 * It assumes of an application that it accepts connections in the order of their opening, that a process serves a
 * connection until one side closes it, and that a dying process closes its connection.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { fastCGIGateway } from "../../gateway.ts";
import { Peer } from "../gateway/application.ts";
import { connected, type FakeConn } from "../testing/duplex.ts";
import { modelRuns } from "../testing/model_runs.ts";
import { VirtualTime } from "../testing/virtual_time.ts";

/** How long an idle connection may hold a process for which somebody waits, in milliseconds. */
const MAX_WAIT = 100;
/** The same if a balancer hides who waits. */
const MAX_HIDDEN_WAIT = 1000;
/** What a tick of the gateway's timers adds, in milliseconds. */
const TICK = 10;

/** A connection that waits for a process, or has one. */
interface Client {
  /** When a process first had no work since it is the first of its queue; undefined before. */
  turnAt?: number;
  /** The connection of the gateway; another client has none, but a time for which it needs a process. */
  conn?: FakeConn;
  needs: number;
}

interface Scenario {
  /** The number of processes behind each address of the balancer. */
  backends: number[];
  /** How long a process takes to accept another connection, in milliseconds. */
  acceptDelay: number;
  /** When the gateway gets requests, and how long the application takes for each, in milliseconds. */
  requests: { at: number; takes: number }[];
  /** Clients of the gateway that send one request after another, with a pause between. */
  loops: { count: number; takes: number; pause: number }[];
  /** When other clients connect, and how long they are served. */
  others: { at: number; takes: number }[];
  /** When processes die, which, and how long until another takes its place. */
  deaths: { at: number; backend: number; process: number; down: number }[];
}

/** A process of the application. */
class Process {
  /** Whether it could accept a connection. */
  phase: "free" | "accepting" | "serving" | "down" = "free";
  client: Client | undefined;
  /** Whether its connection is idle. */
  idle = false;
  /** The request that it works at. */
  request: string | undefined;
}

class Backend {
  readonly processes: Process[];
  readonly queue: Client[] = [];
  readonly #application: Application;

  constructor(count: number, application: Application) {
    this.processes = Array.from({ length: count }, () => new Process());
    this.#application = application;
  }

  connect(client: Client): void {
    this.queue.push(client);
    this.dispatch();
    this.#takeTurn();
  }

  dispatch(): void {
    for (const process of this.processes) {
      if (process.phase !== "free") continue;
      const client = this.queue.shift();
      if (client === undefined) return;
      this.#takeTurn();
      const { time, scenario } = this.#application;
      this.#application.waited(client);
      process.phase = "serving";
      process.client = client;
      process.idle = false;
      const free = () => {
        if (process.client !== client) return;
        process.client = undefined;
        process.idle = false;
        process.phase = "accepting";
        time.at(time.now + scenario.acceptDelay, () => {
          if (process.phase !== "accepting") return;
          process.phase = "free";
          this.dispatch();
        });
      };
      if (client.conn === undefined) time.at(time.now + client.needs, free);
      else this.#serve(process, client.conn).finally(free);
    }
  }

  /** Whether it is the turn of the first that waits, as a process has no work. */
  #takeTurn(): void {
    const [first] = this.queue;
    if (first === undefined || first.turnAt !== undefined) return;
    const isIdle = this.processes.some(({ idle, phase }) => idle && phase === "serving");
    if (isIdle) first.turnAt = this.#application.time.now;
  }

  async #serve(process: Process, conn: FakeConn): Promise<void> {
    const { time, served } = this.#application;
    const peer = new Peer(conn as unknown as Deno.Conn);
    while (true) {
      process.idle = peer.received.id !== 0;
      this.#takeTurn();
      const received = await peer.request();
      if (received === undefined || process.client?.conn !== conn) break;
      process.idle = false;
      const target = received.variables.get("REQUEST_URI")!;
      process.request = target;
      served.push(target);
      const takes = Number(new URLSearchParams(target.split("?")[1]).get("takes"));
      await new Promise((resolve) => time.at(time.now + takes, () => resolve(undefined)));
      if (process.client?.conn !== conn) break;
      await peer.response(`Content-Type: text/plain\r\n\r\n${target}`).catch(() => {});
      if (process.client?.conn === conn) process.request = undefined;
      if (!received.keep) break;
    }
    peer.close();
  }

  /** Ends a process. Another takes its place after a time. */
  kill(process: Process, down: number): void {
    if (process.phase === "down") return;
    const { time, killed } = this.#application;
    const { client, request } = process;
    if (request !== undefined) killed.push(request);
    process.phase = "down";
    process.client = undefined;
    process.request = undefined;
    process.idle = false;
    client?.conn?.close();
    time.at(time.now + down, () => {
      process.phase = "free";
      this.dispatch();
    });
  }
}

class Application {
  readonly time: VirtualTime;
  readonly scenario: Scenario;
  readonly backends: Backend[];
  /** The requests that arrived, and those whose process died. */
  readonly served: string[] = [];
  readonly killed: string[] = [];
  /** The longest time for which an idle connection occupied a process that the first client of a queue waited for. */
  longest = { own: 0, other: 0 };
  #connections = 0;

  constructor(time: VirtualTime, scenario: Scenario) {
    this.time = time;
    this.scenario = scenario;
    this.backends = scenario.backends.map((count) => new Backend(count, this));
  }

  connect(client: Omit<Client, "turnAt">): void {
    const backend = this.backends[this.#connections++ % this.backends.length];
    backend.connect({ ...client });
  }

  /** Counts how long a client has waited since it was its turn. */
  waited({ conn, turnAt }: Client): void {
    if (turnAt === undefined) return;
    const kind = conn === undefined ? "other" : "own";
    this.longest[kind] = Math.max(this.longest[kind], this.time.now - turnAt);
  }
}

/** Each gateway has an address of its own: those of one address share their connections. */
let port = 9000;

async function run(scenario: Scenario): Promise<Application> {
  using time = new VirtualTime();
  const application = new Application(time, scenario);
  const { connect } = Deno;
  Object.assign(Deno, {
    connect: () => {
      const [ours, theirs] = connected();
      application.connect({ conn: theirs, needs: 0 });
      return Promise.resolve(ours);
    },
  });
  try {
    const gateway = fastCGIGateway(`127.0.0.1:${++port}`, { log: () => {}, maxConnections: 1000 });
    const results: [string, string][] = [];
    const send = async (name: string, takes: number) => {
      const target = `/${name}?takes=${takes}`;
      const response = await gateway(new Request(`http://localhost${target}`));
      results.push([target, response.ok ? await response.text() : String(response.status)]);
    };
    const passed = (ms: number) =>
      new Promise<void>((resolve) => time.at(time.now + ms, () => resolve()));
    const clients = scenario.requests.map(async ({ at, takes }, number) => {
      await passed(at);
      await send(String(number), takes);
    });
    const loops = scenario.loops.map(async ({ count, takes, pause }, number) => {
      for (let turn = 0; turn < count; turn++) {
        await send(`${number}/${turn}`, takes);
        await passed(pause);
      }
    });
    for (const { at, takes } of scenario.others) {
      time.at(at, () => application.connect({ needs: takes }));
    }
    for (const { at, backend, process, down } of scenario.deaths) {
      const there = application.backends[backend % application.backends.length];
      time.at(at, () => there.kill(there.processes[process % there.processes.length], down));
    }
    const all = Promise.all([...clients, ...loops]);
    await time.run(20_000, all);
    gateway[Symbol.dispose]();
    const count = scenario.loops.reduce((sum, { count }) => sum + count, clients.length);
    assertEquals(results.length, count, "a request got no response");
    for (const [target, body] of results) {
      if (application.killed.includes(target)) continue;
      assertEquals(body, target);
      assertEquals(application.served.filter((each) => each === target).length, 1);
    }
    return application;
  } finally {
    Object.assign(Deno, { connect });
  }
}

/** The longest time that the application takes for a request or another client, in milliseconds. */
const LONGEST = 30;

function scenarios(balanced: boolean): fc.Arbitrary<Scenario> {
  return fc.constantFrom(50, 300, 2000).chain((span) => {
    const at = fc.integer({ min: 0, max: span });
    const clients = (maxLength: number) =>
      fc.array(fc.record({ at, takes: fc.constantFrom(0, 1, 1, 5, 5, LONGEST) }), {
        maxLength,
        size: "max",
      });
    const [minLength, maxLength] = balanced ? [2, 3] : [1, 1];
    return fc.record({
      backends: fc.array(fc.integer({ min: 1, max: 8 }), { minLength, maxLength }),
      acceptDelay: fc.constantFrom(0, 1, 20),
      requests: clients(100),
      loops: fc.array(
        fc.record({
          count: fc.integer({ min: 1, max: 200 }),
          takes: fc.constantFrom(0, 1, 5),
          pause: fc.constantFrom(0, 1, 5),
        }),
        { maxLength: 8 },
      ),
      others: clients(20),
      deaths: fc.array(
        fc.record({ at, backend: fc.nat(2), process: fc.nat(7), down: fc.constantFrom(0, 5, 100) }),
        { maxLength: 4 },
      ),
    });
  });
}

for (const [balanced, limit] of [[false, MAX_WAIT], [true, MAX_HIDDEN_WAIT]] as const) {
  const where = balanced ? "behind a balancer" : "of few processes";
  Deno.test(`fastCGIGateway() loses, repeats and delays no request of an application ${where}`, async () => {
    await fc.assert(
      fc.asyncProperty(scenarios(balanced), async (scenario) => {
        const { longest } = await run(scenario);
        const most = limit + LONGEST + TICK;
        assert(longest.own <= most, `a request waited ${longest.own} ms after its turn`);
        assert(longest.other <= most, `another client waited ${longest.other} ms after its turn`);
      }),
      // Shrinking takes long: each try waits for what never comes.
      { numRuns: modelRuns(), endOnFailure: true },
    );
  });
}
