/**
 * Keeps workers running that share file descriptor 0. Also the program of the process that does so; `prefork.ts` says why
 * that is a process of its own.
 *
 * @module
 */

import { thisProcess } from "./node_process.ts";
import { REPORT, surplus } from "../io/balance.ts";
import { BACKLOG_VARIABLE } from "../io/listening_socket.ts";
import { logLine } from "../io/log.ts";
import { type LogFormat, openDaemonLog } from "../io/daemon_log.ts";
import { MAX_DELAY } from "../io/max_delay.ts";
import { TRACED } from "../io/private_fields.ts";
import type { RestartReason } from "../io/telemetry.ts";
import { onTermination } from "./signals.ts";
import { type Report, reportReady } from "./worker.ts";
import { WorkerProcess } from "./worker_process.ts";
import { WorkerWatch } from "./worker_watch.ts";
import { runtime } from "../io/runtime.ts";

/** Options of a {@linkcode Supervisor}, as `prefork()` documents them. They are passed as JSON: null stands for Infinity. */
export interface SupervisorOptions {
  workers: number;
  command: string[];
  shutdownTimeout: number | null;
  startTimeout: number | null;
  workerTimeout: number | null;
  maxRequests: number | null;
  maxMemory: number | null;
  /** The `backlog` of the socket; null for the system's maximum. */
  backlog: number | null;
  logFormat: LogFormat;
}

/** What a supervisor's process reports when its first worker serves. */
export const SERVING = "serving";
/** The messages that a supervisor's process obeys. They stand for the signals of these names. */
export type Order = "SIGTERM" | "SIGHUP" | "SIGKILL";
/** The exit code of a supervisor if no worker starts. */
export const NO_WORKER = 3;
/** The same if the last of them has ended as it takes more than `maxMemory`. */
export const TOO_LARGE = 4;
/** The exit code of a supervisor that has killed its workers: that of a program that SIGINT ends. */
export const KILLED = 130;

/** The delay before a worker that ended is replaced, by the number of quick failures in a row, in milliseconds. */
const BACKOFF = [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000];
/** The longest delay while no other worker runs, in milliseconds. */
const LAST_BACKOFF = 1000;
/** How long a worker must run for its end not to count as a quick failure, in milliseconds. */
const HEALTHY = 10_000;
/**
 * How long a supervisor waits after a worker's end, in milliseconds: a terminal sends SIGINT to both, and the worker may
 * be faster.
 */
const SETTLING = 50;
/** The time between two reports of a worker, and two ticks of a supervisor, in milliseconds. */
const TICK = 1000;
/** How much more than `maxRequests` a worker may begin, so that not all are replaced at once. */
const JITTER = 0.1;

/** How long a worker counts as busy after it has reported that, in milliseconds. */
const RECENT = 4 * REPORT;

/** One of the places for workers. Each has its own back-off. */
interface Place {
  /** The worker that starts or serves in it. */
  worker?: WorkerProcess;
  /** The worker that starts in order to replace it. */
  successor?: WorkerProcess;
  /** The number of reloads before its worker was started. */
  generation: number;
  /** Why its worker must be replaced. */
  due?: RestartReason;
  /** Why its last worker has ended, until another one takes its place. */
  loss?: RestartReason;
  /** The number of quick failures in a row. */
  failures: number;
  /** How many connections kept its worker busy, and when it reported that. */
  busy: { count: number; at: number };
  /** Starts a worker if the place is empty, or the successor of its worker. */
  retry?: ReturnType<typeof setTimeout>;
}

/** Keeps a number of workers running. */
export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #onServing: () => void;
  readonly #places: Place[];
  /** All workers, also those that finish their requests, each with its watch if it has one. */
  readonly #running = new Map<WorkerProcess, WorkerWatch | undefined>();
  readonly #done = Promise.withResolvers<number>();
  /**
   * "starting": no worker serves yet, and one that ends is not replaced. "failed": no worker serves, and none can.
   */
  #phase: "starting" | "serving" | "failed" | "stopping" | "killing" = "starting";
  /** The number of reloads so far. */
  #generation = 0;
  #replacing: Promise<void> | null = null;
  /** Whether the workers report that they serve. */
  #report = false;
  /** Counts a restart, if metrics are exported. */
  #restarted: ((reason: RestartReason) => void) | undefined;
  /** The time between two reports of a worker; null if it need not report. */
  readonly #interval: number | null;

  /** @param onServing Called once the first worker serves. */
  constructor(options: SupervisorOptions, onServing: () => void) {
    this.#options = options;
    this.#onServing = onServing;
    this.#places = Array.from({ length: options.workers }, () => ({
      generation: 0,
      failures: 0,
      busy: { count: 0, at: -Infinity },
    }));
    const { workerTimeout, maxRequests, maxMemory } = options;
    const watches = [workerTimeout, maxRequests, maxMemory].some((limit) => limit !== null);
    this.#interval = watches ? Math.min(TICK, (workerTimeout ?? Infinity) / 4) : null;
  }

  /** Runs the workers until `stop()` is called, or none starts. @returns The exit code. */
  async run(): Promise<number> {
    if (TRACED) await this.#export();
    if (this.#phase === "starting") this.#places.forEach((place) => this.#fill(place));
    const timer = this.#interval === null
      ? undefined
      : setInterval(() => this.#tick(this.#interval!), this.#interval);
    const code = await this.#done.promise;
    clearInterval(timer);
    return code;
  }

  async #export(): Promise<void> {
    const { observeWorkers } = await import("../io/telemetry.ts");
    this.#restarted = observeWorkers(() => {
      const counts = { starting: 0, serving: 0, stopping: 0 };
      for (const { phase } of this.#running.keys()) if (phase !== "ended") counts[phase]++;
      return counts;
    });
  }

  /** Replaces the workers one by one. Any number of calls meanwhile cause one more reload. */
  reload(): void {
    this.#generation++;
    // The old ones still have lines to write, and all stay if the reload fails.
    for (const worker of this.#running.keys()) worker.reopenLogs();
    if (this.#phase !== "serving") return;
    for (const place of this.#places) {
      place.failures = 0;
      this.#forgetRetry(place);
      if (place.worker === undefined && place.successor === undefined) this.#fill(place);
    }
    this.#replaceDue();
  }

  /** Resolves when no worker is being replaced. */
  get reloaded(): Promise<void> {
    return this.#replacing ?? Promise.resolve();
  }

  /** Lets the workers finish their requests and end. */
  stop(): void {
    if (this.#phase !== "killing") this.#phase = "stopping";
    this.#places.forEach((place) => this.#forgetRetry(place));
    for (const worker of this.#running.keys()) worker.stop();
    this.#finish();
  }

  /** Kills the workers. */
  kill(): void {
    this.#phase = "killing";
    for (const worker of this.#running.keys()) worker.kill();
    this.stop();
  }

  /** @param last The worker that has ended last, if it has just done so. */
  #finish(last?: WorkerProcess): void {
    if (this.#running.size > 0) return;
    const none = last?.fault === undefined ? NO_WORKER : TOO_LARGE;
    const codes = {
      starting: none,
      serving: 0,
      failed: none,
      stopping: 0,
      killing: KILLED,
    };
    this.#done.resolve(codes[this.#phase]);
  }

  #forgetRetry(place: Place): void {
    clearTimeout(place.retry);
    place.retry = undefined;
  }

  /** Starts a worker in an empty place. */
  #fill(place: Place): void {
    this.#occupy(place, this.#start(place), this.#generation);
  }

  #occupy(place: Place, worker: WorkerProcess, generation: number): void {
    this.#forgetRetry(place);
    if (place.loss !== undefined) this.#restarted?.(place.loss);
    place.worker = worker;
    place.generation = generation;
    place.due = undefined;
    place.loss = undefined;
  }

  #start(place: Place): WorkerProcess {
    const { command, shutdownTimeout, workerTimeout, maxRequests } = this.#options;
    const requests = maxRequests &&
      maxRequests + Math.floor(Math.random() * (maxRequests * JITTER + 1));
    const worker: WorkerProcess = new WorkerProcess({
      command,
      stdin: "inherit",
      name: "Worker",
      shutdownTimeout: shutdownTimeout ?? Infinity,
      fault: ({ rss }) => this.#excess(rss),
      onReport: (report) => {
        this.#running.get(worker)?.heard(report);
        if (place.worker === worker) this.#examine(place, report, requests);
      },
      onBusy: (count) => place.worker === worker && this.#balance(place, worker, count),
    });
    const isInspected = command.some((arg) => arg.startsWith("--inspect"));
    const watch = workerTimeout === null || isInspected
      ? undefined
      : new WorkerWatch(worker, workerTimeout, () => this.#replaceKilled(place, worker));
    this.#running.set(worker, watch);
    this.#limitStart(place, worker);
    worker.started.then((how) => {
      if (how === "reported") this.#report = true;
      if (how === "reported" && this.#places.length > 1) worker.balance();
      if (how === "ended") return;
      if (this.#interval !== null) worker.order({ interval: this.#interval, requests });
      this.#serve();
    });
    worker.ended.then((how) => {
      this.#running.delete(worker);
      this.#ended(place, worker, how);
    });
    return worker;
  }

  /** Kills a worker that does not start, or assumes that it serves if workers do not report this. */
  #limitStart(place: Place, worker: WorkerProcess): void {
    const startTimeout = Math.min(this.#options.startTimeout ?? Infinity, MAX_DELAY);
    const assume = () => this.#report || worker.assumeServing();
    const kill = () => {
      if (!this.#report) return;
      logLine(
        `${worker.title} is killed: it does not serve ${startTimeout} ms after its start`,
      );
      if (place.worker === worker) place.loss = "start_timeout";
      worker.kill();
    };
    const timers = [setTimeout(assume, HEALTHY), setTimeout(kill, startTimeout)];
    worker.started.then(() => timers.forEach((timer) => clearTimeout(timer)));
  }

  /** Lets a worker that is busier than another release connections. */
  #balance(place: Place, worker: WorkerProcess, count: number): void {
    const at = performance.now();
    place.busy = { count, at };
    const others = this.#places.filter((other) => other !== place && other.worker !== undefined);
    const counts = others.map(({ busy }) => at - busy.at < RECENT ? busy.count : 0);
    const released = surplus(count, counts);
    if (released > 0) worker.release(released);
  }

  /** Enters the phase in which workers that end are replaced, and replaces those that have ended. */
  #serve(): void {
    if (this.#phase !== "starting") return;
    this.#phase = "serving";
    this.#onServing();
    for (const place of this.#places) if (place.worker === undefined) this.#fill(place);
    this.#replaceDue();
  }

  #ended(place: Place, worker: WorkerProcess, how: string): void {
    const wasCurrent = place.worker === worker;
    if (wasCurrent) {
      place.worker = undefined;
      place.loss ??= worker.fault === undefined ? "crash" : "max_memory";
    }
    if (this.#phase === "starting") logLine(how);
    if (this.#phase !== "serving") this.#finish(worker);
    else if (wasCurrent && place.successor !== undefined) logLine(how);
    else if (wasCurrent) {
      this.#forgetRetry(place);
      place.retry = setTimeout(() => this.#refill(place, worker, how), SETTLING);
    }
  }

  /** Starts a worker after a delay in a place whose worker has ended. */
  #refill(place: Place, worker: WorkerProcess, how: string): void {
    place.retry = undefined;
    const isLast = this.#places.every(({ worker }) => worker === undefined);
    if (isLast && worker.fault !== undefined) {
      logLine(how);
      this.#phase = "failed";
      return this.#finish(worker);
    }
    const delay = Math.min(this.#backOff(place, worker), isLast ? LAST_BACKOFF : Infinity);
    logLine(`${how}: replaced in ${delay} ms`);
    place.retry = setTimeout(() => this.#fill(place), delay);
  }

  /** Counts a failure of a place. @returns The delay before the next start. */
  #backOff(place: Place, { startedAt }: WorkerProcess): number {
    place.failures = performance.now() - startedAt > HEALTHY ? 0 : place.failures + 1;
    return BACKOFF[Math.min(place.failures, BACKOFF.length - 1)];
  }

  #tick(ms: number): void {
    for (const watch of this.#running.values()) watch?.tick(ms);
  }

  /** Kills a worker that does not respond. Another takes its place at once. */
  #replaceKilled(place: Place, worker: WorkerProcess): void {
    worker.kill();
    if (place.worker !== worker) return;
    place.worker = undefined;
    place.loss = "worker_timeout";
    if (place.successor === undefined && this.#phase === "serving") this.#fill(place);
  }

  /** Returns why a worker takes too much memory, if it does. */
  #excess(rss: number): string | undefined {
    const { maxMemory } = this.#options;
    if (maxMemory === null || rss <= maxMemory) return undefined;
    const [limit, value] = [maxMemory, rss].map((bytes) => `${Math.ceil(bytes / 2 ** 20)} MiB`);
    return `it must take at most ${limit} of memory: it takes ${value}`;
  }

  /** Replaces a worker that has reached a limit. */
  #examine(place: Place, { begun, rss }: Report, requests: number | null): void {
    if (place.due !== undefined) return;
    const isUsedUp = requests !== null && begun >= requests;
    const why = isUsedUp ? `it has begun ${begun} requests` : this.#excess(rss);
    if (why === undefined) return;
    place.due = isUsedUp ? "max_requests" : "max_memory";
    logLine(`${place.worker!.title} is replaced as ${why}`);
    this.#replaceDue();
  }

  /** Replaces the workers that are to be replaced, one by one, unless this happens already. */
  #replaceDue(): void {
    this.#replacing ??= this.#replaceAll().then(() => {
      this.#replacing = null;
      // One may have become due since the last was found.
      if (this.#nextDue() !== undefined) this.#replaceDue();
    });
  }

  async #replaceAll(): Promise<void> {
    for (let place = this.#nextDue(); place !== undefined; place = this.#nextDue()) {
      await this.#replace(place);
    }
  }

  /** Returns the place whose worker is to be replaced next: first the one that missed most reloads. */
  #nextDue(): Place | undefined {
    if (this.#phase !== "serving") return undefined;
    const occupied = this.#places.filter(({ worker }) => worker !== undefined);
    const [oldest] = occupied.sort((a, b) => a.generation - b.generation);
    if (oldest !== undefined && oldest.generation < this.#generation) return oldest;
    return occupied.find(({ due, retry }) => due !== undefined && retry === undefined);
  }

  /** Replaces a worker once its successor serves. */
  async #replace(place: Place): Promise<void> {
    const generation = this.#generation;
    const successor = this.#start(place);
    place.successor = successor;
    const started = await successor.started;
    place.successor = undefined;
    if (this.#phase !== "serving") return;
    if (started === "ended" || successor.phase === "ended") {
      return this.#keep(place, successor, generation, await successor.ended);
    }
    const { worker } = place;
    place.loss ??= place.generation < generation ? "reload" : place.due;
    this.#occupy(place, successor, generation);
    worker?.stop();
    await worker?.ended;
  }

  /** Keeps all workers as a successor has not started. */
  #keep(place: Place, successor: WorkerProcess, generation: number, how: string): void {
    const isReload = place.generation < generation;
    if (isReload) {
      logLine(`Reload failed: ${how}. The old workers keep running`);
      for (const place of this.#places) place.generation = Math.max(place.generation, generation);
    }
    if (place.worker === undefined) return this.#refill(place, successor, how);
    if (isReload) return;
    const delay = this.#backOff(place, successor);
    logLine(`${how}: ${place.worker.title} is replaced in ${delay} ms`);
    place.retry = setTimeout(() => {
      place.retry = undefined;
      this.#replaceDue();
    }, delay);
  }
}

/**
 * Runs a supervisor in this process. SIGTERM and SIGINT stop it, SIGHUP reloads; messages of the parent process do the
 * same.
 *
 * @returns The exit code.
 */
export async function supervise(
  options: SupervisorOptions,
  onServing: () => void = () => {},
): Promise<number> {
  await using _log = openDaemonLog(options.logFormat);
  const supervisor = new Supervisor(options, onServing);
  // All others are inherited as they are, even if they are not UTF-8.
  if (options.backlog !== null) runtime.env.set(BACKLOG_VARIABLE, String(options.backlog));
  const stop = () => supervisor.stop();
  const reload = () => supervisor.reload();
  const kill = () => supervisor.kill();
  const orders: Record<Order, () => void> = { SIGTERM: stop, SIGHUP: reload, SIGKILL: kill };
  thisProcess().on("message", (order: Order) => orders[order]?.());
  using _ = onTermination(stop, { force: kill });
  runtime.addSignalListener("SIGHUP", reload);
  reportReady(stop);
  const code = await supervisor.run();
  runtime.removeSignalListener("SIGHUP", reload);
  return code;
}

if (import.meta.main) {
  const code = await supervise(JSON.parse(runtime.args[0]), () => thisProcess().send?.(SERVING));
  // Not by exit(), which may not return with telemetry (seen on Deno 2.9.6).
  if (code !== 0) runtime.exitCode = code;
}
