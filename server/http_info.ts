import type { AppOptions, HandlerInfo, Protocol } from "../bridge/app.ts";
import {
  decodePath,
  decodePercent,
  isAuthority,
  requestHref,
  requestURL,
} from "../bridge/request.ts";
import { createVariables, requestURI } from "../bridge/request_variables.ts";
import type { Addr, NetAddr } from "../io/addr.ts";
import type { LogFunction } from "../io/log.ts";
import { requestField } from "../io/private_fields.ts";
import type { ServeInfo } from "../io/runtime.ts";
import { Variables } from "../wire/variables.ts";
import { remoteAddress, trustedForwarded } from "./forwarded.ts";
import { type Limited, moveRequest } from "./moved_request.ts";
import { chooseRequestId } from "./request_id.ts";
import { createURLVariables } from "./url_variables.ts";

/** Matches an Upgrade field that `Deno.upgradeWebSocket` accepts, but not that of a client that offers HTTP/2. */
const WEBSOCKET = /(?:^|,)\s*websocket\s*(?:,|$)/i;

/** The options of a server that its requests need. */
export interface LoggedOptions extends AppOptions {
  log: LogFunction<HandlerInfo>;
}

/** What an app gets as `info` over HTTP. */
export class HTTPInfo implements HandlerInfo {
  #request: Request;
  #host: string | null;
  /** Of `Deno.serve`, whose getters cost as much as the rest of a small request. */
  #native: ServeInfo;
  #options: LoggedOptions;
  #variables: Variables | null = null;
  #url: ReturnType<typeof requestURL> | null = null;
  #requestId: string | undefined;
  #log: ((message: string) => void) | null = null;

  /** @param host The Host of the request. */
  constructor(
    request: Request,
    host: string | null,
    native: ServeInfo,
    options: LoggedOptions,
  ) {
    this.#request = request;
    this.#host = host;
    this.#native = native;
    this.#options = options;
  }

  get protocol(): Protocol {
    return "http";
  }

  get completed(): Promise<void> {
    return this.#native.completed;
  }

  get remoteAddr(): NetAddr {
    if (this.#options.trustForwarded) return remoteAddress(this.variables, this.#options);
    const peer = this.#peer;
    return peer.transport === "tcp" ? peer : { transport: "tcp", hostname: "", port: 0 };
  }

  get #peer(): Addr {
    return this.#native.remoteAddr;
  }

  get variables(): Variables {
    return this.#variables ??= Variables.createdBy({
      find: (name) => this.#findVariable(name),
      create: () => this.#createVariables(),
    });
  }

  /** Finds the variables that an access log needs, which cost less than all. */
  #findVariable(name: string): string | undefined | null {
    switch (name) {
      case "REQUEST_METHOD":
        return this.#request.method;
      case "REQUEST_URI":
        return requestURI(parseURL(this.#request, this.#host));
      case "SERVER_PROTOCOL":
        return "HTTP/1.1";
      case "REMOTE_USER":
        return undefined;
      default:
        return null;
    }
  }

  #createVariables(): [name: string, value: string][] {
    const length = requestField(this.#request, "content-length");
    const url = parseURL(this.#request, this.#host);
    return createVariables(this.#request, {
      url,
      pathInfo: decodePercent(url.pathname),
      contentLength: length === null ? undefined : Number(length),
      remoteAddr: this.#peer,
    });
  }

  get requestId(): string {
    return this.#requestId ??= chooseRequestId(this.#givenId());
  }

  #givenId(): string | null {
    try {
      return requestField(this.#request, "x-request-id");
    } catch {
      // The response was sent, and Deno has forgotten the request. An app may log all the same.
      return null;
    }
  }

  get scriptName(): string {
    return decodePath(this.#requestURL().prefix);
  }

  get pathInfo(): string {
    return decodePath(this.#requestURL().rest);
  }

  get log(): (message: string) => void {
    return this.#log ??= (message) => void this.#options.log(message, this);
  }

  /**
   * Returns the request with the URL that the app sees. Static, as apps pass the info on as a `RequestInit`, which
   * reads its properties.
   */
  static normalize(info: HTTPInfo, limited: Limited | undefined): Request {
    return withURL(info.#request, info.#href(), limited);
  }

  #href(): string {
    if (this.#options.basePath !== undefined) return this.#requestURL().href;
    const variables = this.#urlVariables();
    return requestHref(variables, trustedForwarded(variables, this.#options)) ??
      this.#requestURL().href;
  }

  /** Returns the variables that the URL depends on, which cost less than all. */
  #urlVariables(): Variables {
    const forwarded = this.#options.trustForwarded === true;
    const pairs = this.#variables === null
      ? createURLVariables(this.#request, this.#host, forwarded)
      : undefined;
    return pairs === undefined ? this.variables : new Variables(pairs);
  }

  #requestURL(): ReturnType<typeof requestURL> {
    if (this.#url !== null) return this.#url;
    const variables = this.#urlVariables();
    return this.#url = requestURL(
      variables,
      this.#options.basePath,
      trustedForwarded(variables, this.#options),
      "http",
      undefined,
    );
  }
}

/** Returns the request with another URL, and if its app must respond in time, with another signal and body. */
export function withURL(request: Request, href: string, limited: Limited | undefined): Request {
  if (!WEBSOCKET.test(requestField(request, "upgrade") ?? "")) {
    return moveRequest(request, href, limited);
  }
  // Deno does not upgrade a copy.
  const { signal } = limited ?? {};
  const properties = { url: href, ...(signal && { signal }) };
  for (const [name, value] of Object.entries(properties)) {
    Object.defineProperty(request, name, { value, configurable: true });
  }
  return request;
}

/** Returns the URL of a request, with another host where that is invalid: Deno.serve puts any into the URL. */
function parseURL({ url }: Request, host: string | null): URL {
  const named = host && !isAuthority(host) ? url.replace(`//${host}`, "//localhost") : url;
  return URL.parse(named) ?? new URL("http://localhost/");
}
