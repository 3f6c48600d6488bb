import type { AppOptions, HandlerInfo } from "../bridge/app.ts";
import {
  bufferedResponse,
  hasLeft,
  isBodyDecoded,
  nativeSignal,
  TRACED,
} from "../io/private_fields.ts";
import { Progress } from "../io/progress.ts";
import { traceIdOf } from "./request_id.ts";
import { ByteCount, countResponse } from "./byte_count.ts";
import { CLIENT_CLOSED, reportCompleted, SERVER_STOPPED } from "./exchange.ts";
import { countRequest } from "./moved_request.ts";

/**
 * How long a handler may take before its request's signal is read, in milliseconds. Without it, a handler that does not
 * settle after its client has left would never be reported.
 */
export const LONG = 1000;

/** The status of the response that `Deno.upgradeWebSocket` creates. No other response can have it. */
export const SWITCHING_PROTOCOLS = 101;

/** A request over HTTP whose end the option `onCompleted` waits for. */
export class HTTPCompletion {
  place = -1;
  /** Called once its end is reported. */
  onreported: () => void = () => {};
  /** The request as the app sees it. */
  request: Request | undefined;
  /** The request as Deno created it. */
  #native: Request;
  #info: HandlerInfo;
  #onCompleted: Required<AppOptions>["onCompleted"];
  #traceId: string | undefined;
  /** The bytes of a body without a declared length. */
  #received: ByteCount | undefined;
  /** Whether the app has read the body: Deno itself does so after the response. */
  #isRead = false;
  /** Reports the end, as far as it is known. */
  #end = () => this.#report(SERVER_STOPPED, 0);
  #startedAt = performance.now();
  #handling = new Progress();
  /** Watched: the handler has taken long, and the signal was read. */
  #phase: "handling" | "watched" | "responding" | "over" = "handling";

  /** @param traceId The id of the span of `Deno.serve`, if there is one. */
  constructor(
    native: Request,
    info: HandlerInfo,
    onCompleted: Required<AppOptions>["onCompleted"],
    traceId?: string,
  ) {
    this.#native = native;
    this.#traceId = traceId;
    // Once the request is over Deno 2.9.6 has its headers only if they were read before; with telemetry, and once it is
    // upgraded, if all were.
    const { headers } = native;
    if (TRACED || headers.get("upgrade") !== null) headers.forEach(() => {});
    this.#info = info;
    this.#onCompleted = onCompleted;
  }

  get traceId(): string | undefined {
    return this.#traceId ?? traceIdOf(this.#native.headers.get("traceparent"));
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

  /** Returns the request for the app. Counts the bytes of a body without a declared length. */
  requested(request: Request): Request {
    const { method, headers } = request;
    const hasBody = method !== "GET" && method !== "HEAD";
    if (hasBody && headers.get("content-length") === null) {
      this.#received = new ByteCount();
      return this.request = countRequest(request, this.#received);
    }
    return this.request = request;
  }

  /** Returns the response for Deno, which sends it next. Counts the bytes of a body whose length is not known. */
  responded(response: Response): Response {
    if (this.#phase === "over") return response;
    const look = () => this.#isRead = this.#native.bodyUsed;
    look();
    const { status } = response;
    // An upgrade aborts the signal.
    if (status !== SWITCHING_PROTOCOLS && hasLeft(this.#native)) {
      this.#report(CLIENT_CLOSED, 0);
      return response;
    }
    this.#phase = "responding";
    const bytes = this.#native.method === "HEAD" ? 0 : bodyLength(response);
    const count = bytes === undefined ? new ByteCount() : undefined;
    if (count !== undefined) count.onend = look;
    this.#end = () => {
      const hasNone = count?.left && count.bytes === 0;
      this.#report(hasNone ? CLIENT_CLOSED : status, bytes ?? count!.bytes);
    };
    this.#info.completed.then(this.#end, this.#end);
    return count === undefined ? response : countResponse(response, count);
  }

  /** Reports the end as the server has stopped without it. */
  close(): void {
    this.#end();
  }

  #report(status: number, bytes: number): void {
    if (this.#phase === "over") return;
    this.#phase = "over";
    this.onreported();
    const completed = {
      request: this.request,
      info: this.#info,
      status,
      bytes,
      received: this.#received?.bytes ?? this.#declared(status),
      traced: this,
    };
    reportCompleted(this.#onCompleted, completed, this.#startedAt);
  }

  /** Returns the declared length of a body that the app has read, or undefined if it may not have got all of it. */
  #declared(status: number): number | undefined {
    const length = Number(this.#native.headers.get("content-length") ?? 0);
    if (length === 0 || !this.#isRead) return 0;
    return status === CLIENT_CLOSED ? undefined : length;
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
