import type { Exchange } from "./exchange.ts";
import { refuse, type ResponseSink } from "./respond.ts";

/**
 * Measures how long an app takes until its response begins, by the ticks of a `Ticker`, for the option `requestTimeout`.
 * The time in which it waits for its client does not count.
 */
export class ResponseClock {
  readonly #timeout: number;
  #spent = 0;
  #tickedAt = NaN;

  /** @param timeout How long it may take, in milliseconds. */
  constructor(timeout: number) {
    this.#timeout = timeout;
  }

  /**
   * Returns whether the time is over. To be called at each tick.
   *
   * @param now The time of the ticker.
   * @param waits Whether the app waits for bytes of the body.
   */
  isOver(now: number, waits: boolean): boolean {
    if (!waits && now > this.#tickedAt) this.#spent += now - this.#tickedAt;
    this.#tickedAt = now;
    return this.#spent > this.#timeout;
  }
}

/** Creates the reason of a request's signal, and of failing reads of its body, when its app has taken too long. */
export function timeoutError(timeout: number): DOMException {
  return new DOMException(
    `The app must respond within ${timeout} ms (requestTimeout): it has not`,
    "TimeoutError",
  );
}

/** Describes the same for the log. @param url The URL of the request: its query may have secrets. */
export function describeTimeout({ message }: DOMException, method: string, url: string): string {
  return `Responded with 503 to ${method} ${new URL(url).pathname}. ${message}`;
}

/**
 * Responds with 503 in place of an app that has taken too long, and aborts the request.
 *
 * @param error What the request's signal aborts with.
 * @returns Whether the response was sent.
 */
export async function expire(
  error: DOMException,
  exchange: Exchange,
  sink: ResponseSink,
): Promise<boolean> {
  exchange.log(describeTimeout(error, exchange.method, exchange.url));
  exchange.expire(error);
  const sent = await refuse(503, exchange, sink);
  exchange.trace?.end();
  return sent;
}
