/**
 * The minimum rate of request bodies: a client that sends a byte from time to time must not occupy the server.
 *
 * @module
 */

/** The default of the options `minBodyRate`, in bytes per second: that of Apache's mod_reqtimeout. */
export const MIN_BODY_RATE = 500;
/** The time over which the rate is averaged, in milliseconds. Only time spent waiting for the client counts. */
const WINDOW = 60_000;

/** Finds out whether a body arrives more slowly than a minimum rate. */
export class BodyRate {
  /** The minimum rate, in bytes per second; 0 for none. */
  readonly minimum: number;
  #checkedAt = 0;
  #waited = 0;
  #receivedBefore = 0;

  /** @param minimum The minimum rate, in bytes per second; 0 for none. */
  constructor(minimum: number) {
    this.minimum = minimum;
  }

  /**
   * Returns whether the body is too slow. To be called at least every few seconds.
   *
   * @param now The time, in milliseconds.
   * @param received The number of bytes received so far.
   * @param waiting Whether its reader waits for more of it.
   */
  isTooSlow(now: number, received: number, waiting: boolean): boolean {
    if (waiting && this.#checkedAt > 0) this.#waited += now - this.#checkedAt;
    this.#checkedAt = now;
    if (this.#waited < WINDOW) return false;
    const wanted = this.minimum * this.#waited / 1000;
    const got = received - this.#receivedBefore;
    this.#waited = 0;
    this.#receivedBefore = received;
    return got < wanted;
  }
}
