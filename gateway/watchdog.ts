/** The side that the round trip waits for. */
export type Side = "application" | "client";

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
