/** Tells for how long a counter has stood still, so that what counts need not look at the clock. */
export class Standstill {
  #value = NaN;
  #since = 0;

  /** How long the counter has had this value, in the unit of `now`. */
  of(value: number, now: number): number {
    if (value !== this.#value) {
      this.#value = value;
      this.#since = now;
    }
    return now - this.#since;
  }
}
