import { type Member, Roster } from "./roster.ts";
import { runtime } from "./runtime.ts";

/** The longest time between two ticks that {@linkcode tickFor} returns, and the shortest, in milliseconds. */
const MAX_TICK = 100;
const MIN_TICK = 5;
/** The longest step of the clock, in milliseconds. */
const MAX_STEP = 1000;

/** An object whose deadlines a {@linkcode Ticker} enforces. */
export interface Ticked extends Member {
  /** Enforces the deadlines. @param now The time of the ticker, in milliseconds. */
  check(now: number): void;
  /** Called when the ticker closes. */
  close?(): void;
}

/**
 * Checks the deadlines of many objects with one timer, which does not keep the process alive by itself unless an option says so.
 * A timer for each object would cost more than the rest of a small request, and so would reading the clock.
 *
 * Its clock stands still while the process does: a stop, a suspended machine or a long synchronous task counts as a
 * second at most. Bytes that waited meanwhile are then read before a deadline is over.
 */
export class Ticker<T extends Ticked = Ticked> extends Roster<T> {
  #tick: number;
  #keepsAlive: boolean;
  #timer: ReturnType<typeof setInterval> | undefined;
  /** The time of the last tick, by the clock of the process. */
  #tickedAt = 0;
  #now = 0;
  #closed = false;

  /**
   * @param tick The time between two ticks, in milliseconds.
   * @param keepsAlive Whether the process stays alive while there is an object to check.
   */
  constructor(tick: number, keepsAlive = false) {
    super();
    this.#tick = tick;
    this.#keepsAlive = keepsAlive;
  }

  /** Starts to check an object. */
  override add(ticked: T): void {
    super.add(ticked);
    if (this.#timer !== undefined) return;
    this.#tickedAt = performance.now();
    this.#timer = setInterval(() => this.#check(), this.#tick);
    if (!this.#keepsAlive) runtime.unrefTimer(this.#timer);
  }

  /** Stops checking an object. The timer runs on for a tick, since the next object often follows at once. */
  override delete(ticked: T): void {
    super.delete(ticked);
    if (this.#closed) this.#rest();
  }

  /** Closes the objects that are checked, and stops the timer once there is none left. */
  close(): void {
    for (const ticked of this) ticked.close?.();
    this.#closed = true;
    this.#rest();
  }

  #check(): void {
    const tickedAt = performance.now();
    this.#now += Math.min(tickedAt - this.#tickedAt, MAX_STEP);
    this.#tickedAt = tickedAt;
    for (const ticked of this) ticked.check(this.#now);
    this.#rest();
  }

  #rest(): void {
    if (this.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}

/** Returns the time between ticks, in milliseconds, with which limits are exceeded by at most a fifth, or 200 ms. */
export function tickFor(...limits: number[]): number {
  return Math.min(Math.max(Math.min(...limits) / 10, MIN_TICK), MAX_TICK);
}
