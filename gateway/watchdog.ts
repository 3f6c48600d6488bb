/** The side that the round trip waits for. */
export type Side = "application" | "client";

/** The maximum delay of a timer. A timer with a longer delay fires at once. */
const MAX_DELAY = 2_147_483_647;

/**
 * Calls back when a round trip has made no progress for too long. One timer serves the whole round trip, so that
 * progress costs only a timestamp. While the round trip waits for the client, the client's limit applies.
 */
export class Watchdog {
  #limits: Record<Side, number>;
  #onexpire: (side: Side) => void;
  #moved = performance.now();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #clientWaits = 0;

  /**
   * @param limits How long each side may make no progress, in milliseconds; Infinity for no limit.
   * @param onexpire Called once, with the side that made no progress.
   */
  constructor(limits: Record<Side, number>, onexpire: (side: Side) => void) {
    this.#limits = limits;
    this.#onexpire = onexpire;
    this.#schedule();
  }

  /** Records progress. */
  moved(): void {
    this.#moved = performance.now();
  }

  /** Waits for the client, with the client's limit. */
  async client<T>(waiting: Promise<T>): Promise<T> {
    if (this.#clientWaits++ === 0) this.#restart();
    try {
      return await waiting;
    } finally {
      if (--this.#clientWaits === 0) this.#restart();
      else this.moved();
    }
  }

  /** Stops the timer for good. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#limits = { application: Infinity, client: Infinity };
  }

  get #side(): Side {
    return this.#clientWaits > 0 ? "client" : "application";
  }

  #restart(): void {
    this.moved();
    // If the limits are equal, the running timer also serves for the other side.
    if (this.#timer === undefined || this.#limits.application !== this.#limits.client) {
      this.#schedule();
    }
  }

  #schedule(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const left = this.#moved + this.#limits[this.#side] - performance.now();
    if (left === Infinity) return;
    this.#timer = setTimeout(() => {
      const side = this.#side;
      if (performance.now() - this.#moved < this.#limits[side]) return this.#schedule();
      this.stop();
      this.#onexpire(side);
    }, Math.min(Math.max(left, 1), MAX_DELAY));
  }
}
