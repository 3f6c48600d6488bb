import type { AppOptions, HandlerInfo } from "../bridge/app.ts";
import { bufferedResponse, hasLeft, isBodyDecoded, nativeSignal } from "../io/private_fields.ts";
import { Progress } from "../io/progress.ts";
import { CLIENT_CLOSED, reportCompleted } from "./exchange.ts";

/**
 * How long a handler may take before its request's signal is read, in milliseconds. Without it, a handler that does not
 * settle after its client has left would never be reported.
 */
export const LONG = 5000;

/** A request over HTTP whose end the option `onCompleted` waits for. */
export class HTTPCompletion {
  place = -1;
  /** The request as the app sees it. */
  request: Request | undefined;
  /** The request as Deno created it. */
  #native: Request;
  #info: HandlerInfo;
  #onCompleted: Required<AppOptions>["onCompleted"];
  #startedAt = performance.now();
  #handling = new Progress();
  /** Watched: the handler has taken long, and the signal was read. */
  #phase: "handling" | "watched" | "responding" | "over" = "handling";

  constructor(
    native: Request,
    info: HandlerInfo,
    onCompleted: Required<AppOptions>["onCompleted"],
  ) {
    this.#native = native;
    this.#info = info;
    this.#onCompleted = onCompleted;
  }

  /** Notices a client that leaves while the handler takes long. @param now The time of a ticker. */
  check(now: number): void {
    if (this.#phase !== "handling" || this.#handling.elapsed(now) < LONG) return;
    this.#phase = "watched";
    const left = () => {
      if (this.#phase === "watched") this.#report(CLIENT_CLOSED, 0);
    };
    const signal = nativeSignal(this.#native);
    if (signal.aborted) left();
    else signal.addEventListener("abort", left);
  }

  /** Records the response, which Deno sends next. */
  responded(response: Response): void {
    if (this.#phase === "over") return;
    if (hasLeft(this.#native)) return this.#report(CLIENT_CLOSED, 0);
    this.#phase = "responding";
    const { status } = response;
    const bytes = this.#native.method === "HEAD" ? 0 : bodyLength(response);
    const end = () => this.#report(status, bytes);
    this.#info.completed.then(end, end);
  }

  #report(status: number, bytes: number | undefined): void {
    this.#phase = "over";
    const completed = { request: this.request, info: this.#info, status, bytes };
    reportCompleted(this.#onCompleted, completed, this.#startedAt);
  }
}

/** Returns the length of a response's body in bytes, or undefined if it is not known before the body is sent. */
function bodyLength(response: Response): number | undefined {
  const body = bufferedResponse(response)?.body;
  if (typeof body === "string") return new TextEncoder().encode(body).length;
  if (body !== undefined) return body.length;
  if (response.body === null) return 0;
  if (isBodyDecoded(response)) return undefined;
  const length = response.headers.get("content-length");
  return length === null ? undefined : Number(length);
}
