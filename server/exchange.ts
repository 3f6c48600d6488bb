import type { Variables } from "../wire/variables.ts";
import type {
  AppOptions,
  CompletedRequest,
  FilterInfo,
  HandlerInfo,
  Protocol,
} from "../bridge/app.ts";
import { describeError } from "../io/describe.ts";
import type { DebugHook } from "./debug_hook.ts";
import { createLazyRequest, type RequestParts } from "./lazy_request.ts";
import {
  decodePath,
  requestFields,
  requestHref,
  requestMethod,
  type RequestURL,
  requestURL,
  requireLength,
} from "../bridge/request.ts";
import { createHeaders } from "./request_headers.ts";
import { requestIdOf, traceIdOf } from "./request_id.ts";
import { checkTrust, remoteAddress, trustedForwarded } from "./forwarded.ts";
import type { RequestBody } from "./request_body.ts";
import { readNative } from "../io/private_fields.ts";
import type { RequestTrace } from "../io/telemetry.ts";
import type { NetAddr } from "../io/addr.ts";

/** What an exchange needs to know of its transport. */
export interface TransportInfo {
  /** The transport's protocol. */
  protocol: Protocol;
  /** The path of the running program, or undefined if it has no file. */
  program: string | undefined;
  /** Shows errors to developers. */
  debug: DebugHook;
  /** Writes a line to the web server's error log, or to the daemon's own where the protocol has none. */
  log(message: string, info?: HandlerInfo): void;
}

/** The status of a request whose client has left before the response, as in nginx's log. */
export const CLIENT_CLOSED = 499;
/** The status of a request whose server has stopped before the response. */
export const SERVER_STOPPED = 503;

/** The reason of a request's signal when its server stops before the response is complete. */
export class ServerStopped extends DOMException {
  constructor() {
    super("The server shut down", "AbortError");
  }
}

/**
 * Checks the options that requests are created with.
 *
 * @throws {TypeError} If one is not what its type says.
 */
export function checkRequestOptions(options: AppOptions): void {
  checkTrust(options);
  const { basePath = "" } = options;
  if (typeof basePath === "string" && /^(?:auto|\/.*)?$/s.test(basePath)) return;
  throw new TypeError(
    `Cannot serve as basePath must be "auto" or a path such as "/app": current value is ${
      JSON.stringify(basePath)
    }`,
  );
}

/** One request and its response, whatever the transport, and how the transport aborts them. */
export class Exchange implements RequestParts {
  method = "";
  url = "";
  readonly protocol: Protocol;
  readonly variables: Variables;
  /** Called once, when the exchange is aborted. */
  onabort: ((reason: unknown) => void) | null = null;
  /** Whether the app has taken too long: another response is sent, and the app's own is dropped. */
  expired = false;
  /** The span and the metrics, if there are any. */
  trace: RequestTrace | null = null;
  #transport: TransportInfo;
  #options: AppOptions;
  #body: RequestBody | null;
  #reason: unknown;
  #controller: AbortController | null = null;
  #url: RequestURL | null = null;
  #remoteAddr: NetAddr | null = null;
  #requestId: string | undefined;
  #completed: PromiseWithResolvers<void> | null = null;
  /** Responding: the response of the app exists, and perhaps a part of it was sent. */
  #phase: "handling" | "responding" | "complete" | "aborted" | "failed" = "handling";
  #startedAt: number;
  #request: Request | undefined;
  #status = CLIENT_CLOSED;
  /** How many bytes of the body were sent. */
  #bytes = 0;

  /** @param body The request's body, or null if the request cannot have one. */
  constructor(
    transport: TransportInfo,
    variables: Variables,
    body: RequestBody | null,
    options: AppOptions,
  ) {
    this.protocol = transport.protocol;
    this.variables = variables;
    this.#transport = transport;
    this.#body = body;
    this.#options = options;
    this.#startedAt = options.onCompleted === undefined ? 0 : performance.now();
  }

  /** Creates the second argument of the handler. */
  info(): HandlerInfo {
    return new ExchangeInfo(this);
  }

  get remoteAddr(): NetAddr {
    return this.#remoteAddr ??= remoteAddress(this.variables, this.#options);
  }

  get requestId(): string {
    return this.#requestId ??= requestIdOf(this.variables);
  }

  get traceId(): string | undefined {
    return this.trace?.traceId ?? traceIdOf(this.variables.byteString("HTTP_TRACEPARENT"));
  }

  get scriptName(): string {
    return decodePath(this.#requestURL().prefix);
  }

  get pathInfo(): string {
    return decodePath(this.#requestURL().rest);
  }

  get completed(): Promise<void> {
    if (this.#completed === null) {
      this.#completed = Promise.withResolvers();
      // An app that ignores the promise must not end with an unhandled rejection.
      this.#completed.promise.catch(() => {});
      this.#settle();
    }
    return this.#completed.promise;
  }

  /** Shows errors to developers. */
  get debug(): DebugHook {
    return this.#transport.debug;
  }

  log(message: string): void {
    this.#transport.log(message, this.info());
  }

  /** Aborts when the web server aborts the request or closes the connection, and when the app has taken too long. */
  get signal(): AbortSignal {
    if (this.#controller === null) {
      this.#controller = new AbortController();
      if (this.aborted || this.expired) this.#controller.abort(this.#reason);
    }
    return this.#controller.signal;
  }

  /**
   * Creates the request.
   *
   * @throws {ProtocolError} If no `Request` can be created from the variables; has the status to respond with.
   */
  request(): Request {
    const { variables } = this;
    this.method = requestMethod(variables);
    // FastCGI and SCGI frame the body themselves.
    if (this.protocol === "cgi") requireLength(variables, this.method);
    const plain = this.#options.basePath === undefined
      ? requestHref(variables, trustedForwarded(variables, this.#options))
      : undefined;
    this.url = plain ?? this.#requestURL().href;
    this.trace?.requested(this.method, this.#requestedURL(), this.#options.redactQuery);
    if (variables.hasLineBreaks) this.createHeaders();
    if (this.#readable() === null) this.#body?.discard();
    return this.#request = createLazyRequest(this);
  }

  createHeaders(): Headers {
    const { variables } = this;
    return createHeaders(requestFields(variables, this.#options), variables.hasLineBreaks);
  }

  get body(): ReadableStream<Uint8Array<ArrayBuffer>> | null {
    return this.#readable()?.stream ?? null;
  }

  get bodyUsed(): boolean {
    return this.#body?.used === true;
  }

  collectBody(): Promise<Uint8Array<ArrayBuffer>> | null {
    return this.#readable()?.collect() ?? null;
  }

  /** Returns the body, even if it is empty. As under `Deno.serve`, a GET or HEAD request has none (rule A6). */
  #readable(): RequestBody | null {
    return this.method === "GET" || this.method === "HEAD" ? null : this.#body;
  }

  /** Returns whether an error is the body's own: then the client is at fault, not the app. */
  isBodyError(error: unknown): boolean {
    return this.#body?.error === error;
  }

  /** Aborts the exchange: aborts the request's signal and fails an incomplete body. Does nothing once it is settled. */
  abort(reason: unknown): void {
    if (this.#isOver) return;
    this.#phase = "aborted";
    this.#reason = reason;
    const hasStatus = this.#status !== CLIENT_CLOSED;
    if (reason instanceof ServerStopped && !hasStatus) this.#status = SERVER_STOPPED;
    if (this.trace === null) this.#abort();
    else this.trace.run(() => this.#abort());
  }

  #abort(): void {
    this.#body?.fail(this.#reason);
    this.#controller?.abort(this.#reason);
    this.onabort?.(this.#reason);
    this.#end();
  }

  /** Whether the exchange was aborted before its response was complete. */
  get aborted(): boolean {
    return this.#phase === "aborted";
  }

  /** Whether the app was called, and no response exists yet. */
  get handling(): boolean {
    return this.#request !== undefined && this.#phase === "handling";
  }

  /** Fails the request as the app has taken too long: aborts its signal and fails the body. Another response follows. */
  expire(reason: unknown): void {
    this.expired = true;
    this.#reason = reason;
    const fail = () => {
      this.#body?.destroy(reason);
      this.#controller?.abort(reason);
    };
    if (this.trace === null) fail();
    else this.trace.run(fail);
  }

  /** Returns whether an error is the reason that the signal has aborted with. */
  isReason(error: unknown): boolean {
    return error === this.#reason;
  }

  /** Records that the response of the app exists, though it cannot be sent yet. */
  responded(): void {
    if (this.#phase === "handling") this.#phase = "responding";
  }

  /** Records the response to send. */
  responds(response: Response): void {
    this.trace?.responds(readNative(response, "status"), readNative(response, "statusText"));
  }

  /**
   * Records that a part of the response was sent, or is about to be.
   *
   * @param status The status of the response.
   * @param bytes The length of that part, without the head.
   */
  sent(status: number, bytes: number): void {
    this.responded();
    this.#status = status;
    this.#bytes += bytes;
    this.trace?.sent(bytes);
  }

  /** Records that the connection closes without a response, for a reason that a status names. */
  dropped(status: number): void {
    this.#status = status;
    this.settle("failed");
  }

  /** Records how the response ended. The first call counts. */
  settle(outcome: "complete" | "failed"): void {
    if (this.#isOver) return;
    this.#phase = outcome;
    this.#end();
  }

  /** Settles the promise of the app, and reports how the response ended. */
  #end(): void {
    this.#settle();
    const { onCompleted } = this.#options;
    if (onCompleted === undefined) return;
    reportCompleted(onCompleted, {
      request: this.#request,
      info: this.info(),
      status: this.#status,
      bytes: this.#bytes,
      received: this.#body?.received ?? 0,
      traced: this,
    }, this.#startedAt);
  }

  get #isOver(): boolean {
    return this.#phase !== "handling" && this.#phase !== "responding";
  }

  #settle(): void {
    if (this.#phase === "complete") this.#completed?.resolve();
    else if (this.#isOver) {
      this.#completed?.reject(this.#reason ?? new Error("The response was aborted"));
    }
  }

  /** The URL that the client has requested, with the prefix that `basePath` removes. */
  #requestedURL(): string {
    if (this.#options.basePath === undefined) return this.url;
    const { href, prefix, rest } = this.#requestURL();
    const { origin, search } = new URL(href);
    return origin + prefix + rest + search;
  }

  #requestURL(): RequestURL {
    return this.#url ??= requestURL(
      this.variables,
      this.#options.basePath,
      trustedForwarded(this.variables, this.#options),
      this.protocol,
      this.#transport.program,
    );
  }
}

/** What the transport knows of a request that has ended. */
export interface Ended extends Omit<CompletedRequest, "started" | "duration" | "traceId"> {
  /** What knows the id of the trace, which few read. */
  traced: Pick<CompletedRequest, "traceId">;
}

/** What the option `onCompleted` gets. */
class Completed implements CompletedRequest {
  readonly request: Request | undefined;
  readonly info: HandlerInfo;
  readonly status: number;
  readonly bytes: number | undefined;
  readonly received: number | undefined;
  readonly duration: number;
  /** When it ended, in the time of `Date.now()`. */
  readonly #endedAt = Date.now();

  readonly #traced: Ended["traced"];

  constructor(ended: Ended, startedAt: number) {
    this.request = ended.request;
    this.info = ended.info;
    this.status = ended.status;
    this.bytes = ended.bytes;
    this.received = ended.received;
    this.#traced = ended.traced;
    this.duration = performance.now() - startedAt;
  }

  get traceId(): string | undefined {
    return this.#traced.traceId;
  }

  get started(): Date {
    return new Date(this.#endedAt - this.duration);
  }
}

/**
 * Calls the option `onCompleted`. Never throws: logs an error that the option throws.
 *
 * @param startedAt When the request began, in the time of `performance.now()`.
 */
export function reportCompleted(
  onCompleted: (completed: CompletedRequest) => unknown,
  completed: Ended,
  startedAt: number,
): void {
  const log = (error: unknown) => completed.info.log(describeError(error));
  try {
    const result = onCompleted(new Completed(completed, startedAt));
    if (result instanceof Promise) result.catch(log);
  } catch (error) {
    log(error);
  }
}

/**
 * The second argument of the handler. Not the Exchange itself, whose `method`, `body` and `signal` would make it a
 * `RequestInit`: apps pass this object on as the second argument of their router's `fetch()`.
 */
class ExchangeInfo implements HandlerInfo {
  readonly #exchange: Exchange;
  #log: ((message: string) => void) | null = null;

  constructor(exchange: Exchange) {
    this.#exchange = exchange;
  }

  get remoteAddr(): NetAddr {
    return this.#exchange.remoteAddr;
  }

  get completed(): Promise<void> {
    return this.#exchange.completed;
  }

  get protocol(): Protocol {
    return this.#exchange.protocol;
  }

  get variables(): Variables {
    return this.#exchange.variables;
  }

  get requestId(): string {
    return this.#exchange.requestId;
  }

  get scriptName(): string {
    return this.#exchange.scriptName;
  }

  get pathInfo(): string {
    return this.#exchange.pathInfo;
  }

  get log(): (message: string) => void {
    // A program without types may pass an error.
    return this.#log ??= (message) =>
      this.#exchange.log(typeof message === "string" ? message : describeError(message));
  }
}

/** What FastCGI's filter role adds to the second argument. */
type Filtered = Pick<FilterInfo, "data" | "dataLength" | "dataLastModified">;

/** An exchange in FastCGI's filter role. */
export class FilterExchange extends Exchange {
  readonly #filtered: Filtered;

  /** @param filtered The file to filter: its content, length and time. */
  constructor(
    transport: TransportInfo,
    variables: Variables,
    body: RequestBody | null,
    options: AppOptions,
    filtered: Filtered,
  ) {
    super(transport, variables, body, options);
    this.#filtered = filtered;
  }

  override info(): FilterInfo {
    return new FilterExchangeInfo(this, this.#filtered);
  }
}

class FilterExchangeInfo extends ExchangeInfo implements FilterInfo {
  readonly data: ReadableStream<Uint8Array<ArrayBuffer>>;
  readonly dataLength: number;
  readonly dataLastModified: Date;

  constructor(exchange: Exchange, filtered: Filtered) {
    super(exchange);
    this.data = filtered.data;
    this.dataLength = filtered.dataLength;
    this.dataLastModified = filtered.dataLastModified;
  }
}

/** Creates the reason of a request's signal when the web server has closed the connection. */
export function disconnected(): DOMException {
  return new DOMException("The web server closed the connection", "AbortError");
}
