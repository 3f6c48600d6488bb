/**
 * Spans and metrics of requests, as `Deno.serve` exports them, spans of calls, as `fetch()` does, and metrics of workers,
 * by `Deno.telemetry`. Loaded only if the runtime exports telemetry, which OTEL_DENO=true makes it do.
 *
 * @module
 */

import { runtime } from "./runtime.ts";

/** The route that the app has set on a span. */
const NOTED = Symbol("http.route");

/** The part of OpenTelemetry's `Span` that is used. */
interface Span {
  setAttribute(name: string, value: unknown): Span;
  setAttributes(attributes: Record<string, unknown>): Span;
  setStatus(status: { code: number; message: string }): Span;
  updateName(name: string): Span;
  spanContext(): { traceId: string };
  end(): void;
  [NOTED]?: string;
}

/** The part of OpenTelemetry's `Context` that is used. */
interface Context {
  getValue(key: symbol): unknown;
  setValue(key: symbol, value: unknown): Context;
}

/** A counter that goes down too, or a histogram. */
interface Instrument {
  add(value: number, attributes: Attributes): void;
  record(value: number, attributes: Attributes): void;
}

/** A bigint is exported as an integer, a number as a double. */
type Attributes = Record<string, string | bigint>;

/** A header's value by its name. */
type HeaderLookup = (name: string) => string | undefined;

/** Header fields to send in place of those that a request has, by names in lower case; null for none. */
export type Fields = Map<string, string | null>;

/** What Deno registers when it starts with OTEL_DENO=true, each part only if it is on. */
interface RegisteredAPI {
  trace?: unknown;
  metrics?: unknown;
  propagation?: {
    extract(
      context: Context,
      carrier: HeaderLookup,
      getter: { get(carrier: HeaderLookup, name: string): string | undefined },
    ): Context;
    inject(
      context: Context,
      carrier: Fields,
      setter: { set(carrier: Fields, name: string, value: string): void },
    ): void;
  };
}

/** A request before its URL is known. */
export interface IncomingRequest {
  /** The method as received. */
  method: string;
  /** The version of HTTP, such as "1.1". */
  version: string | undefined;
  /** The length that the body is declared to have, or 0. */
  bodyLength: number;
  /** Returns a header's value. */
  header: HeaderLookup;
}

/** A request to send to an application. */
export interface OutgoingRequest {
  method: string;
  url: string;
  headers: { get(name: string): string | null };
}

/** The scope of the spans and metrics. Not `deno`: its counter of active requests has another type. */
const SCOPE = "@gatehouse/cgi";
const SPAN_KEY = Symbol.for("OpenTelemetry Context Key SPAN");
/** The kinds of spans. */
const SERVER = 1;
const CLIENT = 2;
/** The span's status. */
const ERROR = 2;
const ROUTE = "http.route";
const DURATION_BOUNDS = [
  ...[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10],
];
const SIZE_BOUNDS = [0, 100, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/** How long changes of the number of active requests wait, in milliseconds. */
const SETTLING = 100;

/** Counts active requests. Most end before their beginning is counted, which saves two calls of the counter each. */
class ActiveRequests {
  #counter: Instrument;
  /** Changes that are not counted yet, by scheme and method. */
  #changes = new Map<string, { attributes: Attributes; change: number }>();

  constructor(counter: Instrument) {
    this.#counter = counter;
    // At the end of the program, before the last export.
    addEventListener("unload", () => this.#count());
  }

  add(change: number, attributes: Attributes): void {
    const key = `${attributes["url.scheme"]} ${attributes["http.request.method"]}`;
    const before = this.#changes.get(key);
    if (before !== undefined) {
      before.change += change;
      return;
    }
    if (this.#changes.size === 0) {
      runtime.unrefTimer(setTimeout(() => this.#count(), SETTLING));
    }
    this.#changes.set(key, { attributes, change });
  }

  #count(): void {
    for (const { attributes, change } of this.#changes.values()) {
      this.#counter.add(change, attributes);
    }
    this.#changes.clear();
  }
}

const { tracerProvider, meterProvider, contextManager } = Deno.telemetry;
const api = (globalThis as Record<symbol, unknown>)[Symbol.for("opentelemetry.js.api.1")] as
  | RegisteredAPI
  | undefined;
// A library may have registered a provider of its own where Deno has none. Gatehouse does not use it.
const tracer = api?.trace === tracerProvider ? tracerProvider.getTracer(SCOPE) : undefined;
const meters = api?.metrics === meterProvider ? createMeters() : undefined;
/** The context that each request begins in, whatever the reads of its connection run in. */
const root: Context = contextManager.active();
const getter = { get: (header: HeaderLookup, name: string) => header(name) };
const setter = {
  set: (fields: Fields, name: string, value: string) => void fields.set(name, value),
};

/** The instruments of the metrics of requests. */
interface Meters extends Record<"duration" | "received" | "sent", Instrument> {
  active: ActiveRequests;
}

function createMeters(): Meters {
  const meter = meterProvider.getMeter(SCOPE);
  const sizes = (of: string) => ({
    description: `Size of HTTP server ${of} bodies.`,
    unit: "By",
    advice: { explicitBucketBoundaries: SIZE_BOUNDS },
  });
  return {
    duration: meter.createHistogram("http.server.request.duration", {
      description: "Duration of HTTP server requests.",
      unit: "s",
      advice: { explicitBucketBoundaries: DURATION_BOUNDS },
    }),
    active: new ActiveRequests(meter.createUpDownCounter("http.server.active_requests", {
      description: "Number of active HTTP server requests.",
      unit: "{request}",
    })),
    received: meter.createHistogram("http.server.request.body.size", sizes("request")),
    sent: meter.createHistogram("http.server.response.body.size", sizes("response")),
  };
}

/** Begins the trace of a request. Returns null if neither spans nor metrics are exported. */
export function traceRequest(request: IncomingRequest): RequestTrace | null {
  return tracer === undefined && meters === undefined ? null : new RequestTrace(request);
}

/** Returns the id of the trace that is active, if there is one. */
export function activeTraceId(): string | undefined {
  const active: Context = contextManager.active();
  return (active.getValue(SPAN_KEY) as Span | undefined)?.spanContext().traceId;
}

/** The span and the metrics of one request. */
export class RequestTrace {
  /** Handling: the span has not ended. Responding: the rest of the response is being sent. */
  #phase: "handling" | "responding" | "over" = "handling";
  #startedAt = performance.now();
  readonly #method: string;
  #span: Span | undefined;
  #context = root;
  #bodyLength: number;
  /** The attributes of the counter of active requests, once the request is counted. */
  #active: Attributes | undefined;
  /** The attributes of the histograms. */
  #attributes: Attributes;
  #response: { status: number; statusText: string } | undefined;
  #bytes = 0;

  constructor({ method, version, bodyLength, header }: IncomingRequest) {
    this.#bodyLength = bodyLength;
    this.#method = method;
    this.#attributes = { "http.request.method": method };
    if (version !== undefined) this.#attributes["network.protocol.version"] = version;
    const parent = api?.propagation?.extract(root, header, getter) ?? root;
    this.#span = tracer?.startSpan(method, { kind: SERVER }, parent) as Span | undefined;
    if (this.#span !== undefined) noteRoute(this.#span);
    this.#context = this.#span === undefined ? parent : parent.setValue(SPAN_KEY, this.#span);
  }

  /** The id of the trace that its span belongs to, if there is a span. */
  get traceId(): string | undefined {
    return this.#span?.spanContext().traceId;
  }

  /** Calls a function with the span as the active one, also in all that the function starts. */
  run<T>(call: () => T): T {
    return contextManager.with(this.#context, call, undefined);
  }

  /**
   * Records the request as the app gets it.
   *
   * @param href The URL that the client has requested.
   */
  requested(method: string, href: string, redactQuery = false): void {
    const described = describeRequest(method, href, redactQuery);
    const scheme = described["url.scheme"];
    this.#attributes["http.request.method"] = method;
    this.#attributes["url.scheme"] = scheme;
    this.#active = { "http.request.method": method, "url.scheme": scheme };
    meters?.active.add(1, this.#active);
    if (this.#method !== method) this.#span?.updateName(method);
    this.#span?.setAttributes(described);
  }

  /** Records the response to send. If it cannot be sent, another one follows. */
  responds(status: number, statusText: string): void {
    this.#response = { status, statusText };
  }

  /** Records that a part of the body was sent. The span ends with the first one, as that of `Deno.serve` does. */
  sent(bytes: number): void {
    this.#bytes += bytes;
    if (this.#phase === "handling") this.#endSpan(this.#response?.status);
  }

  /** Records the end of the request. */
  end(): void {
    if (this.#phase === "over") return;
    // No part of the response was sent: the metrics have no status.
    if (this.#phase === "handling") this.#endSpan(undefined);
    this.#phase = "over";
    if (this.#active !== undefined) meters?.active.add(-1, this.#active);
    meters?.sent.record(this.#bytes, this.#attributes);
  }

  /** @param sent The status that was sent, if any. */
  #endSpan(sent: number | undefined): void {
    this.#phase = "responding";
    if (this.#span !== undefined) this.#describeResponse(this.#span);
    this.#span?.end();
    if (sent !== undefined) this.#attributes["http.response.status_code"] = BigInt(sent);
    const route = this.#span?.[NOTED];
    if (route !== undefined) this.#attributes[ROUTE] = route;
    meters?.duration.record((performance.now() - this.#startedAt) / 1000, this.#attributes);
    meters?.received.record(this.#bodyLength, this.#attributes);
  }

  /** Sets each attribute once: Deno exports an attribute twice if it is set again. */
  #describeResponse(span: Span): void {
    if (this.#active === undefined) {
      span.setAttribute("http.request.method", this.#attributes["http.request.method"]);
    }
    if (this.#response === undefined) return;
    const { status, statusText } = this.#response;
    // A string, as Deno has it.
    span.setAttribute("http.response.status_code", String(status));
    if (status < 500) return;
    span.setAttribute("error.type", String(status));
    span.setStatus({ code: ERROR, message: statusText });
  }
}

/**
 * The span of a call to an application. It begins when the request is about to be sent, which may happen twice, and ends
 * with the response's body.
 */
export class CallTrace {
  #request: OutgoingRequest;
  #redactQuery: boolean;
  /** Calling: there is no response yet. Responding: its body has not ended. */
  #phase: "idle" | "calling" | "responding" | "over" = "idle";
  #span: Span | undefined;
  #fields: Fields = new Map();
  #response: { status: number; statusText: string } | undefined;
  /** How the body ended, if it has: it may end before the response is passed on. */
  #ended: { error: unknown } | undefined;

  constructor(request: OutgoingRequest, redactQuery = false) {
    this.#request = request;
    this.#redactQuery = redactQuery;
  }

  /** Begins the span, or repeats the call. Returns the header fields that make it the parent of the application's. */
  begin(): Fields {
    this.#ended = undefined;
    if (this.#phase !== "idle" || tracer === undefined) return this.#fields;
    this.#phase = "calling";
    const { method, url, headers } = this.#request;
    const header = (name: string) => headers.get(name) ?? undefined;
    const active: Context = contextManager.active();
    const parent = active.getValue(SPAN_KEY) === undefined
      ? api?.propagation?.extract(active, header, getter) ?? active
      : active;
    const span = this.#span = tracer.startSpan(method, { kind: CLIENT }, parent) as Span;
    span.setAttributes(describeRequest(method, url, this.#redactQuery));
    api?.propagation?.inject(parent.setValue(SPAN_KEY, span), this.#fields, setter);
    // Rule F18: it belongs to the trace that the request names, which may be another one than the app's.
    const isSameTrace = header("traceparent")?.split("-")[1] === span.spanContext().traceId;
    if (this.#fields.has("traceparent") && !isSameTrace) this.#fields.set("tracestate", null);
    return this.#fields;
  }

  /** Records the response, or a local redirect, which has no status. */
  responds(response?: { status: number; statusText: string }): void {
    if (this.#phase !== "calling") return;
    this.#phase = "responding";
    this.#response = response;
    if (this.#ended !== undefined || response === undefined) this.#end(this.#ended?.error);
  }

  /** Records that there is no response. */
  fails(error: unknown): void {
    if (this.#phase === "calling") this.#end(error);
  }

  /** Records that the response's body has ended, or why it ended early. */
  bodyEnds(error?: unknown): void {
    this.#ended ??= { error };
    if (this.#phase === "responding") this.#end(error);
  }

  #end(error: unknown): void {
    this.#phase = "over";
    const span = this.#span!;
    const status = this.#response?.status ?? 0;
    if (error !== undefined) {
      span.setStatus({ code: ERROR, message: (error as Error)?.message ?? String(error) });
    } else if (status >= 400) {
      span.setStatus({ code: ERROR, message: this.#response!.statusText });
    }
    // Each attribute once, as Deno exports an attribute twice if it is set again.
    span.setAttributes({
      ...(status > 0 ? { "http.response.status_code": String(status) } : {}),
      ...(status >= 400 ? { "error.type": String(status) } : {}),
      ...(error === undefined ? {} : describeError(error)),
    });
    span.end();
  }
}

/** Describes an error as `fetch()` does. */
function describeError(error: unknown): Record<string, unknown> {
  const { name = "Error", message, stack } = Object(error) as Partial<Error>;
  return {
    "error.type": name,
    "exception.type": name,
    ...(message === undefined ? {} : { "exception.message": message }),
    ...(stack === undefined ? {} : { "exception.stacktrace": stack }),
  };
}

/** Describes a request whose URL is known. */
function describeRequest(method: string, href: string, redactQuery: boolean) {
  // Not by URL, as the URL of a request is in its normal form.
  const schemeEnd = href.indexOf(":");
  const path = href.indexOf("/", schemeEnd + 3);
  const hash = href.indexOf("#", path);
  const end = hash < 0 ? href.length : hash;
  const mark = href.indexOf("?", path);
  const pathEnd = mark < 0 || mark > end ? end : mark;
  const given = href.slice(pathEnd + 1, end);
  const query = redactQuery ? redacted(given) : given;
  return {
    "http.request.method": method,
    "url.full": query === given ? href : href.slice(0, pathEnd + 1) + query,
    "url.scheme": href.slice(0, schemeEnd),
    "url.path": href.slice(path, pathEnd),
    "url.query": query,
  };
}

/** The methods of a span that set attributes. */
let setters: Pick<Span, "setAttribute" | "setAttributes"> | undefined;

/** Keeps the route that the app sets on a span, as attributes cannot be read. */
function noteRoute(span: Span): void {
  setters ??= { setAttribute: span.setAttribute, setAttributes: span.setAttributes };
  span.setAttribute = setAttribute;
  span.setAttributes = setAttributes;
}

function setAttribute(this: Span, name: string, value: unknown): Span {
  if (name === ROUTE) this[NOTED] = String(value);
  return setters!.setAttribute.call(this, name, value);
}

function setAttributes(this: Span, attributes: Record<string, unknown>): Span {
  const route = attributes?.[ROUTE];
  if (route !== undefined) this[NOTED] = String(route);
  return setters!.setAttributes.call(this, attributes);
}

/** Returns a query whose values are replaced. */
function redacted(query: string): string {
  if (query === "") return "";
  return query.split("&").map((pair) => pair.slice(0, pair.indexOf("=") + 1) + "REDACTED").join(
    "&",
  );
}

/** Why a worker was started in the place of another one. */
export type RestartReason =
  | "crash"
  | "start_timeout"
  | "worker_timeout"
  | "max_requests"
  | "max_memory"
  | "reload";

/**
 * Exports the number of workers and their restarts.
 *
 * @param count Returns the number of workers in each state.
 * @returns A function that counts a restart; undefined if no metrics are exported.
 */
export function observeWorkers(
  count: () => Record<string, number>,
): ((reason: RestartReason) => void) | undefined {
  if (api?.metrics !== meterProvider) return undefined;
  const meter = meterProvider.getMeter(SCOPE);
  meter.createObservableGauge("gatehouse.worker.count", {
    description: "Number of workers.",
    unit: "{worker}",
  }).addCallback((result: { observe(value: number, attributes: Attributes): void }) => {
    for (const [state, workers] of Object.entries(count())) {
      result.observe(workers, { "gatehouse.worker.state": state });
    }
  });
  const restarts = meter.createCounter("gatehouse.worker.restart.count", {
    description: "Number of workers that were started in the place of another one.",
    unit: "{restart}",
  });
  return (reason) => restarts.add(1, { "gatehouse.worker.restart.reason": reason });
}
