import { type Member, Roster } from "../io/roster.ts";

/** The side that the round trip waits for. */
export type Side = "application" | "client";

/** The longest time between two sweeps, in milliseconds. */
const MAX_TICK = 100;
const MIN_TICK = 5;

/** An object whose limits a {@linkcode Sweep} enforces. */
export interface Checked extends Member {
  /** Enforces the limits. @param now The time, of `performance.now()`. */
  check(now: number): void;
}

/** Checks the limits of all round trips of a gateway with one timer. */
export class Sweep {
  #running = new Roster<Checked>();
  #tick: number;
  #timer: ReturnType<typeof setInterval> | undefined;
  #closed = false;

  /** @param limits The limits that are checked, in milliseconds. They are exceeded by at most a tenth, or 100 ms. */
  constructor(limits: number[]) {
    this.#tick = Math.min(Math.max(Math.min(...limits) / 10, MIN_TICK), MAX_TICK);
  }

  /** Starts to check a round trip. */
  add(checked: Checked): void {
    this.#running.add(checked);
    this.#timer ??= setInterval(() => this.#check(), this.#tick);
  }

  /** Stops checking a round trip. The timer stays, since the next request often follows at once. */
  delete(checked: Checked): void {
    this.#running.delete(checked);
    if (this.#closed) this.#rest();
  }

  /** Stops the timer as soon as no round trip is running. */
  close(): void {
    this.#closed = true;
    this.#rest();
  }

  #check(): void {
    const now = performance.now();
    for (const checked of this.#running) checked.check(now);
    this.#rest();
  }

  #rest(): void {
    if (this.#running.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}

/**
 * Measures how long a round trip has made no progress. Progress only counts up, and the clock is read by the sweep.
 * While the round trip waits for the client, the client's limit applies.
 */
export class Watchdog {
  #limits: Record<Side, number>;
  #progress = 0;
  #seen = -1;
  #since = 0;
  #clientWaits = 0;

  /** @param limits How long each side may make no progress, in milliseconds; Infinity for no limit. */
  constructor(limits: Record<Side, number>) {
    this.#limits = limits;
  }

  /** Records progress. */
  moved(): void {
    this.#progress++;
  }

  /** Waits for the client, with the client's limit. */
  async client<T>(waiting: Promise<T>): Promise<T> {
    this.#clientWaits++;
    this.moved();
    try {
      return await waiting;
    } finally {
      this.#clientWaits--;
      this.moved();
    }
  }

  /** Returns the side that has made no progress for too long, if one has. */
  expired(now: number): Side | undefined {
    if (this.#progress !== this.#seen) {
      this.#seen = this.#progress;
      this.#since = now;
    }
    const side = this.#clientWaits > 0 ? "client" : "application";
    return now - this.#since >= this.#limits[side] ? side : undefined;
  }
}
