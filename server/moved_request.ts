import type { ByteCount } from "./byte_count.ts";
import { createLazyRequest, type RequestParts } from "./lazy_request.ts";
import { nativeSignal, setGuard } from "../io/private_fields.ts";

/** The signal and the body of a request of `Deno.serve` whose app must respond in time. */
export interface Limited {
  readonly signal: AbortSignal;
  /** Returns the body, whose reads fail once the time is over. */
  limitStream(
    body: ReadableStream<Uint8Array<ArrayBuffer>>,
  ): ReadableStream<Uint8Array<ArrayBuffer>>;
  /** Returns the result of a read of the whole body, which fails once the time is over. */
  limitRead<T>(read: Promise<T>): Promise<T>;
}

/**
 * Returns a request of `Deno.serve` with another URL. Not a copy, which would read the signal: each response would then
 * abort it, which costs more than the rest of a small request.
 */
export function moveRequest(request: Request, href: string, limited?: Limited): Request {
  return createLazyRequest(new MovedRequest(request, href, limited));
}

/** Returns a request of `Deno.serve`, or what {@linkcode moveRequest} returned, that counts the bytes of its body. */
export function countRequest(request: Request, count: ByteCount): Request {
  return createLazyRequest(new CountedRequest(request, count));
}

/**
 * Returns a request from `Deno.serve` with the authority of its URL as its Host, which differs where the target is
 * absolute (A11). Changes the request itself if possible, as Deno does not upgrade a copy.
 */
export function withHost(request: Request, authority: string): Request {
  const { headers } = request;
  if (setGuard(headers, "request")) {
    headers.set("host", authority);
    setGuard(headers, "immutable");
    return request;
  }
  const copy = new Request(request);
  copy.headers.set("host", authority);
  return copy;
}

class MovedRequest implements RequestParts {
  readonly url: string;
  #request: Request;
  #limited: Limited | undefined;
  #body: ReadableStream<Uint8Array<ArrayBuffer>> | null | undefined;

  constructor(request: Request, href: string, limited: Limited | undefined) {
    this.#request = request;
    this.url = href;
    this.#limited = limited;
  }

  get method(): string {
    return this.#request.method;
  }

  get signal(): AbortSignal {
    return this.#limited?.signal ?? nativeSignal(this.#request);
  }

  get body(): ReadableStream<Uint8Array<ArrayBuffer>> | null {
    if (this.#body === undefined) {
      const { body } = this.#request;
      this.#body = body && this.#limited?.limitStream(body) || body;
    }
    return this.#body;
  }

  get bodyUsed(): boolean {
    return this.#request.bodyUsed;
  }

  createHeaders(): Headers {
    return this.#request.headers;
  }

  collectBody(): Promise<Uint8Array<ArrayBuffer>> | null {
    const { method } = this;
    if (method === "GET" || method === "HEAD") return null;
    const read = this.#request.bytes();
    return this.#limited?.limitRead(read) ?? read;
  }
}

class CountedRequest extends MovedRequest {
  #request: Request;
  #count: ByteCount;

  constructor(request: Request, count: ByteCount) {
    super(request, request.url, undefined);
    this.#request = request;
    this.#count = count;
  }

  /** Not the native one, as the request may be moved or limited already. */
  override get signal(): AbortSignal {
    return this.#request.signal;
  }

  override get body(): ReadableStream<Uint8Array<ArrayBuffer>> | null {
    const body = super.body;
    return body && this.#count.count(body);
  }

  override collectBody(): Promise<Uint8Array<ArrayBuffer>> | null {
    return super.collectBody()?.then((bytes) => {
      this.#count.bytes = bytes.length;
      return bytes;
    }) ?? null;
  }
}
