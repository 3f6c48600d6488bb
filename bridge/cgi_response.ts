/**
 * What an application writes (a header block and a body) -> `Response`. Item numbers are SPEC's.
 *
 * @module
 */

import { CONNECTION_FIELDS, HeadDecoder, type ResponseHead } from "../wire/cgi.ts";
import { ProtocolError } from "../wire/protocol_error.ts";
import { ChunkedDecoder } from "./chunked.ts";

/** The path of another resource whose answer is to be sent instead (RFC 3875 section 6.2.2). */
export interface LocalRedirect {
  /** Path and query. */
  location: string;
}

/** What an application answers. */
export type Answer = Response | LocalRedirect;

/** What the reader of an answer is told. */
export interface AnswerOptions {
  /** The method of the request: HEAD has no body. */
  method: string;
  /** How many bytes the header block may have; past it, 502. */
  maxHeaderBytes: number;
  /** Called when nobody reads the body any more. */
  oncancel(reason: unknown): void;
  /** Called when the body is as long as it was said to be: the client has its answer, and sends no more. */
  onwhole(): void;
  /** Writes a line to the log. */
  log(message: string): void;
}

/** Fields that speak of the connection to the application (B10). */
const HOP_BY_HOP = new Set([...CONNECTION_FIELDS, "proxy-authenticate"]);
/** CGI fields (RFC 3875 section 6.3): one at least, none twice. */
const CGI_FIELDS = new Set(["content-type", "location"]);
/** How much of a body waits for the client before the application is read no further, in bytes. */
const HIGH_WATER = 65536;
/** How much is read that no client gets before the application is stopped, in bytes. */
const MAX_DROPPED = 1_048_576;

/** An answer in the making: takes what the application writes, in any pieces. */
export class AnswerReader {
  /** The answer, once its header block is whole. */
  readonly answer: Promise<Answer>;
  /** Whether the header block is whole. */
  begun = false;
  /** Whether nothing more is taken. */
  ended = false;
  /** Whether the client has, or will have, all that the answer is. */
  get answered(): boolean {
    return this.ended || this.begun && this.#controller === null;
  }
  #options: AnswerOptions;
  #settle = Promise.withResolvers<Answer>();
  #decoder: HeadDecoder;
  /** Where the script parses no headers, and sends chunks. */
  #chunks: ChunkedDecoder | null = null;
  #controller: ReadableStreamDefaultController<Uint8Array<ArrayBuffer>> | null = null;
  #room: (() => void) | null = null;
  /** How many bytes of the body are still to come, if it was told. */
  #left: number | undefined;
  #dropped = 0;

  /** @param options What it is an answer to. */
  constructor(options: AnswerOptions) {
    this.#options = options;
    this.#decoder = new HeadDecoder(options.maxHeaderBytes);
    this.answer = this.#settle.promise;
    this.answer.catch(() => {});
  }

  /**
   * Takes the next bytes, and keeps them.
   *
   * @throws {ProtocolError} If the header block is none (status 502).
   */
  push(bytes: Uint8Array<ArrayBuffer>): void {
    if (this.ended) return this.#drop(bytes);
    if (this.begun) return this.#pushContent(bytes);
    const decoded = this.#decoder.push(bytes);
    if (decoded === null) return;
    this.#begin(decoded.head);
    this.#pushContent(decoded.rest as Uint8Array<ArrayBuffer>);
  }

  #pushContent(bytes: Uint8Array<ArrayBuffer>): void {
    if (this.#chunks === null) return this.#pushBody(bytes);
    for (const content of this.#chunks.push(bytes)) this.#pushBody(content);
  }

  /** A promise if the client has not taken what came so far: it resolves when more may come. */
  room(): Promise<void> | void {
    if (this.ended || this.#controller === null || this.#controller.desiredSize! > 0) return;
    return new Promise<void>((resolve) => this.#room = resolve);
  }

  /**
   * The application has written all.
   *
   * @throws {ProtocolError} If the header block is not whole (status 502).
   */
  end(): void {
    if (this.ended) return;
    if (!this.begun) this.#decoder.end();
    if (this.#controller && this.#left) {
      return this.fail(
        new Error(`The body is ${this.#left} bytes shorter than its Content-Length`),
      );
    }
    if (this.#chunks?.ended === false && this.#controller) {
      return this.fail(new Error("The body has no last chunk"));
    }
    this.ended = true;
    this.#controller?.close();
  }

  /** The application, or the way to it, broke off. A body that has come whole stays whole. */
  fail(error: unknown): void {
    if (this.ended) return;
    this.ended = true;
    this.#settle.reject(error);
    this.#controller?.error(error);
    this.#room?.();
  }

  #begin(head: ResponseHead): void {
    const { fields, nonParsed } = head;
    const headers = createHeaders(fields);
    const location = headers.get("location");
    if (head.status === undefined && location === null && !headers.has("content-type")) {
      throw new ProtocolError(
        "Cannot take the answer as it must have Content-Type, Location or Status: it has none",
        502,
      );
    }
    this.begun = true;
    if (nonParsed && fields.some(isChunked)) {
      this.#chunks = new ChunkedDecoder();
      headers.delete("content-length");
    }
    if (head.status === undefined && location?.startsWith("/") && !nonParsed) {
      return this.#settle.resolve({ location });
    }
    const status = head.status ?? (location === null ? 200 : 302);
    const init = {
      status,
      statusText: head.reason.replace(/[^\t\x20-\x7e\x80-\xff]/g, ""),
      headers,
    };
    const empty = status === 204 || status === 205 || status === 304;
    if (empty && status !== 304) headers.delete("content-length");
    if (empty || this.#options.method === "HEAD") {
      return this.#settle.resolve(new Response(null, init));
    }
    const length = headers.get("content-length");
    if (length !== null) this.#left = Number(length);
    if (this.#left === 0) {
      this.ended = true;
      this.#settle.resolve(new Response(null, init));
      return this.#options.onwhole();
    }
    const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
      start: (controller) => {
        this.#controller = controller;
      },
      pull: () => this.#room?.(),
      cancel: (reason) => {
        if (this.ended) return;
        this.ended = true;
        this.#room?.();
        this.#options.oncancel(reason);
      },
    }, new ByteLengthQueuingStrategy({ highWaterMark: HIGH_WATER }));
    this.#settle.resolve(new Response(body, init));
  }

  #pushBody(bytes: Uint8Array<ArrayBuffer>): void {
    const controller = this.#controller;
    if (bytes.length === 0) return;
    if (controller === null) return this.#drop(bytes);
    const chunk = bytes.subarray(0, this.#left);
    controller.enqueue(chunk);
    if (this.#left === undefined) return;
    this.#left -= chunk.length;
    if (this.#left > 0) return;
    this.end();
    this.#options.onwhole();
    this.#drop(bytes.subarray(chunk.length));
  }

  /** Takes what no client gets: the body of HEAD, or what comes after a whole one. */
  #drop(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    if (this.#left === 0 && this.#dropped === 0) {
      this.#options.log("The body is longer than its Content-Length: the rest is left out");
    }
    this.#dropped += bytes.length;
    if (this.#dropped > MAX_DROPPED) this.#options.oncancel(new Error("Nobody wants the body"));
  }
}

/** Makes headers of fields: hop-by-hop ones left out, and those that must be unique found to be so. */
function createHeaders(fields: [name: string, value: string][]): Headers {
  const headers = new Headers();
  const dropped = new Set(HOP_BY_HOP);
  for (const [name, value] of fields) {
    if (name.toLowerCase() !== "connection") continue;
    for (const named of value.split(",")) dropped.add(named.trim().toLowerCase());
  }
  for (const [name, value] of fields) {
    const field = name.toLowerCase();
    if (dropped.has(field)) continue;
    const unique = CGI_FIELDS.has(field) || field === "content-length";
    if (unique && headers.has(field) && headers.get(field) !== value) {
      throw new ProtocolError(
        `Cannot take the answer as it must have one ${name}: it has several`,
        502,
      );
    }
    if (field === "content-length" && !isLength(value)) {
      throw new ProtocolError(
        `Cannot take the answer as its Content-Length must be a whole number: current value is ${
          JSON.stringify(value)
        }`,
        502,
      );
    }
    if (!unique || !headers.has(field)) headers.append(field, value);
  }
  return headers;
}

function isChunked([name, value]: [name: string, value: string]): boolean {
  return name.toLowerCase() === "transfer-encoding" && /\bchunked\s*$/i.test(value);
}

function isLength(text: string): boolean {
  return /^\d+$/.test(text) && Number.isSafeInteger(Number(text));
}
