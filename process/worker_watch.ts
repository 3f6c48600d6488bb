import { logLine } from "../io/log.ts";
import { isStopped } from "./process_tree.ts";
import type { Report } from "./worker.ts";
import type { WorkerProcess } from "./worker_process.ts";

/**
 * Watches whether a worker's event loop turns: then it reports regularly. The supervisor counts its own ticks rather than
 * the time, so that a pause of the whole machine counts once.
 */
export class WorkerWatch {
  /**
   * "unheard": it has not reported yet, and one of an older version does not. "late": half of the timeout is over. "suspected": all of it is over. "condemned": so it is, and the worker was not
   * stopped by a signal, which would have delayed its reports.
   */
  #phase: "unheard" | "responding" | "late" | "suspected" | "condemned" = "unheard";
  /** How long it has not reported, in milliseconds. */
  #silence = 0;
  /** The number of requests in progress, as it last reported. */
  #running = 0;
  #inspected = false;
  readonly #worker: WorkerProcess;
  readonly #timeout: number;
  readonly #onTimeout: () => void;

  /**
   * @param timeout The longest silence, in milliseconds.
   * @param onTimeout Called when the silence was longer.
   */
  constructor(worker: WorkerProcess, timeout: number, onTimeout: () => void) {
    this.#worker = worker;
    this.#timeout = timeout;
    this.#onTimeout = onTimeout;
  }

  /** Takes a report of the worker. */
  heard({ running, inspected }: Report): void {
    this.#running = running;
    this.#inspected = inspected;
    this.#reset();
  }

  #reset(): void {
    this.#phase = "responding";
    this.#silence = 0;
  }

  /** Counts some time. @param ms How much, in milliseconds. */
  tick(ms: number): void {
    // A debugger stops it for as long as its user thinks.
    if (this.#inspected || this.#worker.phase !== "serving") return;
    this.#silence += ms;
    if (this.#phase === "responding" && this.#silence >= this.#timeout / 2) this.#warn();
    else if (this.#phase === "late" && this.#silence >= this.#timeout) this.#suspect();
    else if (this.#phase === "condemned") this.#condemn();
  }

  async #warn(): Promise<void> {
    this.#phase = "late";
    const isExcused = await this.#isExcused();
    if (this.#phase !== "late") return;
    if (isExcused) this.#reset();
    else logLine(`${this.#worker.title} has not turned its event loop for ${this.#account}`);
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
      `${this.#worker.title} is killed as it must turn its event loop within ${this.#timeout} ms: ` +
        `it has not for ${this.#account}`,
    );
    this.#onTimeout();
  }

  get #account(): string {
    return `${this.#silence} ms, with requests in progress: ${this.#running}`;
  }
}
