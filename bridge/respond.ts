/**
 * App and request -> head and body, for any transport. Rules are those of docs/protocols.md.
 *
 * @module
 */

import { ProtocolError } from "../wire/protocol_error.ts";
import type { App, AppOptions, Handler } from "./app.ts";
import {
  type BufferedResponse,
  bufferedResponse,
  markSent,
  readNative,
} from "./buffered_response.ts";
import { describeError, errorResponse, plainResponse } from "./error_response.ts";
import type { Exchange } from "./exchange.ts";
import { localRedirectPath } from "./local_redirect.ts";
import {
  checkResponse,
  declaredLength,
  encodePlainHead,
  encodeResponseHead,
  isBodyless,
} from "./response_head.ts";

/** The class as Deno created it: an app or a test may replace the global one. */
const { Response } = globalThis;

/** What takes an answer to the web server. */
export interface ResponseSink {
  /**
   * Sends the next part of the answer.
   *
   * @param head With the first part only: the header block, a byte string, and perhaps the beginning of the body.
   * @param chunk The next bytes of the body.
   * @param last Whether the answer ends here.
   * @returns A promise where the app must wait; it rejects, or the call throws, once the web server is gone.
   */
  send(head: string | null, chunk: Uint8Array | null, last: boolean): Promise<void> | void;
}

/** How long a body that is buffered in memory may take to come, in turns of the microtask queue. */
const SOON = 16;
const encoder = new TextEncoder();
/** Up to this length a text is sent without being encoded for itself. */
const SHORT = 1024;
// deno-lint-ignore no-control-regex
const NOT_ASCII = /[^\x00-\x7f]/;

/**
 * Asks the app and sends its answer.
 *
 * @returns Whether the answer was sent whole. If not, it broke off after its head, or the exchange was called off.
 */
export async function respond(
  handler: Handler,
  exchange: Exchange,
  sink: ResponseSink,
  options: AppOptions,
): Promise<boolean> {
  let response: Response;
  let request: Request | undefined;
  try {
    request = exchange.request();
    const answer = handler(request, exchange.info());
    response = answer instanceof Response ? answer : await answer;
  } catch (error) {
    if (exchange.aborted) return false;
    response = await failureResponse(error, request, exchange, options);
  }
  try {
    return await sendResponse(response, exchange, sink);
  } catch (error) {
    // Only what goes wrong before anything was sent is thrown.
    return await sendError(error, request, exchange, sink, options);
  }
}

/** The answer where the app has given none. */
function failureResponse(
  error: unknown,
  request: Request | undefined,
  exchange: Exchange,
  options: AppOptions,
): Response | Promise<Response> {
  if (error instanceof ProtocolError && (request === undefined || exchange.isBodyError(error))) {
    exchange.log(error.message);
    return plainResponse(error.status);
  }
  return errorResponse(error, request, exchange.info(), options, exchange.debugTools);
}

/** Sends another answer, since the app's cannot be sent. */
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
    exchange.debugTools,
  );
  try {
    return await sendResponse(response, exchange, sink);
  } catch (error) {
    exchange.log(describeError(error));
    return await sendResponse(plainResponse(500), exchange, sink);
  }
}

/** The handler that an app is, or has. */
export function toHandler(app: App): Handler {
  return typeof app === "function" ? app : (request, info) => app.fetch(request, info);
}

/** A refused request's answer: what the transport itself refuses, no app asked. */
export function refuse(
  status: number,
  exchange: Exchange,
  sink: ResponseSink,
): Promise<boolean> {
  return sendResponse(plainResponse(status), exchange, sink);
}

function sendResponse(
  response: Response,
  exchange: Exchange,
  sink: ResponseSink,
): Promise<boolean> {
  const buffered = bufferedResponse(response, exchange.protocol === "cgi");
  if (buffered !== undefined) return sendBuffered(response, buffered, exchange, sink);
  checkResponse(response);
  const path = localRedirectPath(response);
  // Such a head has this field and no other: with a status it would be the client's redirect.
  if (path !== undefined) return send(sink, `Location: ${path}\r\n\r\n`, null, exchange);
  const body = readNative(response, "body");
  if (body !== null) return sendStream(response, body, exchange, sink);
  const known = isBodyless(response, exchange) ? undefined : 0;
  return send(sink, encodeResponseHead(response, exchange, false, known), null, exchange);
}

async function sendStream(
  response: Response,
  body: ReadableStream<Uint8Array>,
  exchange: Exchange,
  sink: ResponseSink,
): Promise<boolean> {
  const bodyless = isBodyless(response, exchange);
  const source = new BodySource(body);
  exchange.onabort = (reason) => source.cancel(reason);
  await source.readAhead();
  let { chunk, last } = source;
  const declared = declaredLength(response);
  const known = last ? chunk?.length ?? 0 : undefined;
  let head: string | null;
  try {
    head = encodeResponseHead(
      response,
      exchange,
      true,
      bodyless && exchange.method !== "HEAD" ? undefined : known,
    );
  } catch (error) {
    source.cancel(error);
    throw error;
  }
  if (bodyless) {
    source.cancel();
    return send(sink, head, null, exchange);
  }
  let left = known ?? declared ?? Infinity;
  try {
    while (true) {
      if (exchange.aborted) throw exchange.signal.reason;
      if (chunk && chunk.length > left) {
        exchange.log(
          `The body is longer than its Content-Length of ${declared}: the rest is left out`,
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
      if (sent !== undefined) await sent;
      head = null;
      if (last) break;
      do {
        const { done, value } = await source.read();
        last = done;
        chunk = done ? null : nonEmpty(value);
      } while (chunk === null && !last);
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

/** Sends an answer whose body is buffered in memory: as the stream of it would be sent, but without one. */
function sendBuffered(
  response: Response,
  buffered: BufferedResponse,
  exchange: Exchange,
  sink: ResponseSink,
): Promise<boolean> {
  markSent(response);
  const { contentType } = buffered;
  let { body } = buffered;
  const short = typeof body === "string" && body.length < SHORT && !NOT_ASCII.test(body);
  if (typeof body === "string" && !short) body = encoder.encode(body);
  let head: string;
  let bodyless = exchange.method === "HEAD";
  // A long type is for encodeResponseHead() to warn of.
  if (contentType !== undefined && (contentType?.length ?? 0) < SHORT) {
    head = encodePlainHead(contentType, body.length);
  } else {
    bodyless = isBodyless(response, exchange);
    const known = bodyless && exchange.method !== "HEAD" ? undefined : body.length;
    head = encodeResponseHead(response, exchange, true, known);
  }
  if (bodyless || body.length === 0) return send(sink, head, null, exchange);
  // A short text goes with the head, as the byte string that it is.
  return typeof body === "string"
    ? send(sink, head + body, null, exchange)
    : send(sink, head, body, exchange);
}

/** Sends an answer that is whole. */
async function send(
  sink: ResponseSink,
  head: string,
  chunk: Uint8Array | null,
  exchange: Exchange,
): Promise<boolean> {
  try {
    const sent = sink.send(head, chunk, true);
    if (sent !== undefined) await sent;
    exchange.settle("complete");
    return true;
  } catch (error) {
    if (!exchange.aborted) exchange.log(describeError(error));
    exchange.settle("failed");
    return false;
  }
}

/** A body read chunk by chunk, which can tell what is buffered in memory from what is still to come. */
class BodySource {
  /** The first chunk, if it is buffered in memory. */
  chunk: Uint8Array | null = null;
  /** Whether that, or nothing, is all of the body. */
  last = false;
  #reader: ReadableStreamDefaultReader<Uint8Array>;
  /** A read that was begun and not taken. */
  #pending: Promise<ReadableStreamReadResult<Uint8Array>> | null = null;

  constructor(body: ReadableStream<Uint8Array>) {
    this.#reader = body.getReader();
  }

  /** Tells the app that nobody wants the rest. */
  cancel(reason?: unknown): void {
    this.#reader.cancel(reason).catch(() => {});
  }

  /**
   * Reads what is buffered in memory: the first chunk, and the end if it follows.
   *
   * @throws What the body fails with.
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
      } else {
        return;
      }
      this.#pending = null;
    }
  }

  /** The next chunk; the one that was being read ahead comes first. */
  read(): Promise<ReadableStreamReadResult<Uint8Array>> {
    const pending = this.#pending ?? this.#reader.read();
    this.#pending = null;
    return pending;
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
