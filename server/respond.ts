/**
 * App and request -> head and body, for any transport. Rules are those of docs/protocols.md.
 *
 * @module
 */

import { concat, isASCII } from "../wire/byte_string.ts";
import { isProtocolError } from "../wire/protocol_error.ts";
import type { App, AppOptions, Handler } from "../bridge/app.ts";
import {
  type BufferedResponse,
  bufferedResponse,
  FIRST_PART,
  markSent,
  readNative,
  TRACED,
} from "../io/private_fields.ts";
import { cancelSoon } from "../io/cancel_soon.ts";
import { describeError } from "../io/describe.ts";
import { errorResponse } from "./error_response.ts";
import { plainResponse } from "../bridge/plain_response.ts";
import type { Exchange } from "./exchange.ts";
import { localRedirectPath } from "./local_redirect.ts";
import {
  checkResponse,
  declaredLength,
  encodePlainHead,
  encodeResponseHead,
  isBodyless,
} from "./response_head.ts";

/** Deno's own class: an app or a test may replace the global one. */
const { Response } = globalThis;

/** The transport, which sends a response to the web server. */
export interface ResponseSink {
  /**
   * Sends the next part of the response.
   *
   * @param head In the first call, the header block as a byte string, with the body appended if it is a short text.
   * Null in later calls.
   * @param chunk The next bytes of the body.
   * @param last Whether the response ends here.
   * @returns A promise if so many bytes are pending that the app must wait.
   * @throws If the web server has closed the connection or aborted the request. The promise rejects then, too.
   */
  send(head: string | null, chunk: Uint8Array | null, last: boolean): Promise<void> | void;
}

/** How many turns of the microtask queue the read of a body that is in memory may take. */
const SOON = 16;
const encoder = new TextEncoder();
const EMPTY = new Uint8Array();
/** When a client may repeat a request for which there was no memory, in seconds. */
const RETRY_AFTER = 5;
/** The length below which an ASCII text is sent with the head, without a TextEncoder. */
const SHORT = 1024;

/**
 * Calls the app and sends its response.
 *
 * @returns Whether the response was sent completely. If not, it failed after its head, or the exchange was aborted.
 */
export function respond(
  handler: Handler,
  exchange: Exchange,
  sink: ResponseSink,
  options: AppOptions,
): Promise<boolean> {
  if (!TRACED) return callApp(handler, exchange, sink, options);
  return tracing === undefined
    ? respondTraced(handler, exchange, sink, options)
    : callTraced(tracing, handler, exchange, sink, options);
}

let tracing: typeof import("./trace.ts") | undefined;

/** Does the same in the context of a span. */
async function respondTraced(
  handler: Handler,
  exchange: Exchange,
  sink: ResponseSink,
  options: AppOptions,
): Promise<boolean> {
  tracing ??= await import("./trace.ts");
  return callTraced(tracing, handler, exchange, sink, options);
}

function callTraced(
  { startTrace }: typeof import("./trace.ts"),
  handler: Handler,
  exchange: Exchange,
  sink: ResponseSink,
  options: AppOptions,
): Promise<boolean> {
  const trace = startTrace(exchange.variables);
  if (trace === null) return callApp(handler, exchange, sink, options);
  exchange.trace = trace;
  const responding = trace.run(() => callApp(handler, exchange, sink, options));
  const end = () => trace.end();
  responding.then(end, end);
  return responding;
}

async function callApp(
  handler: Handler,
  exchange: Exchange,
  sink: ResponseSink,
  options: AppOptions,
): Promise<boolean> {
  let response: Response;
  let request: Request | undefined;
  try {
    request = exchange.request();
    const returned = handler(request, exchange.info());
    response = returned instanceof Response ? returned : await returned;
  } catch (error) {
    if (exchange.aborted || exchange.expired) return dropError(error, exchange);
    response = await failureResponse(error, request, exchange, options);
  }
  if (exchange.expired) return dropResponse(response, exchange);
  try {
    return await sendResponse(response, exchange, sink);
  } catch (error) {
    // sendResponse() throws only before it has sent anything.
    return await sendError(error, request, exchange, sink, options);
  } finally {
    exchange.settle("failed");
  }
}

/** Creates the response if the app throws or the request cannot be created. */
function failureResponse(
  error: unknown,
  request: Request | undefined,
  exchange: Exchange,
  options: AppOptions,
): Response | Promise<Response> {
  if ((request === undefined || exchange.isBodyError(error)) && isProtocolError(error)) {
    exchange.log(error.message);
    return plainResponse(error.status, error.status === 503 ? RETRY_AFTER : undefined);
  }
  return errorResponse(error, request, exchange.info(), options, exchange.debug);
}

/** Sends an error response in place of a response that cannot be sent. */
async function sendError(
  error: unknown,
  request: Request | undefined,
  exchange: Exchange,
  sink: ResponseSink,
  options: AppOptions,
): Promise<boolean> {
  if (exchange.aborted) return false;
  const response = await errorResponse(
    error,
    request,
    exchange.info(),
    options,
    exchange.debug,
  );
  if (exchange.expired) return dropResponse(response, exchange);
  try {
    return await sendResponse(response, exchange, sink);
  } catch (error) {
    exchange.log(describeError(error));
    return await sendResponse(plainResponse(500), exchange, sink);
  }
}

/** Returns the handler of an app. */
export function toHandler(app: App): Handler {
  return typeof app === "function" ? app : (request, info) => app.fetch(request, info);
}

/** Responds to a request that the transport refuses, without calling the app. */
export function refuse(
  status: number,
  exchange: Exchange,
  sink: ResponseSink,
): Promise<boolean> {
  return sendResponse(plainResponse(status), exchange, sink);
}

/** Drops the response of an app that has taken too long. @returns True, as another response was sent. */
function dropResponse(response: Response, exchange: Exchange): true {
  // An app without types may return anything.
  const body = response instanceof Response ? readNative(response, "body") : null;
  if (body?.locked === false) cancelSoon(body, exchange.signal.reason);
  return true;
}

/**
 * Drops the error of an app whose client has left or got another response.
 *
 * @returns Whether a response was sent.
 */
function dropError(error: unknown, exchange: Exchange): boolean {
  if (exchange.expired && !exchange.isReason(error)) exchange.log(describeError(error));
  return exchange.expired;
}

function sendResponse(
  response: Response,
  exchange: Exchange,
  sink: ResponseSink,
): Promise<boolean> {
  const buffered = bufferedResponse(response, exchange.protocol === "cgi");
  if (buffered === undefined) checkResponse(response);
  exchange.responds(response);
  if (buffered !== undefined) return sendBuffered(response, buffered, exchange, sink);
  const path = localRedirectPath(response);
  const status = readNative(response, "status");
  // The head has no other field: with a status it would redirect the client instead (rule B6).
  if (path !== undefined) return send(sink, exchange, status, `Location: ${path}\r\n\r\n`);
  const body = readNative(response, "body");
  if (body !== null) return sendStream(response, status, body, exchange, sink);
  const known = isBodyless(status, exchange) ? undefined : 0;
  return send(sink, exchange, status, encodeResponseHead(response, exchange, false, known));
}

async function sendStream(
  response: Response,
  status: number,
  body: ReadableStream<Uint8Array>,
  exchange: Exchange,
  sink: ResponseSink,
): Promise<boolean> {
  const bodyless = isBodyless(status, exchange);
  const source = new BodySource(body);
  exchange.onabort = (reason) => source.cancel(reason);
  const declared = declaredLength(response);
  let head: string | null;
  try {
    await source.readAhead();
    const length = bodyless && exchange.method !== "HEAD" ? undefined : source.length;
    head = encodeResponseHead(response, exchange, true, length, source.whole);
  } catch (error) {
    source.cancel(error);
    throw error;
  }
  if (bodyless) {
    source.cancel();
    return send(sink, exchange, status, head);
  }
  let { chunk, last } = source;
  let left = source.length ?? declared ?? Infinity;
  try {
    while (true) {
      if (exchange.aborted) throw exchange.signal.reason;
      if (chunk && chunk.length > left) {
        exchange.log(
          `The body is longer than its Content-Length of ${declared}: the rest is dropped`,
        );
        chunk = chunk.subarray(0, left);
        last = true;
        source.cancel();
      }
      if (chunk) left -= chunk.length;
      if (last && left > 0 && left !== Infinity) {
        throw new Error(`The body is ${left} bytes shorter than its Content-Length of ${declared}`);
      }
      const sent = sink.send(head, chunk, last);
      exchange.sent(status, chunk?.length ?? 0);
      if (sent !== undefined) await sent;
      head = null;
      if (last) break;
      chunk = await source.read();
      last = chunk === null;
    }
  } catch (error) {
    source.cancel(error);
    if (!exchange.aborted) exchange.log(describeError(error));
    exchange.settle("failed");
    return false;
  }
  exchange.settle("complete");
  return true;
}

/** Sends a response whose body is in memory: the same bytes as {@linkcode sendStream}, without creating the stream. */
function sendBuffered(
  response: Response,
  buffered: BufferedResponse,
  exchange: Exchange,
  sink: ResponseSink,
): Promise<boolean> {
  markSent(response);
  const { contentType } = buffered;
  let { body } = buffered;
  const short = typeof body === "string" && body.length < SHORT && isASCII(body);
  if (typeof body === "string" && !short) body = encoder.encode(body);
  let head: string;
  let status = 200;
  let bodyless = exchange.method === "HEAD";
  // encodeResponseHead() logs a warning of a long type.
  const plain = contentType !== undefined && (contentType?.length ?? 0) < SHORT;
  if (plain && !(bodyless && body.length === 0)) {
    head = encodePlainHead(contentType, body);
  } else {
    status = readNative(response, "status");
    bodyless = isBodyless(status, exchange);
    const known = bodyless && exchange.method !== "HEAD" ? undefined : body.length;
    head = encodeResponseHead(response, exchange, true, known, body);
  }
  if (bodyless || body.length === 0) return send(sink, exchange, status, head);
  // A short ASCII text is a byte string, so it can be sent with the head.
  return send(sink, exchange, status, head, body);
}

/**
 * Sends a complete response in one part.
 *
 * @param body As bytes, or as a byte string.
 */
async function send(
  sink: ResponseSink,
  exchange: Exchange,
  status: number,
  head: string,
  body: Uint8Array | string = "",
): Promise<boolean> {
  try {
    const sent = typeof body === "string"
      ? sink.send(head + body, null, true)
      : sink.send(head, body, true);
    exchange.sent(status, body.length);
    if (sent !== undefined) await sent;
    exchange.settle("complete");
    return true;
  } catch (error) {
    if (!exchange.aborted) exchange.log(describeError(error));
    exchange.settle("failed");
    return false;
  }
}

/** Reads a body chunk by chunk, and finds out whether all of it is in memory. */
class BodySource {
  /** The first chunk, if it is in memory. */
  chunk: Uint8Array | null = null;
  /** Whether the body has no more than that chunk. */
  last = false;
  #reader: ReadableStreamDefaultReader<Uint8Array>;
  /** A read that has begun and whose result was not used. */
  #pending: Promise<ReadableStreamReadResult<Uint8Array>> | null = null;

  constructor(body: ReadableStream<Uint8Array>) {
    this.#reader = body.getReader();
  }

  /** The body, if all of it is in memory. */
  get whole(): Uint8Array | undefined {
    return this.last ? this.chunk ?? EMPTY : undefined;
  }

  /** The length of the body, if all of it is in memory. */
  get length(): number | undefined {
    return this.whole?.length;
  }

  /** Cancels the rest of the body. */
  cancel(reason?: unknown): void {
    cancelSoon(this.#reader, reason);
  }

  /**
   * Reads the first chunk, and the end if it follows, as far as they are in memory.
   *
   * @throws The error of the body.
   */
  async readAhead(): Promise<void> {
    while (!this.last) {
      let settled = false;
      const settle = () => {
        settled = true;
      };
      this.#pending = this.#reader.read();
      this.#pending.then(settle, settle);
      for (let turn = 0; turn < SOON && !settled; turn++) await null;
      if (!settled) return;
      const { done, value } = await this.#pending;
      if (done) {
        this.last = true;
      } else if (this.chunk === null) {
        this.chunk = nonEmpty(value);
      } else if (this.chunk.length === FIRST_PART) {
        this.chunk = concat([this.chunk, value]);
      } else {
        return;
      }
      this.#pending = null;
    }
  }

  /** Reads the next chunk that is not empty, beginning with one that {@linkcode readAhead} has begun to read; null at the end. */
  async read(): Promise<Uint8Array | null> {
    while (true) {
      const { done, value } = await (this.#pending ?? this.#reader.read());
      this.#pending = null;
      if (done) return null;
      const chunk = nonEmpty(value);
      if (chunk !== null) return chunk;
    }
  }
}

function nonEmpty(chunk: unknown): Uint8Array | null {
  if (!(chunk instanceof Uint8Array)) {
    throw new TypeError(
      `Cannot send the body as its chunks must be Uint8Array: one is of type ${typeof chunk}`,
    );
  }
  return chunk.length > 0 ? chunk : null;
}
