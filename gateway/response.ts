/**
 * The bytes that an application writes (a header block and a body) -> `Response`. Rules are those of docs/protocols.md.
 *
 * @module
 */

import { concat } from "../wire/byte_string.ts";
import { ChunkedDecoder } from "../wire/chunked.ts";
import { CONNECTION_FIELDS, HeadDecoder, type ResponseHead } from "../wire/cgi.ts";
import { ProtocolError } from "../wire/protocol_error.ts";

/** A local redirect: the client gets the response of another path (RFC 3875 section 6.2.2). */
export interface LocalRedirect {
  /** Path and query. */
  location: string;
}

/** A file that the application names in place of a body (B24). */
export interface NamedFile {
  /** The field that names it, in lower case. */
  field: "x-accel-redirect" | "x-sendfile";
  /** Its value, a byte string. */
  value: string;
  /** The fields of the application that the client gets. The names are in lower case. */
  fields: [name: string, value: string][];
}

/** The response of an application. */
export type ApplicationResponse = Response | LocalRedirect | NamedFile;

/** Options of {@linkcode ResponseReader}. */
export interface ResponseReaderOptions {
  /** The method of the request: a response to HEAD has no body. */
  method: string;
  /** The maximum size of the header block, in bytes. Beyond it reading fails with status 502. */
  maxHeaderBytes: number;
  /** Whether the application may name a file in place of a body. */
  namesFiles?: boolean;
  /** Called when the client cancels the body. */
  oncancel(reason: unknown): void;
  /** Called when the body has all of its declared bytes. The rest of the request's body need not be sent. */
  oncomplete(): void;
  /** Called when the response has ended for the client, with the error if it was truncated. */
  onended?: (error?: unknown) => void;
  /** Writes a line to the log. */
  log(message: string): void;
}

/** Fields that apply to the connection to the application only (B10). */
const HOP_BY_HOP = new Set([...CONNECTION_FIELDS, "proxy-authenticate"]);
/** Fields that must not have two values (RFC 3875 section 6.3). Of Content-Type the last value counts, as in web servers. */
const UNIQUE = ["location", "content-length"];
/** Fields that name a file (B24). */
const FILE_FIELDS = ["x-accel-redirect", "x-sendfile"] as const;
/** Fields of the application that the client gets with a file, as from nginx (B24). */
const KEPT_WITH_FILE = [
  "cache-control",
  "content-disposition",
  "content-type",
  "expires",
  "set-cookie",
];
/** The number of unread bytes of a body at which reading from the application pauses. */
const HIGH_WATER = 32_768;
/** How long {@linkcode ResponseReader.flushSoon} waits for the end of the response, in milliseconds. */
const FLUSH_DELAY = 2;
/** The maximum number of bytes that wait meanwhile. */
const MAX_DELAYED = 16_384;
/** The number of bytes beyond its declared length that are read before the request is aborted. */
const MAX_SURPLUS = 1_048_576;

/** Reads a response from the bytes that an application writes, in chunks of any size. */
export class ResponseReader {
  /** The response, once its header block is complete. */
  readonly response: Promise<ApplicationResponse>;
  /**
   * "pending": the header block is complete, and so may the body be with the bytes of this read. "body": the client
   * reads a stream. "bodyless": the response is settled without a body, though the application may write one.
   */
  #phase: "head" | "pending" | "body" | "bodyless" | "complete" | "failed" = "head";
  #options: ResponseReaderOptions;
  #settle = Promise.withResolvers<ApplicationResponse>();
  #decoder: HeadDecoder;
  /** Decodes the chunked coding that an NPH script may use, and that others use although they must not (B10, B21). */
  #chunks: ChunkedDecoder | null = null;
  #init!: ResponseInit;
  #fields!: Fields;
  /** Bytes of the body that are not yet chunks of the stream. */
  #pending: Uint8Array<ArrayBuffer>[] = [];
  /** Chunks that the client has not read. */
  #unread: Uint8Array<ArrayBuffer>[] = [];
  #unreadBytes = 0;
  #flushing: ReturnType<typeof setTimeout> | undefined;
  #controller!: ReadableStreamDefaultController<Uint8Array<ArrayBuffer>>;
  /** Whether the client waits for bytes. */
  #wanted = false;
  #room: (() => void) | null = null;
  /** How many bytes of the body are still to come, if its length was declared. */
  #left: number | undefined;
  #surplus = 0;

  /** @param options The request's method, limits and callbacks. */
  constructor(options: ResponseReaderOptions) {
    this.#options = options;
    this.#decoder = new HeadDecoder(options.maxHeaderBytes);
    this.response = this.#settle.promise;
    this.response.catch(() => {});
  }

  /** Whether the header block is complete. */
  get begun(): boolean {
    return this.#phase !== "head";
  }

  /** Whether the client gets the whole response, whatever the application still does. */
  get complete(): boolean {
    return this.#phase !== "head" && this.#phase !== "pending" && this.#phase !== "body";
  }

  /** Whether the response is complete or has failed, so that no more bytes are needed. */
  get ended(): boolean {
    return this.#phase === "complete" || this.#phase === "failed";
  }

  /**
   * Decodes the next bytes. They must not change until {@linkcode flush} or {@linkcode flushSoon} is called.
   *
   * @throws {ProtocolError} If the header block or chunked coding is invalid (status 502).
   */
  push(bytes: Uint8Array<ArrayBuffer>): void {
    if (this.#phase !== "head") return this.#pushContent(bytes);
    const decoded = this.#decoder.push(bytes);
    if (decoded === null) return;
    this.#begin(decoded.head);
    this.#pushContent(decoded.rest as Uint8Array<ArrayBuffer>);
  }

  #pushContent(bytes: Uint8Array<ArrayBuffer>): void {
    if (this.#phase !== "pending" && this.#phase !== "body") return this.#drop(bytes);
    if (this.#chunks === null) return this.#pushBody(bytes);
    for (const content of this.#chunks.push(bytes)) this.#pushBody(content);
  }

  /** Passes the bytes so far on to the client. To be called after all bytes of a read. */
  flush(): void {
    if (this.#phase === "pending") this.#stream();
    if (this.#phase !== "body" || this.#pending.length === 0) return;
    // One chunk for all records of a read.
    const chunk = concat(this.#pending);
    triggerScavenge();
    this.#pending = [];
    if (this.#wanted) {
      this.#wanted = false;
      this.#controller.enqueue(chunk);
    } else {
      this.#unread.push(chunk);
      this.#unreadBytes += chunk.length;
    }
  }

  /**
   * Passes the bytes so far on to the client within a few milliseconds. To be called instead of {@linkcode flush} if the
   * application ends a response by closing: it usually closes at once, and the response then needs no stream.
   */
  flushSoon(): void {
    if (this.#phase !== "pending") return this.flush();
    // The bytes are valid until the next read.
    const bytes = concat(this.#pending);
    this.#pending = bytes.length > 0 ? [bytes] : [];
    if (bytes.length > MAX_DELAYED) this.flush();
    else this.#flushing ??= setTimeout(() => this.flush(), FLUSH_DELAY);
  }

  /** Returns a promise if the client has many bytes left to read. It resolves when it has read enough of them. */
  room(): Promise<void> | void {
    if (this.#phase !== "body" || this.#unreadBytes < HIGH_WATER) return;
    return new Promise<void>((resolve) => this.#room = resolve);
  }

  /**
   * Ends the response: the application has written everything.
   *
   * @throws {ProtocolError} If the header block is not complete (status 502).
   */
  end(): void {
    if (this.ended) return;
    if (this.#phase === "head") this.#decoder.end();
    if (this.#phase === "pending" || this.#phase === "body") {
      if (this.#left) {
        return this.#truncate(`The body is ${this.#left} bytes shorter than its Content-Length`);
      }
      if (this.#chunks?.ended === false) return this.#truncate("The body has no last chunk");
      // A body that arrived whole with its header block. A stream would cost more than the rest.
      if (this.#phase === "pending") {
        this.#respond(concat(this.#pending));
      } else {
        this.flush();
        for (const chunk of this.#unread) this.#controller.enqueue(chunk);
        this.#controller.close();
        this.#options.onended?.();
      }
    }
    this.#phase = "complete";
  }

  /** Fails the response, unless it is complete: the application or the connection to it failed. */
  fail(error: unknown): void {
    if (this.ended) return;
    this.flush();
    // If the client has left, Deno.serve cancels the body in this turn. Without the delay it would print the error.
    if (this.#phase === "body") setTimeout(() => this.#controller.error(error));
    this.#phase = "failed";
    this.#options.onended?.(error);
    this.#settle.reject(error);
    this.#room?.();
  }

  #truncate(message: string): void {
    this.#options.log(message);
    this.fail(new Error(message));
  }

  #begin(head: ResponseHead): void {
    const { nonParsed } = head;
    const fields = new Fields(head.fields);
    this.#fields = fields;
    const location = fields.get("location");
    if (head.dropped.length > 0) {
      this.#options.log(
        `Dropped ${head.dropped.length} of the response's header lines, as a name must be a token: the first is ${
          JSON.stringify(head.dropped[0].slice(0, 80))
        }`,
      );
    }
    if (head.status === undefined && fields.size === 0) {
      throw new ProtocolError(
        "Cannot read response: it has no header fields",
        502,
      );
    }
    this.#phase = "bodyless";
    const field = this.#options.namesFiles && FILE_FIELDS.find((name) => fields.get(name) !== null);
    if (field) {
      const value = fields.get(field)!;
      return this.#settle.resolve({ field, value, fields: fields.only(KEPT_WITH_FILE) });
    }
    const chunked = head.fields.some(isChunked);
    if (chunked && (nonParsed || fields.get("content-length") === null)) {
      this.#chunks = new ChunkedDecoder();
      fields.delete("content-length");
    } else if (chunked) {
      this.#options.log(
        "The response has both Transfer-Encoding and Content-Length: the length counts",
      );
    }
    if (head.status === undefined && location?.startsWith("/") && !nonParsed) {
      return this.#settle.resolve({ location });
    }
    const status = head.status ?? (location === null ? 200 : 302);
    this.#init = {
      status,
      statusText: head.reason.replace(/[^\t\x20-\x7e\x80-\xff]/g, ""),
    };
    const empty = status === 204 || status === 205 || status === 304;
    if (empty && status !== 304) fields.delete("content-length");
    const length = fields.get("content-length");
    if (empty) return this.#respond(null);
    // Without a body, Deno.serve would add a length of 0, which the response to GET need not have (RFC 9110 8.6).
    if (this.#options.method === "HEAD") return this.#respond(length === null ? emptyBody() : null);
    if (length !== null) this.#left = Number(length);
    if (this.#left === 0) {
      this.#phase = "complete";
      this.#respond(null);
      return this.#options.oncomplete();
    }
    this.#phase = "pending";
  }

  #respond(body: BodyInit | null): void {
    clearTimeout(this.#flushing);
    if (this.#phase !== "body") this.#options.onended?.();
    const response = new Response(body, this.#init);
    this.#fields.appendTo(response.headers);
    this.#settle.resolve(response);
  }

  /**
   * Responds with a body that may have more bytes. The stream's own queue stays empty: it is a linked list, and once one
   * of its nodes is old, V8's scavenges free neither the later nodes nor their chunks.
   */
  #stream(): void {
    this.#phase = "body";
    const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
      start: (controller) => {
        this.#controller = controller;
      },
      pull: () => {
        const chunk = this.#unread.shift();
        this.#wanted = chunk === undefined;
        if (chunk === undefined) return;
        this.#controller.enqueue(chunk);
        this.#unreadBytes -= chunk.length;
        if (this.#unreadBytes < HIGH_WATER) this.#room?.();
      },
      cancel: (reason) => {
        if (this.ended) return;
        this.#phase = "failed";
        this.#options.onended?.();
        this.#room?.();
        this.#options.oncancel(reason);
      },
    }, { highWaterMark: 0 });
    this.#respond(body);
  }

  #pushBody(bytes: Uint8Array<ArrayBuffer>): void {
    if (bytes.length === 0) return;
    if (this.#phase !== "pending" && this.#phase !== "body") return this.#drop(bytes);
    const chunk = bytes.subarray(0, this.#left);
    this.#pending.push(chunk);
    if (this.#left === undefined) return;
    this.#left -= chunk.length;
    if (this.#left > 0) return;
    this.end();
    this.#options.oncomplete();
    this.#drop(bytes.subarray(chunk.length));
  }

  /**
   * Drops bytes that the client does not get: bytes after a complete body, and the body of a response to HEAD, which an
   * application may write to its end.
   */
  #drop(bytes: Uint8Array): void {
    if (bytes.length === 0 || this.#left !== 0) return;
    if (this.#surplus === 0) {
      this.#options.log("The body is longer than its Content-Length: it was truncated");
    }
    this.#surplus += bytes.length;
    if (this.#surplus > MAX_SURPLUS) {
      this.#options.oncancel(new Error("The application writes more than its response may have"));
    }
  }
}

/** Returns a body without bytes, which unlike a null body gets no Content-Length. */
export function emptyBody(): ReadableStream {
  return new ReadableStream({ start: (controller) => controller.close() });
}

/** The header fields of a response, without the hop-by-hop ones. */
class Fields {
  /** The names are in lower case. */
  #fields: [name: string, value: string][] = [];

  /** @throws {ProtocolError} If a field that must be unique has two values, or the length is not a number. */
  constructor(fields: [name: string, value: string][]) {
    const named = namedByConnection(fields);
    for (const [given, value] of fields) {
      const name = given.toLowerCase();
      if (HOP_BY_HOP.has(name) || named.includes(name)) continue;
      if (name === "content-length" && value === "") continue;
      if (name === "content-type") this.delete(name);
      if (name === "content-length" && !isLength(value)) {
        throw new ProtocolError(
          `Cannot read response as its Content-Length must be a whole number: current value is ${
            JSON.stringify(value)
          }`,
          502,
        );
      }
      const before = UNIQUE.includes(name) ? this.get(name) : null;
      if (before === null) {
        this.#fields.push([name, value]);
      } else if (before !== value) {
        throw new ProtocolError(
          `Cannot read response: it has several ${given} fields`,
          502,
        );
      }
    }
  }

  /** Returns the value of the first field with a name in lower case. */
  get(name: string): string | null {
    for (const [field, value] of this.#fields) if (field === name) return value;
    return null;
  }

  /** Returns the fields of some names. */
  only(names: string[]): [name: string, value: string][] {
    return this.#fields.filter(([name]) => names.includes(name));
  }

  /** The number of fields. */
  get size(): number {
    return this.#fields.length;
  }

  delete(name: string): void {
    this.#fields = this.#fields.filter(([field]) => field !== name);
  }

  /** Appends the fields to the headers of a response, which takes a fifth of the time of giving it headers. */
  appendTo(headers: Headers): void {
    for (const [name, value] of this.#fields) headers.append(name, value);
  }
}

/** Returns the fields that the Connection field names, in lower case. */
function namedByConnection(fields: [name: string, value: string][]): string[] {
  return fields.filter(([name]) => name.toLowerCase() === "connection")
    .flatMap(([_, value]) => value.split(",").map((named) => named.trim().toLowerCase()));
}

function isChunked([name, value]: [name: string, value: string]): boolean {
  return name.toLowerCase() === "transfer-encoding" && /\bchunked\s*$/i.test(value);
}

function isLength(text: string): boolean {
  return /^\d+$/.test(text) && Number.isSafeInteger(Number(text));
}

/** The last array that {@linkcode triggerScavenge} allocated. The export keeps the compiler from omitting it. */
export let garbage: unknown[];

/**
 * Allocates an array, so that V8 frees earlier chunks soon. V8 counts the bytes of chunks towards full collections only,
 * which come late. Scavenges free chunks as well, but only small objects trigger them.
 */
function triggerScavenge(): void {
  garbage = new Array(512);
}
