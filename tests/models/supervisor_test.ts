/**
 * A model of a supervisor and its workers: in a time that is simulated, workers start slowly or not at all, exit, block
 * their event loops and grow, signals arrive in bursts, and Deno's file is away while its package is upgraded. As long as
 * one worker can serve, one must; and whatever the workers do, the supervisor must end.
 *
 * It assumes that the system delivers each signal, that a process that is killed ends, that a process cannot be started
 * while Deno's file is away, and that a worker which does not block its event loop sends the reports that it owes.
 */
import childProcess from "node:child_process";
import { EventEmitter } from "node:events";
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { KILLED, NO_WORKER, Supervisor, TOO_LARGE } from "../../process/supervisor.ts";
import { modelRuns } from "../testing/model_runs.ts";
import { VirtualTime } from "../testing/virtual_time.ts";

/** What becomes of one worker. */
interface Life {
  /** How long it starts, in milliseconds, and what then happens. */
  start: number;
  then: "serves" | "exits" | "hangs";
  /** When it ends, blocks or grows, in milliseconds after its start; or that it does not. */
  turn: { after: number; to: "exit" | "block" | "grow" } | null;
  /** How long it takes to finish its requests, in milliseconds. */
  drain: number;
  /** The number of requests that it begins in a second. */
  rate: number;
}

interface Scenario {
  workers: number;
  workerTimeout: number | null;
  maxRequests: number | null;
  maxMemory: number | null;
  /** The life of each worker that is started, in turn. */
  lives: Life[];
  /** When SIGHUP arrives, in milliseconds. */
  reloads: number[];
  /** When Deno's file is away: from, and for how long. */
  upgrade: { at: number; takes: number } | null;
  /** When SIGTERM arrives. */
  stop: number;
  /** After how many milliseconds more the workers must be killed, as after a second Ctrl-C; or that it is not so. */
  force: number | null;
}

const SHUTDOWN = 1000;
const START = 3000;
/** The longest time that killing a worker takes: the helper process that does it, and the supervisor's own deadline. */
const KILL = 6000;
/** The longest time in which no worker starts or serves: the delay of the last place, and that of each end. */
const GAP = 1100;
const MIB = 2 ** 20;

/** A child process, as node:child_process has it. */
class Child extends EventEmitter {
  readonly pid: number;
  phase: "starting" | "serving" | "blocked" | "draining" | "ended" = "starting";
  /** Whether it got SIGTERM. */
  isDoomed = false;
  /** The number of reloads before it started. */
  readonly generation: number;
  readonly #life: Life;
  readonly #system: System;
  #rss = 50 * MIB;
  #servesSince = 0;
  #interval: ReturnType<typeof setInterval> | undefined;

  constructor(pid: number, life: Life, system: System) {
    super();
    this.pid = pid;
    this.generation = system.reloads;
    this.#life = life;
    this.#system = system;
    setTimeout(() => this.#started(), life.start);
  }

  get serves(): boolean {
    return this.phase === "serving" && !this.isDoomed;
  }

  #started(): void {
    if (this.phase !== "starting") return;
    if (this.#life.then === "exits") this.exit(1, null);
    if (this.#life.then !== "serves" || this.isDoomed) return;
    this.phase = "serving";
    this.#servesSince = performance.now();
    this.#report();
    const { turn } = this.#life;
    if (turn !== null) setTimeout(() => this.#turn(turn.to), turn.after);
    this.#system.check();
  }

  #turn(to: "exit" | "block" | "grow"): void {
    if (this.phase !== "serving") return;
    if (to === "exit") this.exit(1, null);
    else if (to === "block") this.phase = "blocked";
    else this.#rss = 500 * MIB;
  }

  #report(): void {
    if (this.phase !== "serving") return;
    const begun = Math.floor((performance.now() - this.#servesSince) / 1000 * this.#life.rate);
    this.emit("message", { running: 0, begun, rss: this.#rss, inspected: false });
  }

  send(message: unknown, sent: () => void): boolean {
    if (this.phase === "ended") return false;
    if (typeof message === "object") {
      const { interval } = message as { interval: number };
      this.#interval ??= setInterval(() => this.#report(), interval);
    }
    queueMicrotask(sent);
    return true;
  }

  kill(signal: string): boolean {
    this.#system.kill(this.pid, signal);
    return true;
  }

  signal(signal: string): void {
    if (this.phase === "ended") return;
    this.isDoomed = true;
    if (signal === "SIGKILL") return this.exit(null, "SIGKILL");
    if (this.phase === "blocked" || this.phase === "draining") return;
    // One that starts has no handler yet.
    if (this.phase === "starting") return this.exit(null, "SIGTERM");
    this.phase = "draining";
    setTimeout(() => this.exit(0, null), this.#life.drain);
  }

  exit(code: number | null, signal: string | null): void {
    if (this.phase === "ended") return;
    this.phase = "ended";
    clearInterval(this.#interval);
    this.emit("exit", code, signal);
    this.#system.check();
  }
}

/** The processes of the system, and what must be true of them. */
class System implements Disposable {
  readonly children: Child[] = [];
  reloads = 0;
  phase: "starting" | "serving" | "stopping" = "starting";
  /** Since when no worker serves, starts or could be tried. */
  #aloneSince: number | undefined;
  readonly #scenario: Scenario;
  readonly #time: VirtualTime;
  readonly #originals = {
    spawn: childProcess.spawn,
    kill: Deno.kill,
    Command: Deno.Command,
    error: console.error,
  };
  readonly log: string[] = [];
  /** The faults, with the time of each. The supervisor would catch an error. */
  readonly faults: string[] = [];

  constructor(scenario: Scenario, time: VirtualTime) {
    this.#scenario = scenario;
    this.#time = time;
    const kill = (pid: number, signal: string) => this.kill(pid, signal);
    const helper = (args: string[]) => this.#help(args);
    Object.assign(childProcess, { spawn: () => this.#spawn() });
    Object.assign(Deno, {
      kill,
      Command: class {
        #args: string[];
        constructor(_program: string, { args }: { args: string[] }) {
          this.#args = args;
        }
        spawn() {
          return { unref() {}, status: helper(this.#args) };
        }
      },
    });
    console.error = (line: string) => this.log.push(line);
  }

  get #isUpgraded(): boolean {
    const { upgrade } = this.#scenario;
    const { now } = this.#time;
    return upgrade !== null && now >= upgrade.at && now < upgrade.at + upgrade.takes;
  }

  #spawn(): Child {
    this.#aloneSince = undefined;
    if (this.#isUpgraded) throw new Deno.errors.NotFound("No such file or directory");
    const { lives } = this.#scenario;
    const life = lives[this.children.length % lives.length];
    const child = new Child(2 ** 23 + this.children.length, life, this);
    this.children.push(child);
    const wanted = this.children.filter(({ phase, isDoomed }) =>
      !isDoomed && phase !== "ended" && phase !== "blocked"
    );
    this.#expect(wanted.length <= this.#scenario.workers + 1, `${wanted.length} workers at once`);
    return child;
  }

  /** Does what the helper process of killTree() and isStopped() does. */
  async #help(args: string[]): Promise<{ code: number }> {
    if (this.#isUpgraded) throw new Deno.errors.NotFound("No such file or directory");
    const source = args.join(" ");
    const pid = Number(/\((\d+)\)$/.exec(source)![1]);
    await new Promise((resolve) => setTimeout(resolve, 30));
    if (source.includes("SIGKILL")) this.kill(pid, "SIGKILL");
    return { code: 0 };
  }

  kill(pid: number, signal: string): void {
    const child = this.children.find((child) => child.pid === pid);
    if (child === undefined) return this.#expect(false, `a signal for ${pid}`);
    // Whether a worker blocks is known later.
    const others = this.children.filter((other) =>
      other !== child && (other.serves || other.phase === "blocked" && !other.isDoomed)
    );
    if (child.serves && this.phase === "serving") {
      this.#expect(others.length > 0, "the last worker that serves was stopped");
    }
    if (signal === "SIGTERM" && this.phase === "serving") {
      const away = this.children.filter(({ phase }) => phase === "draining");
      this.#expect(away.length === 0, "a worker was replaced while another finished its requests");
    }
    child.signal(signal);
    this.check();
  }

  #expect(condition: boolean, otherwise: string): void {
    if (!condition) this.faults.push(`${this.#time.now}: ${otherwise}`);
  }

  /** Checks that somebody serves or starts, or has just ended. */
  check(): void {
    if (this.phase !== "serving") return;
    const { now } = this.#time;
    const isAlone = !this.children.some(({ isDoomed, phase }) => !isDoomed && phase !== "ended");
    if (!isAlone) this.#aloneSince = undefined;
    else this.#aloneSince ??= now;
    if (this.#aloneSince === undefined) return;
    this.#expect(now - this.#aloneSince <= GAP, `no worker for ${now - this.#aloneSince} ms`);
  }

  [Symbol.dispose](): void {
    const { spawn, kill, Command, error } = this.#originals;
    Object.assign(childProcess, { spawn });
    Object.assign(Deno, { kill, Command });
    console.error = error;
  }
}

async function run(scenario: Scenario): Promise<void> {
  using time = new VirtualTime();
  using system = new System(scenario, time);
  const { workers, workerTimeout, maxRequests, maxMemory, reloads, stop, force } = scenario;
  let hasServed = false;
  const supervisor = new Supervisor({
    workers,
    command: ["run", "app.ts"],
    shutdownTimeout: SHUTDOWN,
    startTimeout: START,
    workerTimeout,
    maxRequests,
    maxMemory,
    backlog: null,
    logFormat: "text",
  }, () => {
    hasServed = true;
    system.phase = "serving";
  });
  for (const at of reloads) {
    time.at(at, () => {
      system.reloads++;
      supervisor.reload();
    });
  }
  const watch = setInterval(() => system.check(), 50);
  time.at(stop, () => {
    clearInterval(watch);
    checkReloaded(system, scenario);
    system.phase = "stopping";
    supervisor.stop();
  });
  if (force !== null) time.at(stop + force, () => supervisor.kill());
  const ended = supervisor.run();
  let code: number | undefined;
  ended.then((found) => code = found);
  await time.run(stop + Math.min(force ?? Infinity, SHUTDOWN) + KILL + 2000, ended);
  clearInterval(watch);
  assertEquals(system.faults, []);
  assert(code !== undefined, `it runs on ${time.now - stop} ms after SIGTERM`);
  const isNone = code === NO_WORKER || code === TOO_LARGE;
  const isForced = code === KILLED && force !== null;
  assert(code === 0 || isForced || isNone && !hasServed, `exit code ${code}`);
  assertEquals(system.children.filter(({ phase }) => phase !== "ended").length, 0);
}

/** Checks that a reload long ago has replaced every worker, unless the log says that it failed. */
function checkReloaded({ children, reloads, log }: System, scenario: Scenario): void {
  const last = Math.max(0, ...scenario.reloads.filter((at) => at <= scenario.stop));
  const each = START + SHUTDOWN + KILL + GAP;
  if (scenario.stop - last < 2 * scenario.workers * each) return;
  if (log.some((line) => line.startsWith("Reload failed"))) return;
  const old = children.filter((child) => child.serves && child.generation < reloads);
  assertEquals(old.length, 0, "workers that a reload has not replaced");
}

const LIVES: fc.Arbitrary<Life> = fc.record({
  start: fc.constantFrom(20, 100, 800),
  then: fc.constantFrom("serves", "serves", "serves", "serves", "exits", "hangs"),
  turn: fc.option(fc.record({
    after: fc.constantFrom(0, 300, 5000, 20_000),
    to: fc.constantFrom("exit", "block", "grow"),
  })),
  drain: fc.constantFrom(0, 100, 900, 1e9),
  rate: fc.constantFrom(0, 5, 100),
});

const SCENARIOS: fc.Arbitrary<Scenario> = fc.record({
  workers: fc.integer({ min: 1, max: 4 }),
  workerTimeout: fc.option(fc.constant(2000)),
  maxRequests: fc.option(fc.constantFrom(20, 200)),
  maxMemory: fc.option(fc.constant(300 * MIB)),
  lives: fc.array(LIVES, { minLength: 1, maxLength: 12 }),
  reloads: fc.array(fc.integer({ min: 0, max: 30_000 }), { maxLength: 6 }),
  upgrade: fc.option(
    fc.record({ at: fc.integer({ min: 0, max: 30_000 }), takes: fc.constantFrom(100, 5000) }),
  ),
  stop: fc.constantFrom(100, 5000, 40_000, 130_000),
  force: fc.option(fc.constantFrom(0, 10, 500, 3000)),
});

Deno.test("Supervisor keeps a worker that serves, and ends, whatever the workers do", async () => {
  await fc.assert(fc.asyncProperty(SCENARIOS, run), { numRuns: 5 * modelRuns() });
});
