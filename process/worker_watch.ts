import { logLine } from "../io/log.ts";
import { isStopped } from "./process_tree.ts";
import type { Report } from "./worker.ts";
import type { WorkerProcess } from "./worker_process.ts";

/**
 * Detects a worker whose event loop is blocked: it no longer reports. Counts the supervisor's ticks rather than the time,
 * so that a pause of the whole machine counts once.
 */
export class WorkerWatch {
  /**
   * "unheard": it has not reported yet, and a worker of an older version never does. "late": half of the timeout is over.
   * "warned": the same, and this was logged. "suspected": all of it is over. "condemned": the same, and no signal or
   * debugger has stopped the worker, which would have delayed its reports.
   */
  #phase: "unheard" | "responding" | "late" | "warned" | "suspected" | "condemned" = "unheard";
  /** The time since its last report, in milliseconds. */
  #silence = 0;
  /** The number of requests in progress, as it last reported. */
  #running = 0;
  #inspected = false;
  readonly #worker: WorkerProcess;
  readonly #timeout: number;
  readonly #onTimeout: () => void;

  /**
   * @param timeout The maximum time without a report, in milliseconds.
   * @param onTimeout Called when it is over.
   */
  constructor(worker: WorkerProcess, timeout: number, onTimeout: () => void) {
    this.#worker = worker;
    this.#timeout = timeout;
    this.#onTimeout = onTimeout;
  }

  /** Records a report of the worker. */
  heard({ running, inspected }: Report): void {
    this.#running = running;
    this.#inspected = inspected;
    this.#reset();
  }

  #reset(): void {
    this.#phase = "responding";
    this.#silence = 0;
  }

  /** Records that time has passed. @param ms The time, in milliseconds. */
  tick(ms: number): void {
    // A debugger may stop it for any time.
    if (this.#inspected || this.#worker.phase !== "serving") return;
    this.#silence += ms;
    if (this.#phase === "responding" && this.#silence >= this.#timeout / 2) this.#warn();
    else if (this.#phase === "warned" && this.#silence >= this.#timeout) this.#suspect();
    else if (this.#phase === "condemned") this.#condemn();
  }

  async #warn(): Promise<void> {
    this.#phase = "late";
    const isExcused = await this.#isExcused();
    if (this.#phase !== "late") return;
    if (isExcused) return this.#reset();
    this.#phase = "warned";
    logLine(`${this.#worker.title} has blocked its event loop for ${this.#account}`);
  }

  async #suspect(): Promise<void> {
    this.#phase = "suspected";
    const isExcused = await this.#isExcused();
    if (this.#phase !== "suspected") return;
    // If it has just been continued, it reports before the next tick.
    if (isExcused) this.#reset();
    else this.#phase = "condemned";
  }

  /** Whether it is stopped by a signal or a debugger. */
  #isExcused(): Promise<boolean> {
    return isStopped(this.#worker.pid!);
  }

  #condemn(): void {
    logLine(
      `${this.#worker.title} is killed: it has blocked its event loop for ${this.#account}. The limit is ${this.#timeout} ms`,
    );
    this.#onTimeout();
  }

  get #account(): string {
    return `${this.#silence} ms, with requests in progress: ${this.#running}`;
  }
}
