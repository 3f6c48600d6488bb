/**
 * What an app is, and what it is told: the types that all transports share.
 *
 * @module
 */

/** How a request came in. */
export type Protocol = "cgi" | "fastcgi" | "scgi" | "http";

/** What a handler is told beside the request. */
export interface HandlerInfo extends Deno.ServeHandlerInfo<Deno.Addr> {
  /** The client's address, of REMOTE_ADDR and REMOTE_PORT. A Unix-socket web server without them gives port 0. */
  readonly remoteAddr: Deno.Addr;
  /** Resolves when the answer has been sent, rejects when it could not be. */
  readonly completed: Promise<void>;
  /** How the request came in. */
  readonly protocol: Protocol;
  /**
   * The meta-variables as they came, under their RFC 3875 names. `HTTP_PROXY` is left out. REMOTE_USER and AUTH_TYPE
   * prove something only if the web server authenticates: some copy them from an unverified header (rule A29).
   */
  readonly variables: ReadonlyMap<string, string>;
  /** The path that the script or application is mounted at, as the web server and the URL agree on it; else "". */
  readonly scriptName: string;
  /** The rest of the URL's path, decoded. */
  readonly pathInfo: string;
  /** Writes a line where the web server collects errors. */
  log(message: string): void;
}

/** What FastCGI's filter role adds. */
export interface FilterInfo extends HandlerInfo {
  /** The file to filter: the FCGI_DATA stream. */
  readonly data: ReadableStream<Uint8Array<ArrayBuffer>>;
  /** The file's length in bytes (FCGI_DATA_LENGTH). */
  readonly dataLength: number;
  /** When the file was last changed (FCGI_DATA_LAST_MOD). */
  readonly dataLastModified: Date;
}

/** A fetch handler. One written for `Deno.serve` fits. */
export type Handler = (request: Request, info: HandlerInfo) => Response | Promise<Response>;

/** An app as an object, such as a Hono app or what a `deno serve` module exports. */
export interface AppObject {
  /** Answers a request. */
  fetch: Handler;
  /**
   * FastCGI's authorizer role: status 200 lets the request pass, any other refuses it with this response. Of a 200
   * only `Variable-*` headers count. See `allow()` in `fastcgi.ts`.
   */
  authorize?: Handler;
  /** FastCGI's filter role: answers with `info.data` filtered. */
  filter?: (request: Request, info: FilterInfo) => Response | Promise<Response>;
}

/** A handler, or an object that has one as `fetch`. */
export type App = Handler | AppObject;

/** Options that all transports share. */
export interface AppOptions {
  /**
   * Answers when the app throws. What it returns is sent; if it throws as well, a plain 500 is.
   *
   * @default `500 Internal Server Error` without a word of the cause
   */
  onError?: (error: unknown) => Response | Promise<Response>;
  /**
   * The part of the URL's path that the app does not see, so that its routes do not depend on where it is mounted.
   * `"auto"` takes SCRIPT_NAME off where the web server split the path (`/cgi-bin/app.ts/users` is seen as `/users`);
   * a path such as `"/app"` is taken off where the URL begins with it.
   *
   * @default undefined, the app sees the path that the client asked for
   */
  basePath?: "auto" | `/${string}`;
  /**
   * Takes scheme, host and client address from `X-Forwarded-Proto`, `-Host` and `-For`. Any client can send these:
   * only for a web server behind a proxy that sets them all.
   *
   * @default false
   */
  trustForwarded?: boolean;
  /**
   * Takes the Authorization header from REDIRECT_HTTP_AUTHORIZATION, where Apache's rewriting puts it.
   *
   * @default false
   */
  redirectAuthorization?: boolean;
  /**
   * Answers an error with a page that shows it, and the request, to whoever asked. For development only.
   *
   * @default false
   */
  debug?: boolean;
}
