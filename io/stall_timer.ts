/** Measures how long a counter has not changed, so that code on the hot path need only count and not read the clock. */
export class StallTimer {
  #value = NaN;
  #since = 0;

  /** Returns how long the counter has had this value, in the unit of `now`. */
  elapsed(value: number, now: number): number {
    if (value !== this.#value) {
      this.#value = value;
      this.#since = now;
    }
    return now - this.#since;
  }
}
