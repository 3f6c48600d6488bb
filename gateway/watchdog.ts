/** Who is waited for. */
export type Waited = "application" | "client";

/** Longer delays than this run at once. */
const MAX_DELAY = 2_147_483_647;

/**
 * Tells when nothing has moved for too long: one timer for the whole exchange, so that what moves need only say so.
 * While the exchange waits for its client, the time is the client's.
 */
export class Watchdog {
  #limits: Record<Waited, number>;
  #onexpire: (waited: Waited) => void;
  #moved = performance.now();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #clientWaits = 0;

  /**
   * @param limits How long each may take, in milliseconds; Infinity for no limit.
   * @param onexpire Called once.
   */
  constructor(limits: Record<Waited, number>, onexpire: (waited: Waited) => void) {
    this.#limits = limits;
    this.#onexpire = onexpire;
    this.#schedule();
  }

  /** Says that something moved. */
  moved(): void {
    this.#moved = performance.now();
  }

  /** Waits for the client, on its own time. */
  async client<T>(waiting: Promise<T>): Promise<T> {
    if (this.#clientWaits++ === 0) this.#restart();
    try {
      return await waiting;
    } finally {
      if (--this.#clientWaits === 0) this.#restart();
      else this.moved();
    }
  }

  /** Watches no more. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#limits = { application: Infinity, client: Infinity };
  }

  get #waited(): Waited {
    return this.#clientWaits > 0 ? "client" : "application";
  }

  #restart(): void {
    this.moved();
    // The timer that runs serves for the other limit as well, unless that one is sooner.
    if (this.#timer === undefined || this.#limits.application !== this.#limits.client) {
      this.#schedule();
    }
  }

  #schedule(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const left = this.#moved + this.#limits[this.#waited] - performance.now();
    if (left === Infinity) return;
    this.#timer = setTimeout(() => {
      const waited = this.#waited;
      if (performance.now() - this.#moved < this.#limits[waited]) return this.#schedule();
      this.stop();
      this.#onexpire(waited);
    }, Math.min(Math.max(left, 1), MAX_DELAY));
  }
}
