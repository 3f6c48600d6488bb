/**
 * Serves an app over HTTP by `Deno.serve`, with the same `info` that the other transports give.
 *
 * @module
 */

import type { App, AppOptions, HandlerInfo, Protocol } from "./bridge/app.ts";
import { makeImmutable } from "./bridge/immutable_headers.ts";
import {
  decodePath,
  decodePercent,
  NO_REQUEST,
  remoteAddress,
  requestURL,
} from "./bridge/request.ts";
import { checkResponse, describe, plainResponse, toHandler } from "./bridge/respond.ts";
import { createVariables } from "./bridge/variables.ts";
import { Variables } from "./wire/variables.ts";

export type { App, AppObject, AppOptions, Handler, HandlerInfo, Protocol } from "./bridge/app.ts";

/** Options of {@linkcode serveHTTP}: those of `Deno.serve`, and those that all transports share. */
export interface HTTPOptions
  extends Omit<Deno.ServeTcpOptions, "onError" | "onListen">, AppOptions {
  /** Called with the address once it listens. @default A line on the console */
  onListen?: (addr: Deno.Addr) => void;
}

/** What may be a dot segment: `Deno.serve` leaves these in the URL, where `Request` resolves them (SPEC A14). */
const DOTS = /\/(?:\.|%2e)/i;

/**
 * Serves an app by `Deno.serve`.
 *
 * @param app A handler, or an object with `fetch`.
 * @returns What `Deno.serve` returns.
 *
 * @example
 * ```ts no-assert
 * import { serveHTTP } from "@gatehouse/cgi/http";
 *
 * const server = serveHTTP(
 *   (_request, info) => new Response(info.protocol),
 *   { hostname: "127.0.0.1", port: 0, onListen: () => {} },
 * );
 * await server.shutdown();
 * ```
 */
export function serveHTTP(app: App, options: HTTPOptions = {}): Deno.HttpServer<Deno.NetAddr> {
  const handler = toHandler(app);
  const moved = options.basePath !== undefined || options.trustForwarded === true;
  const { onError: _onError, debug: _debug, ...serveOptions } = options;
  return Deno.serve(serveOptions, async (request, { remoteAddr, completed }) => {
    if (NO_REQUEST.test(request.method)) return plainResponse(501);
    const info = new HTTPInfo(request, remoteAddr, completed, options);
    try {
      const normal = moved || DOTS.test(request.url) ? HTTPInfo.normalize(info) : request;
      const response = await handler(normal, info);
      checkResponse(response);
      return response;
    } catch (error) {
      if (request.signal.aborted) throw error;
      return await answerError(error, request, info, options);
    }
  });
}

async function answerError(
  error: unknown,
  request: Request,
  info: HTTPInfo,
  options: AppOptions,
): Promise<Response> {
  try {
    if (options.onError) {
      const response = await options.onError(error);
      checkResponse(response);
      return response;
    }
  } catch (nested) {
    info.log(describe(error));
    error = nested;
  }
  info.log(describe(error));
  if (!options.debug) return plainResponse(500);
  const { debugPage } = await import("./bridge/debug_page.ts");
  return debugPage(error, describe(error), request, info);
}

class HTTPInfo implements HandlerInfo {
  readonly protocol: Protocol = "http";
  readonly completed: Promise<void>;
  #request: Request;
  #remoteAddr: Deno.NetAddr;
  #options: AppOptions;
  #variables: Variables | null = null;
  #url: ReturnType<typeof requestURL> | null = null;

  constructor(
    request: Request,
    remoteAddr: Deno.NetAddr,
    completed: Promise<void>,
    options: AppOptions,
  ) {
    this.#request = request;
    this.#remoteAddr = remoteAddr;
    this.completed = completed;
    this.#options = options;
  }

  get remoteAddr(): Deno.NetAddr {
    return this.#options.trustForwarded
      ? remoteAddress(this.variables, this.#options)
      : this.#remoteAddr;
  }

  get variables(): Variables {
    if (this.#variables === null) {
      const length = this.#request.headers.get("content-length");
      this.#variables = new Variables(createVariables(this.#request, {
        pathInfo: decodePercent(new URL(this.#request.url).pathname),
        contentLength: length === null ? undefined : Number(length),
        remoteAddr: this.#remoteAddr,
      }));
    }
    return this.#variables;
  }

  get scriptName(): string {
    return decodePath(this.#requestURL().prefix);
  }

  get pathInfo(): string {
    return decodePath(this.#requestURL().rest);
  }

  get log(): (message: string) => void {
    return log;
  }

  /** Creates the request as the app sees it. No method of the info, as apps use that as a `RequestInit`. */
  static normalize(info: HTTPInfo): Request {
    const request = new Request(info.#requestURL().href, info.#request);
    makeImmutable(request.headers);
    return request;
  }

  #requestURL(): ReturnType<typeof requestURL> {
    return this.#url ??= requestURL(this.variables, this.#options, "http", undefined);
  }
}

function log(message: string): void {
  console.error(message);
}
