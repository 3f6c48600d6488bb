import { cancelSoon } from "../io/cancel_soon.ts";
import { plainResponse } from "../bridge/plain_response.ts";
import { nativeSignal } from "../io/private_fields.ts";
import { Progress } from "../io/progress.ts";
import type { Ticked } from "../io/ticker.ts";
import { LINGER, LINGER_IDLE } from "../io/timeouts.ts";
import type { Limited } from "./moved_request.ts";
import { describeTimeout, ResponseClock, timeoutError } from "./request_timeout.ts";

/** A request over HTTP whose app must respond in time. */
export class HTTPDeadline implements Ticked, Limited {
  place = -1;
  #native: Request;
  #timeout: number;
  #clock: ResponseClock;
  #log: (message: string) => void;
  /** The reason that the signal has aborted with, once the time is over. */
  #error: DOMException | null = null;
  #controller = new AbortController();
  #signal: AbortSignal | null = null;
  /** How many reads of the body wait for the client. */
  #waiting = 0;
  /** What reads the stream of the body, once the app has it. */
  #reader: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>> | null = null;
  /** How long the body has been dropped after the response: in total, and without a byte. */
  #drained = [new Progress(), new Progress()];
  /** Rejects once the time is over. */
  #late = Promise.withResolvers<never>();
  #responded = Promise.withResolvers<Response>();

  /** @param native The request of `Deno.serve`. @param timeout In milliseconds. */
  constructor(native: Request, timeout: number, log: (message: string) => void) {
    this.#native = native;
    this.#timeout = timeout;
    this.#clock = new ResponseClock(timeout);
    this.#log = log;
    // Nothing may read the body.
    this.#late.promise.catch(() => {});
  }

  /** Whether the time is over. */
  get isOver(): boolean {
    return this.#error !== null;
  }

  /** Returns whether an error is the reason that the signal has aborted with. */
  isReason(error: unknown): boolean {
    return error === this.#error;
  }

  get signal(): AbortSignal {
    return this.#signal ??= AbortSignal.any([nativeSignal(this.#native), this.#controller.signal]);
  }

  /** Responds with 503 if the app has taken too long. */
  check(now: number): void {
    if (this.isOver) return this.#checkDrain(now);
    if (!this.#clock.isOver(now, this.#waiting > 0)) return;
    const error = timeoutError(this.#timeout);
    this.#error = error;
    this.#log(describeTimeout(error, this.#native.method, this.#native.url));
    this.#responded.resolve(plainResponse(503));
    this.#late.reject(error);
    this.#controller.abort(error);
  }

  /** Returns the first response: that of the app, or 503. The other one is cancelled. */
  async race(response: Promise<Response>): Promise<Response> {
    const first = await Promise.race([response, this.#responded.promise]);
    if (this.isOver) response.then(({ body }) => this.#cancel(body));
    return first;
  }

  /**
   * Drops the rest of a body that the app has read in part: otherwise the connection would hang. Resolves at
   * the end of the body; at once if there is nothing to do.
   */
  async drain(): Promise<void> {
    if (!this.isOver || this.#reader === null) return;
    try {
      while (!(await this.#reader.read()).done) this.#drained[1].progressed();
    } catch {
      // The client has left.
    }
  }

  /** Limits how long that takes, as a closing connection of the other servers does (rule C15). */
  #checkDrain(now: number): void {
    const [total, stall] = this.#drained;
    if (total.elapsed(now) <= LINGER && stall.elapsed(now) <= LINGER_IDLE) return;
    this.#reader?.cancel().catch(() => {});
  }

  #cancel(body: ReadableStream | null): void {
    if (body?.locked === false) cancelSoon(body, this.#error);
  }

  async limitRead<T>(read: Promise<T>): Promise<T> {
    this.#waiting++;
    try {
      return await Promise.race([this.#late.promise, read]);
    } finally {
      this.#waiting--;
    }
  }

  limitStream(
    body: ReadableStream<Uint8Array<ArrayBuffer>>,
  ): ReadableStream<Uint8Array<ArrayBuffer>> {
    const reader = this.#reader = body.getReader();
    return new ReadableStream({
      type: "bytes",
      pull: async (controller) => {
        const { done, value } = await this.limitRead(reader.read());
        if (!done) return controller.enqueue(value);
        controller.close();
        controller.byobRequest?.respond(0);
      },
      cancel: (reason) => reader.cancel(reason),
    });
  }
}
