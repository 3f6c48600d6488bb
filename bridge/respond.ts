/**
 * App and request -> head and body, for any transport. Item numbers are SPEC's.
 *
 * @module
 */

import { CONNECTION_FIELDS, encodeHead, reasonPhrase } from "../wire/cgi.ts";
import { ProtocolError } from "../wire/protocol_error.ts";
import type { App, AppOptions, Handler } from "./app.ts";
import type { Exchange } from "./exchange.ts";
import {
  type HeldResponse,
  heldResponse,
  isBodyDecoded,
  markSent,
  readNative,
} from "./held_response.ts";
import { localRedirectPath } from "./local_redirect.ts";

/** The class as Deno has made it: an app or a test may replace the global one. */
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

/** Fields that speak of the connection to the web server, or that the head has already (B10). */
const DROPPED = new Set([...CONNECTION_FIELDS, "status"]);
/** Servers give up on longer header blocks, each at its own length; nginx's is the shortest (B14). */
const HEAD_WARNING = 4096;
const DIGITS = /^\d+$/;
/** How long a body that is held in memory may take to come, in turns of the microtask queue. */
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
  return errorResponse(error, request, exchange, options);
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
  const response = await errorResponse(error, request, exchange, options);
  try {
    return await sendResponse(response, exchange, sink);
  } catch (error) {
    exchange.log(describe(error));
    return await sendResponse(plainResponse(500), exchange, sink);
  }
}

/** The handler that an app is, or has. */
export function toHandler(app: App): Handler {
  return typeof app === "function" ? app : (request, info) => app.fetch(request, info);
}

/** An answer that says its status and no more. */
export function plainResponse(status: number): Response {
  return new Response(`${status} ${reasonPhrase(status)}\n`, {
    status,
    headers: { "content-type": "text/plain;charset=UTF-8" },
  });
}

/** A refused request's answer: what the transport itself refuses, no app asked. */
export function refuse(
  status: number,
  exchange: Exchange,
  sink: ResponseSink,
): Promise<boolean> {
  return sendResponse(plainResponse(status), exchange, sink);
}

/**
 * Refuses what cannot be sent.
 *
 * @throws {TypeError} If it is no `Response`, or its body was read.
 * @throws {RangeError} If its status is out of range, as that of `Response.error()` is.
 */
export function checkResponse(response: unknown): asserts response is Response {
  if (!(response instanceof Response)) {
    throw new TypeError(
      `Cannot send the app's answer as it must be a Response: current value is ${response}`,
    );
  }
  const status = readNative(response, "status");
  if (status < 200 || status > 599) {
    throw new RangeError(
      `Cannot send the app's answer as its status must be from 200 to 599: current value is ${status}`,
    );
  }
  if (readNative(response, "bodyUsed")) {
    throw new TypeError(
      "Cannot send the app's answer as its body must be unread: it was read or sent already. Return a clone to send it twice",
    );
  }
}

async function errorResponse(
  error: unknown,
  request: Request | undefined,
  exchange: Exchange,
  options: AppOptions,
): Promise<Response> {
  if (options.onError) {
    try {
      const response = await options.onError(error);
      checkResponse(response);
      return response;
    } catch (nested) {
      exchange.log(describe(error));
      error = nested;
    }
  }
  exchange.log(describe(error));
  if (exchange.variables.has("HTTP_UPGRADE")) {
    exchange.log(
      `The client requested an upgrade, which only HTTP carries: proxy this path to serveHTTP(), not over ${exchange.protocol}`,
    );
  }
  if (!options.debug) return plainResponse(500);
  const { debugPage } = await import("./debug_page.ts");
  return debugPage(error, describe(error), request, exchange.info());
}

/** An error as the log shows it. */
export function describe(error: unknown): string {
  return error instanceof Error ? error.stack ?? String(error) : String(error);
}

function sendResponse(
  response: Response,
  exchange: Exchange,
  sink: ResponseSink,
): Promise<boolean> {
  const held = heldResponse(response, exchange.protocol === "cgi");
  if (held !== undefined) return sendHeld(response, held, exchange, sink);
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
    if (!exchange.aborted) exchange.log(describe(error));
    exchange.settle("failed");
    return false;
  }
  exchange.settle("complete");
  return true;
}

/** Sends an answer whose body is held in memory: as the stream of it would be sent, but without one. */
function sendHeld(
  response: Response,
  held: HeldResponse,
  exchange: Exchange,
  sink: ResponseSink,
): Promise<boolean> {
  markSent(response);
  const { contentType } = held;
  let { body } = held;
  const short = typeof body === "string" && body.length < SHORT && !NOT_ASCII.test(body);
  if (typeof body === "string" && !short) body = encoder.encode(body);
  let head: string;
  let bodyless = exchange.method === "HEAD";
  // A long type is for encodeResponseHead() to warn of.
  if (contentType !== undefined && (contentType?.length ?? 0) < SHORT) {
    head = `${typeHead(contentType)}content-length: ${body.length}\r\n\r\n`;
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

/** The type that was sent last, and the beginning of its head: usually the next one as well. */
const lastType: { contentType: string | null; head: string } = { contentType: null, head: "" };

/** The beginning of the head of an answer with status 200 that has nothing but a type and a length. */
function typeHead(contentType: string | null): string {
  contentType ??= "application/octet-stream";
  if (contentType !== lastType.contentType) {
    lastType.head = encodeHead(200, "", [["content-type", contentType]]).slice(0, -2);
    lastType.contentType = contentType;
  }
  return lastType.head;
}

function isBodyless(response: Response, { method }: Exchange): boolean {
  const status = readNative(response, "status");
  return method === "HEAD" || status === 204 || status === 205 || status === 304;
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
    if (!exchange.aborted) exchange.log(describe(error));
    exchange.settle("failed");
    return false;
  }
}

/** A body read chunk by chunk, which can tell what is held in memory from what is still to come. */
class BodySource {
  /** The first chunk, if it is held in memory. */
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
   * Reads what is held in memory: the first chunk, and the end if it follows.
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

function declaredLength(response: Response): number | undefined {
  const text = readNative(response, "headers").get("content-length");
  return text !== null && DIGITS.test(text) && !isBodyDecoded(response) ? Number(text) : undefined;
}

/** An authorizer's variable: `Headers` has lost its capitals, and mod_fcgid does not restore them. */
function variableField(name: string): string {
  return "Variable-" + name.slice("variable-".length).toUpperCase();
}

/** @param known The body's length, where it is known better than the app may have declared it. */
function encodeResponseHead(
  response: Response,
  exchange: Exchange,
  hasBody: boolean,
  known: number | undefined,
): string {
  const status = readNative(response, "status");
  const fields: [string, string][] = [];
  let hasType = false;
  let hasLocation = false;
  let length: string | undefined;
  let decoded = false;
  readNative(response, "headers").forEach((value, name) => {
    if (DROPPED.has(name)) return;
    if (name === "content-encoding" && isBodyDecoded(response)) {
      decoded = true;
      return;
    }
    if (name === "content-length") {
      length = value;
      return;
    }
    if (name === "content-type") hasType = true;
    else if (name === "location") hasLocation = true;
    fields.push([name.startsWith("variable-") ? variableField(name) : name, value]);
  });
  if (decoded) length = undefined;
  if (hasBody && !hasType) fields.push(["content-type", "application/octet-stream"]);
  if (status !== 204 && status !== 205 && status !== 304 && known !== undefined) {
    if (length !== undefined && DIGITS.test(length) && Number(length) !== known) {
      exchange.log(
        `Content-Length was ${length}, but the body has ${known} bytes: sent as ${known}`,
      );
    }
    length = String(known);
  }
  if (length !== undefined && DIGITS.test(length) && status !== 204 && status !== 205) {
    fields.push(["content-length", length]);
  }
  if (status === 200 && hasLocation) {
    exchange.log("A response with status 200 has a Location: some servers take it for a redirect");
  }
  const head = encodeHead(status, readNative(response, "statusText"), fields);
  if (head.length > HEAD_WARNING) {
    exchange.log(
      `The response has ${head.length} bytes of headers: nginx refuses more than its fastcgi_buffer_size, 4096 or 8192`,
    );
  }
  return head;
}
