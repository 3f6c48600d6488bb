import { createLazyRequest, type RequestParts } from "./lazy_request.ts";
import { nativeSignal } from "./native_signal.ts";

/**
 * Returns a request of `Deno.serve` with another URL. It is no copy, which would read the signal: each response then
 * aborts that, which costs more than the rest of a small request.
 */
export function moveRequest(request: Request, href: string): Request {
  return createLazyRequest(new MovedRequest(request, href));
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
