/**
 * Measures how long there has been no progress, by the ticks of a `Ticker`: the hot path only counts and does not read
 * the clock. The time begins at the first tick after the last progress, so that no limit is enforced too early.
 */
export class Progress {
  #count = 0;
  #seen = NaN;
  #since = 0;

  /** Counts progress. */
  progressed(): void {
    this.#count++;
  }

  /**
   * Returns how long there has been no progress, in milliseconds. To be called at each tick.
   *
   * @param now The time of the ticker.
   * @param count What counts the progress, if it is counted elsewhere. NaN counts as progress.
   */
  elapsed(now: number, count = this.#count): number {
    if (count !== this.#seen) {
      this.#seen = count;
      this.#since = now;
    }
    return now - this.#since;
  }
}
