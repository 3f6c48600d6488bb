/** The longest step of the clock, in milliseconds. */
const MAX_STEP = 1000;

/**
 * The clock of limits, which stands still while the process does: a stop, a suspended machine or a long synchronous task
 * counts as a second at most. Bytes that waited meanwhile are then read before a limit is exceeded.
 */
export class LimitClock {
  #last = performance.now();
  #time = this.#last;

  /** Advances the clock by the time since the last tick. @returns The new time, in milliseconds. */
  tick(): number {
    const now = performance.now();
    this.#time += Math.min(now - this.#last, MAX_STEP);
    this.#last = now;
    return this.#time;
  }
}
