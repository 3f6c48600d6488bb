import { Progress } from "../io/progress.ts";
import { type Ticked, Ticker } from "../io/ticker.ts";

/** How long a request counts whose handler runs on after its end, as its client has left, in milliseconds. */
const ABANDONED = 300_000;
/** The longest time between two checks of that, in milliseconds. */
const TICK = 1000;

/**
 * Counts the requests of a server for the limit `maxRequests`: each until its handler settles, also if its client leaves
 * before that, or gets another response as the app takes too long.
 */
export class RunningRequests {
  /** The number of requests. */
  count = 0;
  #log: (message: string) => void;
  #limit: number;
  /** The requests that have ended before their handlers have settled. */
  #abandoned: Ticker;

  /** @param limit How long a request counts whose handler runs on, in milliseconds. */
  constructor(log: (message: string) => void, limit = ABANDONED) {
    this.#log = log;
    this.#limit = limit;
    this.#abandoned = new Ticker(Math.min(limit, TICK));
  }

  /**
   * Limits how long a request counts whose handler runs on: handlers that never settle must not add up until the server
   * responds with 503 only.
   *
   * @param uncounted Called when it counts no longer.
   * @returns A function to call when the handler settles.
   */
  abandon(uncounted = () => {}): () => void {
    const running = new Progress();
    const request: Ticked = {
      place: -1,
      check: (now) => {
        if (running.elapsed(now) < this.#limit) return;
        this.#uncount(request, uncounted);
        this.#log(
          `A handler still runs ${this.#limit} ms after the end of its request: it no longer counts for maxRequests`,
        );
      },
    };
    this.#abandoned.add(request);
    return () => this.#uncount(request, uncounted);
  }

  /** Ends the count of a request, unless its time is over already. */
  #uncount(request: Ticked, uncounted: () => void): void {
    if (request.place < 0) return;
    this.#abandoned.delete(request);
    this.count--;
    uncounted();
    if (this.#abandoned.size === 0) this.#abandoned.close();
  }
}
