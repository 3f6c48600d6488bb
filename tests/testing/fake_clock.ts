/** A clock that a test advances: replaces `performance.now()`, `setTimeout()` and `clearTimeout()`. */
export class FakeClock implements Disposable {
  /** The number of timers set so far. */
  timersSet = 0;
  #now = performance.now();
  #timers = new Map<number, { at: number; run: () => void }>();
  #real = {
    now: performance.now,
    setTimeout: globalThis.setTimeout,
    clearTimeout: globalThis.clearTimeout,
  };

  constructor() {
    performance.now = () => this.#now;
    globalThis.setTimeout = ((run: () => void, delay = 0) => {
      this.#timers.set(++this.timersSet, { at: this.#now + delay, run });
      return this.timersSet;
    }) as unknown as typeof setTimeout;
    globalThis.clearTimeout = ((id: number) => {
      this.#timers.delete(id);
    }) as unknown as typeof clearTimeout;
  }

  /** The number of timers that are pending. */
  get timers(): number {
    return this.#timers.size;
  }

  /** Advances the time, and runs the timers that become due in order. */
  advance(ms: number): void {
    const end = this.#now + ms;
    while (true) {
      const due = [...this.#timers].filter(([_, { at }]) => at <= end);
      if (due.length === 0) break;
      const [id, { at, run }] = due.reduce((first, other) =>
        other[1].at < first[1].at ? other : first
      );
      this.#timers.delete(id);
      this.#now = at;
      run();
    }
    this.#now = end;
  }

  [Symbol.dispose](): void {
    performance.now = this.#real.now;
    globalThis.setTimeout = this.#real.setTimeout;
    globalThis.clearTimeout = this.#real.clearTimeout;
  }
}
