/**
 * Keeps workers running that share file descriptor 0. Also the program of the process that does so; `prefork.ts` says why
 * that is a process of its own.
 *
 * @module
 */

import process from "node:process";
import { logLine } from "./log.ts";
import { onTermination } from "./signals.ts";
import { reportReady } from "./worker.ts";
import { WorkerProcess } from "./worker_process.ts";

/** Options of a {@linkcode Supervisor}. Its process gets them as JSON. */
export interface SupervisorOptions {
  /** The number of workers. */
  workers: number;
  /** The arguments that Deno runs a worker with. */
  command: string[];
  /** The `shutdownTimeout` of the workers' servers, in milliseconds; null for none. */
  shutdownTimeout: number | null;
}

/** What a supervisor's process reports when its first worker serves. */
export const SERVING = "serving";
/** The messages that a supervisor's process obeys. They stand for the signals of these names. */
export type Order = "SIGTERM" | "SIGHUP" | "SIGKILL";
/** The exit code of a supervisor of which no worker starts. */
export const NO_WORKER = 3;
/** The exit code of a supervisor that has killed its workers: that of a program that SIGINT ends. */
export const KILLED = 130;

/** The delay before a worker that ended is replaced, by the number of quick failures in a row, in milliseconds. */
const BACKOFF = [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000];
/** The longest delay if no other worker is there, in milliseconds. */
const LAST_BACKOFF = 1000;
/** How long a worker must run for its end not to count as a quick failure, in milliseconds. */
const HEALTHY = 10_000;

/** One of the places for workers. Each has its own back-off. */
interface Place {
  /** The worker that starts or serves in it. */
  worker?: WorkerProcess;
  /** The worker that starts in order to replace it. */
  successor?: WorkerProcess;
  /** The number of reloads before its worker was started. */
  generation: number;
  /** The number of quick failures in a row. */
  failures: number;
  /** Starts a worker if the place is empty. */
  retry?: ReturnType<typeof setTimeout>;
}

/** Keeps a number of workers running. */
export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #onServing: () => void;
  readonly #places: Place[];
  /** All workers, also those that finish their requests. */
  readonly #running = new Set<WorkerProcess>();
  readonly #done = Promise.withResolvers<number>();
  /** "starting": no worker serves yet, and one that ends is not replaced. */
  #phase: "starting" | "serving" | "stopping" | "killing" = "starting";
  /** The number of reloads so far. */
  #generation = 0;
  #replacing: Promise<void> | null = null;
  /** Whether the workers report that they serve. */
  #report = false;

  /** @param onServing Called once the first worker serves. */
  constructor(options: SupervisorOptions, onServing: () => void) {
    this.#options = options;
    this.#onServing = onServing;
    this.#places = Array.from({ length: options.workers }, () => ({ generation: 0, failures: 0 }));
  }

  /** Runs the workers until it is told to stop, or none starts. @returns The exit code. */
  run(): Promise<number> {
    if (this.#phase === "starting") this.#places.forEach((place) => this.#fill(place));
    return this.#done.promise;
  }

  /** Replaces the workers one by one. Any number of calls during that is one more reload. */
  reload(): void {
    this.#generation++;
    if (this.#phase !== "serving") return;
    for (const place of this.#places) {
      place.failures = 0;
      if (place.retry !== undefined) this.#fill(place);
    }
    this.#replaceOld();
  }

  /** Resolves when no worker is being replaced. */
  get reloaded(): Promise<void> {
    return this.#replacing ?? Promise.resolve();
  }

  /** Lets the workers finish their requests and end. */
  stop(): void {
    if (this.#phase !== "killing") this.#phase = "stopping";
    for (const { retry } of this.#places) clearTimeout(retry);
    for (const worker of this.#running) worker.stop();
    this.#finish();
  }

  /** Kills the workers. */
  kill(): void {
    this.#phase = "killing";
    for (const worker of this.#running) worker.kill();
    this.stop();
  }

  /** Starts a worker in an empty place. */
  #fill(place: Place): void {
    clearTimeout(place.retry);
    place.retry = undefined;
    place.generation = this.#generation;
    place.worker = this.#start(place);
  }

  #start(place: Place): WorkerProcess {
    const { command, shutdownTimeout } = this.#options;
    const worker = new WorkerProcess({
      command,
      stdin: "inherit",
      name: "Worker",
      shutdownTimeout: shutdownTimeout ?? Infinity,
    });
    this.#running.add(worker);
    const timer = setTimeout(() => this.#report || worker.assumeServing(), HEALTHY);
    worker.started.then((how) => {
      clearTimeout(timer);
      if (how === "reported") this.#report = true;
      if (how !== "ended") this.#serve();
    });
    worker.ended.then((how) => {
      this.#running.delete(worker);
      this.#ended(place, worker, how);
    });
    return worker;
  }

  /** Enters the phase in which workers that end are replaced, and replaces those that have ended. */
  #serve(): void {
    if (this.#phase !== "starting") return;
    this.#phase = "serving";
    this.#onServing();
    for (const place of this.#places) if (place.worker === undefined) this.#fill(place);
    this.#replaceOld();
  }

  #ended(place: Place, worker: WorkerProcess, how: string): void {
    const wasCurrent = place.worker === worker;
    if (wasCurrent) place.worker = undefined;
    if (this.#phase === "starting") logLine(how);
    if (this.#phase !== "serving") this.#finish();
    else if (wasCurrent) this.#refill(place, worker, how);
  }

  #finish(): void {
    if (this.#running.size > 0) return;
    const codes = { starting: NO_WORKER, serving: 0, stopping: 0, killing: KILLED };
    this.#done.resolve(codes[this.#phase]);
  }

  /** Starts a worker after a delay in a place whose worker has ended, unless a successor starts already. */
  #refill(place: Place, { startedAt }: WorkerProcess, how: string): void {
    if (place.successor !== undefined) return logLine(how);
    place.failures = performance.now() - startedAt > HEALTHY ? 0 : place.failures + 1;
    const isLast = this.#places.every(({ worker }) => worker === undefined);
    const delay = Math.min(
      BACKOFF[Math.min(place.failures, BACKOFF.length - 1)],
      isLast ? LAST_BACKOFF : Infinity,
    );
    logLine(`${how}: replaced in ${delay} ms`);
    place.retry = setTimeout(() => this.#fill(place), delay);
  }

  /** Replaces the workers that were started before the last reload, unless this happens already. */
  #replaceOld(): void {
    this.#replacing ??= this.#replaceAll().then(() => {
      this.#replacing = null;
      // There may have been a reload since the last was found.
      if (this.#oldest() !== undefined) this.#replaceOld();
    });
  }

  async #replaceAll(): Promise<void> {
    for (let place = this.#oldest(); place !== undefined; place = this.#oldest()) {
      await this.#replace(place);
    }
  }

  /** Returns the place with the worker that missed most reloads, if one missed any. */
  #oldest(): Place | undefined {
    if (this.#phase !== "serving") return undefined;
    return this.#places
      .filter(({ worker, generation }) => worker !== undefined && generation < this.#generation)
      .sort((a, b) => a.generation - b.generation)[0];
  }

  /** Replaces a worker once its successor serves. If the successor ends first, all workers stay. */
  async #replace(place: Place): Promise<void> {
    const generation = this.#generation;
    const successor = this.#start(place);
    place.successor = successor;
    const started = await successor.started;
    place.successor = undefined;
    if (this.#phase !== "serving") return;
    if (started === "ended" || successor.phase === "ended") {
      const how = await successor.ended;
      logLine(`Reload failed: ${how}. The old workers keep running`);
      for (const place of this.#places) place.generation = Math.max(place.generation, generation);
      if (place.worker === undefined) this.#refill(place, successor, how);
      return;
    }
    const { worker } = place;
    place.worker = successor;
    place.generation = generation;
    worker?.stop();
    await worker?.ended;
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
  const supervisor = new Supervisor(options, onServing);
  const stop = () => supervisor.stop();
  const reload = () => supervisor.reload();
  const kill = () => supervisor.kill();
  const orders: Record<Order, () => void> = { SIGTERM: stop, SIGHUP: reload, SIGKILL: kill };
  process.on("message", (order: Order) => orders[order]?.());
  using _ = onTermination(stop, { force: kill });
  Deno.addSignalListener("SIGHUP", reload);
  await reportReady(stop);
  const code = await supervisor.run();
  Deno.removeSignalListener("SIGHUP", reload);
  return code;
}

if (import.meta.main) {
  const code = await supervise(JSON.parse(Deno.args[0]), () => process.send?.(SERVING));
  Deno.exit(code || undefined);
}
