/**
 * The types of an app, its handler's arguments and its options, for all transports.
 *
 * @module
 */

import type { NetAddr } from "../io/addr.ts";

/** The protocol that a request arrived over. */
export type Protocol = "cgi" | "fastcgi" | "scgi" | "http";

/**
 * The second argument of a handler: what a `Request` cannot express. In Hono it is `c.env`, with
 * `new Hono<{ Bindings: HandlerInfo }>()`.
 */
export interface HandlerInfo {
  /**
   * The client's address, from REMOTE_ADDR and REMOTE_PORT, over HTTP that of the peer. Without these, and for a peer on a
   * Unix socket, the host name is empty and the port 0.
   */
  readonly remoteAddr: NetAddr;
  /** Resolves when the response has been sent; rejects if it cannot be sent completely. */
  readonly completed: Promise<void>;
  /** The protocol that the request arrived over. */
  readonly protocol: Protocol;
  /**
   * The meta-variables as received, under their RFC 3875 names, without `HTTP_PROXY` and `AUTH_PASSWORD`. REMOTE_USER and AUTH_TYPE prove
   * something only if the web server authenticates: some copy them from an unverified header.
   */
  readonly variables: ReadonlyMap<string, string>;
  /** The path that the app is mounted at, decoded; empty unless SCRIPT_NAME and PATH_INFO together are the URL's path. */
  readonly scriptName: string;
  /** The path of the URL after {@linkcode scriptName}, decoded. */
  readonly pathInfo: string;
  /**
   * An id for logs: the `X-Request-Id` header, else Apache's UNIQUE_ID, else a new UUID. At most 128 letters, digits and
   * characters of `_.~:+/=@-`: a header with others is not used. Clients can choose it, unless the web server sets it.
   */
  readonly requestId: string;
  /** Writes a line to the web server's error log, or to the daemon's own where the protocol has none. */
  log(message: string): void;
}

/** The second argument of a filter: what FastCGI's filter role adds. */
export interface FilterInfo extends HandlerInfo {
  /** The content of the file to filter: the FCGI_DATA stream. */
  readonly data: ReadableStream<Uint8Array<ArrayBuffer>>;
  /** The file's length in bytes (FCGI_DATA_LENGTH). */
  readonly dataLength: number;
  /** When the file was last modified (FCGI_DATA_LAST_MOD). */
  readonly dataLastModified: Date;
}

/** A request that has ended, and how: what {@linkcode AppOptions.onCompleted} gets. */
export interface CompletedRequest {
  /** The request. Absent if it was refused before it could be created: its variables may then say more. */
  readonly request?: Request;
  /** The handler's second argument. It has no variables if they were refused. */
  readonly info: HandlerInfo;
  /**
   * The status of the response; 499 if the client left before the head was sent, 503 if the server has stopped before
   * that. Over HTTP, a client that leaves is noticed only if the app reads `request.signal`, takes more than a second, or
   * responds with a stream.
   */
  readonly status: number;
  /** How many bytes of the response's body were sent. Over HTTP, its length, or how much of a stream was read. */
  readonly bytes?: number;
  /**
   * How many bytes of the request's body have arrived. Over HTTP, how many of them the app has read: of a body with a
   * Content-Length all or none; absent if the client left meanwhile.
   */
  readonly received?: number;
  /** The id of the trace: that of the OpenTelemetry span if there is one, else that of the `traceparent` header. */
  readonly traceId?: string;
  /** When the request began. */
  readonly started: Date;
  /** How long it took, in milliseconds. */
  readonly duration: number;
}

/** A fetch handler. A handler for `Deno.serve` is one too, also one of `Deno.ServeHandlerInfo<Deno.NetAddr>`. */
export type Handler = (request: Request, info: HandlerInfo) => Response | Promise<Response>;

/** An app as an object, such as a Hono app or the default export of a `deno serve` module. */
export interface AppObject {
  /** Responds to a request. */
  fetch: Handler;
  /**
   * Responds in FastCGI's authorizer role. Status 200 allows the request, and only its `Variable-*` headers count; any
   * other status refuses the request with this response. See `allow()` in `fastcgi.ts`.
   */
  authorize?: Handler;
  /** Responds in FastCGI's filter role, with a filtered `info.data`. */
  filter?: (request: Request, info: FilterInfo) => Response | Promise<Response>;
}

/** A handler, or an object with a handler as `fetch`. */
export type App = Handler | AppObject;

/** Options that all transports share. */
export interface AppOptions {
  /**
   * Creates the response if the app throws or its response cannot be sent. Gets the error, and the arguments of the app:
   * the app may have read the body. If it throws itself, the response is a plain 500 (or the debug page), and both errors
   * are logged; otherwise it does its own logging, such as by `info.log()`.
   *
   * @default undefined, the error is logged and the response is a `500 Internal Server Error` that shows no cause
   */
  onError?: (
    error: unknown,
    request: Request,
    info: HandlerInfo,
  ) => Response | Promise<Response>;
  /**
   * Called once for each request, when its response is complete or cannot be completed: for an access log. Called for
   * requests that are refused without the app, too. An error that it throws is logged, and changes nothing.
   *
   * @default undefined
   */
  onCompleted?: (completed: CompletedRequest) => void;
  /**
   * The part of the URL's path to remove, so that the app's routes do not depend on where it is mounted. `"auto"`
   * removes SCRIPT_NAME if the web server splits the path (`/cgi-bin/app.ts/users` becomes `/users`). A path such as
   * `"/app"` or `"/the app"` is removed if the URL's path, decoded, begins with it. A slash at its end does not count.
   *
   * @default undefined, the app gets the path that the client requested
   */
  basePath?: "auto" | "" | `/${string}`;
  /**
   * The proxies in front of the web server from which to take scheme, host and client address: the last values of
   * `X-Forwarded-Proto`, `-Host` and `-For`, or where none of these is present of `Forwarded` (RFC 7239). If
   * `X-Forwarded-For` does not end in an address, the client is the proxy.
   *
   * A list has IP addresses, ranges such as `10.0.0.0/8`, whose other bits must be 0, `"loopback"` for 127.0.0.0/8 and
   * ::1, and `"unix"` for a proxy that connects over a Unix socket. It is compared with REMOTE_ADDR, over HTTP with the
   * peer. A proxy must set or drop all of these headers, as any client can send them. `true` trusts every sender:
   * set it only if no client can reach the web server past the proxy.
   *
   * @default false
   */
  trustForwarded?: boolean | string[];
  /**
   * Whether to take a missing Authorization header from REDIRECT_HTTP_AUTHORIZATION, where Apache's rewriting puts it.
   *
   * @default false
   */
  redirectAuthorization?: boolean;
  /**
   * Whether the values in the URL's query are exported to OpenTelemetry as `REDACTED`. The app gets them as they are. Not
   * over HTTP, where `Deno.serve` itself exports the URL.
   *
   * @default false, spans have the whole URL, as those of `Deno.serve`
   */
  redactQuery?: boolean;
  /**
   * How long the app may take until its response begins, in milliseconds, from 0; Infinity for no limit. The time in which
   * it waits for bytes of the body that the client has not sent does not count. Beyond it the client gets 503, the log
   * names the request, `request.signal` aborts, and reads of the body fail, both with a `TimeoutError`. A response that
   * comes later is cancelled; `onError` is not called. A response that has begun is not limited, and code that never lets
   * the event loop turn cannot be.
   *
   * @default Infinity
   */
  requestTimeout?: number;
  /**
   * How long a request may run until a line of the log says so, in milliseconds, from 0; Infinity for no such line. It is
   * written by `info.log()` while the request runs, once, and says whether the app has responded. The time in which the
   * app waits for the client counts. Code that never lets the event loop turn is not noticed meanwhile.
   *
   * @default Infinity
   */
  slowLog?: number;
  /**
   * Whether the response to an error is a page that shows the error and the request to any client. For development only.
   *
   * @default false
   */
  debug?: boolean;
}
