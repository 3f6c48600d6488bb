import { createLazyRequest, type RequestParts } from "./lazy_request.ts";
import { nativeSignal, setGuard } from "../io/private_fields.ts";

/**
 * Returns a request of `Deno.serve` with another URL. Not a copy, which would read the signal: each response would then
 * abort it, which costs more than the rest of a small request.
 */
export function moveRequest(request: Request, href: string): Request {
  return createLazyRequest(new MovedRequest(request, href));
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

  constructor(request: Request, href: string) {
    this.#request = request;
    this.url = href;
  }

  get method(): string {
    return this.#request.method;
  }

  get signal(): AbortSignal {
    return nativeSignal(this.#request);
  }

  get body(): ReadableStream<Uint8Array<ArrayBuffer>> | null {
    return this.#request.body;
  }

  get bodyUsed(): boolean {
    return this.#request.bodyUsed;
  }

  createHeaders(): Headers {
    return this.#request.headers;
  }

  collectBody(): Promise<Uint8Array<ArrayBuffer>> | null {
    const { method } = this;
    return method === "GET" || method === "HEAD" ? null : this.#request.bytes();
  }
}
