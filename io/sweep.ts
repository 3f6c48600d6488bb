import { LimitClock } from "./limit_clock.ts";
import { type Member, Roster } from "./roster.ts";

/** The longest time between two sweeps, in milliseconds. */
const MAX_TICK = 100;
const MIN_TICK = 5;

/** An object whose limits a {@linkcode Sweep} enforces. */
export interface Checked extends Member {
  /** Enforces the limits. @param now The time of the sweep's {@linkcode LimitClock}. */
  check(now: number): void;
  /** Ends it, as the sweep closes. */
  close?(): void;
}

/** Checks limits of many objects with one timer: a timer for each would cost more than the rest of a small request. */
export class Sweep {
  #running = new Roster<Checked>();
  #tick: number;
  #timer: ReturnType<typeof setInterval> | undefined;
  #clock = new LimitClock();
  #closed = false;

  /** @param limits The limits that are checked, in milliseconds. They are exceeded by at most a fifth, or 200 ms. */
  constructor(limits: number[]) {
    this.#tick = Math.min(Math.max(Math.min(...limits) / 10, MIN_TICK), MAX_TICK);
  }

  /** Starts to check an object. */
  add(checked: Checked): void {
    this.#running.add(checked);
    this.#timer ??= setInterval(() => this.#check(), this.#tick);
  }

  /** Stops checking an object. The timer stays, since the next one often follows at once. */
  delete(checked: Checked): void {
    this.#running.delete(checked);
    if (this.#closed) this.#rest();
  }

  /** Ends what is checked, and stops the timer as soon as nothing is to be checked. */
  close(): void {
    for (const checked of this.#running) checked.close?.();
    this.#closed = true;
    this.#rest();
  }

  #check(): void {
    const now = this.#clock.tick();
    for (const checked of this.#running) checked.check(now);
    this.#rest();
  }

  #rest(): void {
    if (this.#running.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}
