/** How long a request counts whose handler runs on after its client has left, in milliseconds. */
const ABANDONED = 300_000;

/**
 * Counts the requests of a server for the limit `maxRequests`: each until its handler settles, also if its client leaves
 * before that.
 */
export class RunningRequests {
  /** The number of requests. */
  count = 0;
  #log: (message: string) => void;
  #limit: number;

  /** @param limit How long a request counts whose client has left, in milliseconds. */
  constructor(log: (message: string) => void, limit = ABANDONED) {
    this.#log = log;
    this.#limit = limit;
  }

  /**
   * Limits how long a request counts, as its client has left: handlers that never settle must not add up until the server
   * responds with 503 only.
   *
   * @returns A function to call when the handler settles.
   */
  abandon(): () => void {
    const timer = setTimeout(() => {
      this.count--;
      settle = () => {};
      this.#log(
        `A handler no longer counts for maxRequests as it must settle within ${this.#limit} ms after its client has left: it still runs`,
      );
    }, this.#limit);
    Deno.unrefTimer(timer as unknown as number);
    let settle = () => {
      clearTimeout(timer);
      this.count--;
    };
    return () => settle();
  }
}
