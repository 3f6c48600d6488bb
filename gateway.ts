/**
 * The other way round: lets a Deno server answer from CGI scripts and from FastCGI and SCGI applications.
 *
 * ```ts no-assert
 * import { cgiGateway, fastCGIGateway } from "@gatehouse/cgi/gateway";
 *
 * const scripts = cgiGateway({ root: "/srv/cgi-bin", prefix: "/cgi-bin" });
 * const php = fastCGIGateway("unix:/run/php/php-fpm.sock", { root: "/srv/www", index: "index.php" });
 *
 * const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, (request, info) =>
 *   new URL(request.url).pathname.startsWith("/cgi-bin/") ? scripts(request, info) : php(request, info));
 * await server.shutdown();
 * ```
 *
 * @module
 */

import { AnswerReader, type LocalRedirect } from "./bridge/cgi_response.ts";
import { describe, plainResponse } from "./bridge/respond.ts";
import {
  decodeTarget,
  fileNames,
  hasDotName,
  isUTF8,
  type ScriptPath,
  splitScript,
  stripPrefix,
} from "./bridge/script_path.ts";
import { createVariables } from "./bridge/variables.ts";
import {
  type Address,
  ConnectionPool,
  parseAddress,
  type PooledConnection,
  PoolFullError,
} from "./io/connection_pool.ts";
import { Output } from "./io/output.ts";
import { LineLog, ProcessGroup } from "./io/process.ts";
import { checkScript, findScript, type ScriptRules } from "./io/script_file.ts";
import { Watchdog } from "./io/watchdog.ts";
import { ByteBuffer } from "./wire/byte_buffer.ts";
import { toByteString, toText } from "./wire/byte_string.ts";
import {
  decodeEndRequest,
  encodeAbortRequest,
  encodeBeginRequest,
  encodePair,
  encodeStream,
  encodeStreamEnd,
  KEEP_CONNECTION,
  ProtocolStatus,
  RecordDecoder,
  type RecordSink,
  RecordType,
  Role,
} from "./wire/fastcgi.ts";
import { ProtocolError } from "./wire/protocol_error.ts";
import { encodeSCGIHeaders } from "./wire/scgi.ts";

export type { Address } from "./io/connection_pool.ts";

/** A handler for `Deno.serve`. Disposing of it ends what it holds open: connections, processes. */
export interface Gateway extends Disposable {
  /** Answers a request. Without `info` the client's address is not told. */
  (request: Request, info?: Deno.ServeHandlerInfo<Deno.Addr>): Promise<Response>;
}

/** Options that all gateways share. */
export interface GatewayOptions {
  /**
   * The part of the URL's path that the gateway is mounted at: it becomes the beginning of SCRIPT_NAME. Other paths are
   * answered with 404.
   *
   * @default ""
   */
  prefix?: "" | `/${string}`;
  /**
   * How long the application may neither take nor send a byte, in milliseconds; past it, 504, or if the answer has begun
   * it breaks off.
   *
   * @default 60_000
   */
  timeout?: number;
  /**
   * How long the client may neither send nor take a byte that the application waits for, in milliseconds; past it, 408,
   * or the answer breaks off.
   *
   * @default 60_000
   */
  clientTimeout?: number;
  /**
   * How many bytes the header block of an answer may have; past it, 502.
   *
   * @default 65_536
   */
  maxHeaderBytes?: number;
  /**
   * How many bytes a request's body may have; past it, 413. Bodies stream.
   *
   * @default Infinity
   */
  maxBodyBytes?: number;
  /**
   * Host names that are answered beside those of this machine itself (`localhost`, `127.0.0.1`, `[::1]`); others get
   * 421. Set it, be it to `[]`, on a server for development: without it a page in the developer's browser can reach the
   * server by a name of its own that it has resolve to 127.0.0.1 (DNS rebinding).
   *
   * @default undefined, any host
   */
  allowedHosts?: string[];
  /**
   * Hands the Authorization header to the application. A script's environment may be seen by others on the machine.
   *
   * @default true
   */
  passAuthorization?: boolean;
  /**
   * More variables, or a function that tells them for a request, such as REMOTE_USER of who has signed in. They replace
   * those of the same name.
   */
  variables?:
    | Record<string, string>
    | ((request: Request, info?: Deno.ServeHandlerInfo<Deno.Addr>) => Record<string, string>);
  /**
   * Answers where an application sends the client to another path of the same server without the client's doing (a
   * local redirect, RFC 3875 section 6.2.2). At most 5 follow one another; past it, 502.
   *
   * @default the gateway itself
   */
  redirect?: (
    request: Request,
    info?: Deno.ServeHandlerInfo<Deno.Addr>,
  ) => Response | Promise<Response>;
  /** Where errors, and what the application writes to stderr, go. @default console.error */
  log?: (message: string) => void;
}

/** Options of {@linkcode fastCGIGateway}. */
export interface FastCGIGatewayOptions extends GatewayOptions {
  /**
   * The folder of the application's scripts, as the application sees it; SCRIPT_FILENAME is in it. With it, paths must
   * name a script. What PHP needs.
   *
   * @default undefined, the application answers all paths
   */
  root?: string;
  /** The ends of scripts' names: the path up to there is SCRIPT_NAME, the rest PATH_INFO. @default [".php"] */
  split?: string[];
  /** The script of a folder. @default "index.php" */
  index?: string;
  /** The script for paths that name none, as `"/index.php"`. @default undefined, they are answered with 404 */
  fallback?: `/${string}`;
  /**
   * Sees first that the script exists. Not where the application has its own file system, such as a container: PHP
   * must then itself keep uploaded files from being run (`cgi.fix_pathinfo=0`, `security.limit_extensions`).
   *
   * @default true
   */
  checkFiles?: boolean;
  /** How many connections may be open; past it, 503. @default 256 */
  maxConnections?: number;
  /**
   * How many idle connections are kept for the next request; 0 for a connection each.
   *
   * @default 4
   */
  maxIdleConnections?: number;
  /**
   * How long an idle connection is kept, in milliseconds. Shorter than the application's own.
   *
   * @default 10_000
   */
  idleTimeout?: number;
  /** How long connecting may take, in milliseconds; past it, 504. @default 10_000 */
  connectTimeout?: number;
}

/** Options of {@linkcode scgiGateway}. */
export interface SCGIGatewayOptions extends GatewayOptions {
  /** How many connections may be open; past it, 503. @default 256 */
  maxConnections?: number;
  /** How long connecting may take, in milliseconds; past it, 504. @default 10_000 */
  connectTimeout?: number;
  /**
   * How many bytes of a body without a length are held to find its length, which SCGI needs; past it, 413.
   *
   * @default 10_485_760
   */
  maxBufferedBody?: number;
}

/** Options of {@linkcode cgiGateway}: `root` or `script`. */
export interface CGIGatewayOptions extends GatewayOptions {
  /** The folder of the scripts. The longest part of the path that names a file is the script. */
  root?: string;
  /** The one script that answers all paths. */
  script?: string;
  /** Names of the script that answers for a folder. @default [] */
  index?: string[];
  /** The ends of names of files that may be run. @default undefined, any that is executable */
  extensions?: string[];
  /**
   * Programs that run scripts, by the end of the script's name, as `{ ".php": ["php-cgi"] }`. Such scripts need no
   * executable bit.
   */
  interpreters?: Record<string, string[]>;
  /**
   * Permissions of Deno scripts by folder of the root, as `{ "/": ["--allow-env"], "/reports": ["--allow-env",
   * "--allow-read=/srv/data"] }`. The nearest folder counts. Scripts that end in `.ts`, `.js`, `.mts` or `.mjs` are then
   * run with exactly these, whatever their first line says, and need no executable bit.
   */
  permissions?: Record<`/${string}`, string[]>;
  /** What scripts find in their environment beside the request. @default PATH alone */
  env?: Record<string, string>;
  /** How many processes may run; past it, 503. @default 32 */
  maxProcesses?: number;
  /**
   * How many bytes of a body without a length are held to find its length, which CGI needs; past it, 413.
   *
   * @default 10_485_760
   */
  maxBufferedBody?: number;
}

const DEFAULTS = {
  prefix: "",
  timeout: 60_000,
  clientTimeout: 60_000,
  maxHeaderBytes: 65_536,
  maxBodyBytes: Infinity,
  passAuthorization: true,
  split: [".php"],
  index: "index.php",
  checkFiles: true,
  maxConnections: 256,
  maxIdleConnections: 4,
  idleTimeout: 10_000,
  connectTimeout: 10_000,
  maxBufferedBody: 10_485_760,
  maxProcesses: 32,
} as const;
/** How many local redirects may follow one another (SPEC F16). */
const MAX_REDIRECTS = 5;
/** How long an application has to end a request that is called off, in milliseconds. */
const ABORT_GRACE = 1000;
const IDEMPOTENT = /^(?:GET|HEAD|OPTIONS|PUT|DELETE)$/;
const DENO_SCRIPT = /\.m?[tj]s$/;
const DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin";

type Info = Deno.ServeHandlerInfo<Deno.Addr> | undefined;
type Answer = Response | LocalRedirect;

/**
 * Makes a handler that answers from CGI scripts (RFC 3875): a process for each request, without a shell, with an
 * environment that holds the request and nothing of this process.
 *
 * Needs `--allow-read` of the scripts, and `--allow-run`. With a list, as `--allow-run=/srv/cgi-bin/app.pl,kill`, name
 * `kill` too: a script that takes too long is ended with all its children.
 *
 * @param options Where the scripts are: `root` or `script`.
 * @throws {TypeError} If neither or both are given.
 *
 * @example
 * ```ts no-assert
 * import { cgiGateway } from "@gatehouse/cgi/gateway";
 *
 * using gateway = cgiGateway({ root: "/usr/lib/cgi-bin", prefix: "/cgi-bin" });
 * const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, gateway);
 * await server.shutdown();
 * ```
 */
export function cgiGateway(options: CGIGatewayOptions): Gateway {
  const scripts = new Scripts(options);
  return createGateway(options, (request, info) => scripts.ask(request, info), () => scripts.end());
}

/**
 * Makes a handler that asks a FastCGI application: PHP-FPM, fcgiwrap, an app of `serveFastCGI`.
 *
 * Connections are kept for requests that can be repeated (GET, HEAD, OPTIONS, DELETE, PUT without a body): one that the
 * application closes just then is repeated on a new connection. Others get a connection of their own. Several
 * applications are a balancer's business.
 *
 * Needs `--allow-net` of the address, for a Unix socket `--allow-read` and `--allow-write` of its path; `--allow-read` of
 * `root`.
 *
 * @param address `host:port`, `[ipv6]:port` or `unix:/path`.
 * @throws {TypeError} If the address is none.
 *
 * @example PHP
 * ```ts no-assert
 * import { fastCGIGateway } from "@gatehouse/cgi/gateway";
 *
 * using php = fastCGIGateway("unix:/run/php/php-fpm.sock", { root: "/srv/www" });
 * const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, php);
 * await server.shutdown();
 * ```
 */
export function fastCGIGateway(address: Address, options: FastCGIGatewayOptions = {}): Gateway {
  const {
    maxConnections = DEFAULTS.maxConnections,
    maxIdleConnections = DEFAULTS.maxIdleConnections,
    idleTimeout = DEFAULTS.idleTimeout,
    connectTimeout = DEFAULTS.connectTimeout,
  } = options;
  const pool = new ConnectionPool(parseAddress(address), {
    maxConnections,
    maxIdle: maxIdleConnections,
    idleTimeout,
    connectTimeout,
  });
  return createGateway(
    options,
    (request, info) => askFastCGI(request, info, pool, options),
    () => pool.close(),
  );
}

/**
 * Makes a handler that asks an SCGI application, on a connection for each request.
 *
 * Needs `--allow-net` of the address, for a Unix socket `--allow-read` and `--allow-write` of its path.
 *
 * @param address `host:port`, `[ipv6]:port` or `unix:/path`.
 * @throws {TypeError} If the address is none.
 *
 * @example
 * ```ts no-assert
 * import { scgiGateway } from "@gatehouse/cgi/gateway";
 *
 * using gateway = scgiGateway("127.0.0.1:4000");
 * const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, gateway);
 * await server.shutdown();
 * ```
 */
export function scgiGateway(address: Address, options: SCGIGatewayOptions = {}): Gateway {
  const {
    maxConnections = DEFAULTS.maxConnections,
    connectTimeout = DEFAULTS.connectTimeout,
  } = options;
  const pool = new ConnectionPool(parseAddress(address), {
    maxConnections,
    maxIdle: 0,
    idleTimeout: 0,
    connectTimeout,
  });
  return createGateway(
    options,
    (request, info) => askSCGI(request, info, pool, options),
    () => pool.close(),
  );
}

/**
 * Asks a FastCGI application one request, on a connection of its own: does my daemon answer?
 *
 * @param request A request, or its URL.
 * @param address `host:port`, `[ipv6]:port` or `unix:/path`.
 * @throws {Error} If it does not answer, or not as FastCGI has it.
 *
 * @example
 * ```ts
 * import { serveFastCGI } from "@gatehouse/cgi/fastcgi";
 * import { fetchFastCGI } from "@gatehouse/cgi/gateway";
 * import { assertEquals } from "@std/assert";
 *
 * const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
 * await using server = serveFastCGI(() => new Response("Hello"), listener);
 * const { port } = server.addr as Deno.NetAddr;
 * const response = await fetchFastCGI("http://localhost/", `127.0.0.1:${port}`);
 * assertEquals(await response.text(), "Hello");
 * ```
 */
export function fetchFastCGI(
  request: Request | string | URL,
  address: Address,
  options: FastCGIGatewayOptions = {},
): Promise<Response> {
  const { connectTimeout = DEFAULTS.connectTimeout } = options;
  const pool = new ConnectionPool(parseAddress(address), {
    maxConnections: 2,
    maxIdle: 0,
    idleTimeout: 0,
    connectTimeout,
  });
  return fetchAnswer((asked) => askFastCGI(asked, undefined, pool, options), request);
}

/**
 * Asks an SCGI application one request.
 *
 * @param request A request, or its URL.
 * @param address `host:port`, `[ipv6]:port` or `unix:/path`.
 * @throws {Error} If it does not answer, or not as SCGI has it.
 *
 * @example
 * ```ts
 * import { serveSCGI } from "@gatehouse/cgi/scgi";
 * import { fetchSCGI } from "@gatehouse/cgi/gateway";
 * import { assertEquals } from "@std/assert";
 *
 * const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
 * await using server = serveSCGI(() => new Response("Hello"), listener);
 * const { port } = server.addr as Deno.NetAddr;
 * const response = await fetchSCGI("http://localhost/", `127.0.0.1:${port}`);
 * assertEquals(await response.text(), "Hello");
 * ```
 */
export function fetchSCGI(
  request: Request | string | URL,
  address: Address,
  options: SCGIGatewayOptions = {},
): Promise<Response> {
  const { connectTimeout = DEFAULTS.connectTimeout } = options;
  const pool = new ConnectionPool(parseAddress(address), {
    maxConnections: 1,
    maxIdle: 0,
    idleTimeout: 0,
    connectTimeout,
  });
  return fetchAnswer((asked) => askSCGI(asked, undefined, pool, options), request);
}

/**
 * Asks a CGI script one request.
 *
 * @param request A request, or its URL.
 * @param script The script's file, or options as {@linkcode cgiGateway} has them.
 * @throws {Error} If it cannot be run, or does not answer as CGI has it.
 *
 * @example
 * ```ts ignore
 * import { fetchCGI } from "@gatehouse/cgi/gateway";
 *
 * const response = await fetchCGI("http://localhost/", "/usr/lib/cgi-bin/hello.pl");
 * ```
 */
export function fetchCGI(
  request: Request | string | URL,
  script: string | CGIGatewayOptions,
): Promise<Response> {
  const scripts = new Scripts(typeof script === "string" ? { script } : script);
  return fetchAnswer((asked) => scripts.ask(asked, undefined), request);
}

async function fetchAnswer(
  ask: (request: Request) => Promise<Answer>,
  request: Request | string | URL,
): Promise<Response> {
  const answer = await ask(request instanceof Request ? request : new Request(request));
  if (answer instanceof Response) return answer;
  return new Response(null, { status: 302, headers: { location: answer.location } });
}

/** How many local redirects led to a request. */
const redirects = new WeakMap<Request, number>();

function createGateway(
  options: GatewayOptions,
  ask: (request: Request, info: Info) => Promise<Answer>,
  end: () => void,
): Gateway {
  const { log = console.error, allowedHosts } = options;
  async function answer(request: Request, info: Info): Promise<Response> {
    const answered = await ask(request, info);
    if (answered instanceof Response) return answered;
    const next = redirectedRequest(request, answered.location);
    return options.redirect ? await options.redirect(next, info) : await answer(next, info);
  }
  async function gateway(request: Request, info?: Deno.ServeHandlerInfo<Deno.Addr>) {
    try {
      if (allowedHosts !== undefined && !isAllowedHost(request, allowedHosts)) {
        throw new ProtocolError(
          `Cannot answer as the host must be this machine or in allowedHosts: current value is ${
            JSON.stringify(request.headers.get("host") ?? new URL(request.url).host)
          }`,
          421,
        );
      }
      return await answer(request, info);
    } catch (error) {
      if (!request.signal.aborted) {
        log(error instanceof ProtocolError ? error.message : describe(error));
      }
      return plainResponse(errorStatus(error));
    }
  }
  return Object.assign(gateway, { [Symbol.dispose]: end });
}

function redirectedRequest(request: Request, location: string): Request {
  const count = (redirects.get(request) ?? 0) + 1;
  if (count > MAX_REDIRECTS) {
    throw new ProtocolError(
      `Cannot follow local redirects as there must be at most ${MAX_REDIRECTS}: the next is to ${location}`,
      502,
    );
  }
  const headers = new Headers(request.headers);
  for (const name of ["content-length", "content-type", "transfer-encoding"]) headers.delete(name);
  const next = new Request(new URL(request.url).origin + location, {
    method: request.method === "HEAD" ? "HEAD" : "GET",
    headers,
    signal: request.signal,
  });
  redirects.set(next, count);
  return next;
}

function isAllowedHost(request: Request, allowed: string[]): boolean {
  // The URL's host comes of the Host field; one that is no host never gets here.
  const { hostname } = new URL(request.url);
  return /^(?:localhost|127(?:\.\d+){3}|\[::1\])$/.test(hostname) || allowed.includes(hostname);
}

/** The status that tells a client what went wrong behind the gateway. */
function errorStatus(error: unknown): number {
  if (error instanceof ProtocolError) return error.status;
  if (error instanceof PoolFullError) return 503;
  if (error instanceof Deno.errors.TimedOut) return 504;
  // The queue of a Unix socket is full.
  if (error instanceof Deno.errors.WouldBlock) return 503;
  return 502;
}

/** A request under way: what goes to the application and what comes back, whatever the transport. */
class Inquiry {
  readonly request: Request;
  readonly reader: AnswerReader;
  readonly watchdog: Watchdog;
  /** Set by the transport: ends its side of it. */
  onabort: (reason: unknown) => void = () => {};
  readonly log: (message: string) => void;
  #options: GatewayOptions;
  #body: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>> | null = null;
  #abort = () => {
    // Deno.serve aborts the signal after a whole answer as well.
    if (!this.reader.ended) this.abort(this.request.signal.reason);
  };
  #over = false;

  constructor(request: Request, options: GatewayOptions) {
    const {
      timeout = DEFAULTS.timeout,
      clientTimeout = DEFAULTS.clientTimeout,
      maxHeaderBytes = DEFAULTS.maxHeaderBytes,
      log = console.error,
    } = options;
    this.request = request;
    this.#options = options;
    this.log = log;
    this.reader = new AnswerReader({
      method: request.method,
      maxHeaderBytes,
      oncancel: (reason) => this.abort(reason),
      log,
    });
    this.watchdog = new Watchdog({ application: timeout, client: clientTimeout }, (waited) => {
      const [ms, status] = waited === "client" ? [clientTimeout, 408] : [timeout, 504];
      const error = new ProtocolError(
        `Cannot finish the answer as the ${waited} must move within ${ms} ms: it did not`,
        status,
      );
      if (this.reader.begun) log(error.message);
      this.abort(error);
    });
    if (request.signal.aborted) this.#abort();
    else request.signal.addEventListener("abort", this.#abort);
  }

  /** Sends the body as it comes. */
  async send(length: number | undefined, write: (chunk: Uint8Array) => Promise<void> | void) {
    const { maxBodyBytes = DEFAULTS.maxBodyBytes } = this.#options;
    this.#body = this.request.body!.getReader();
    let sent = 0;
    while (true) {
      const { done, value } = await this.watchdog.client(this.#body.read());
      if (this.#over) return;
      if (done) break;
      sent += value.length;
      if (sent > maxBodyBytes) throw tooLarge(maxBodyBytes);
      if (length !== undefined && sent > length) throw wrongLength(length, "more");
      await write(value);
      this.watchdog.moved();
    }
    if (length !== undefined && sent < length) throw wrongLength(length, String(sent));
  }

  /** Takes what the application has written, and waits while the client does not take it. */
  async receive(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    this.watchdog.moved();
    this.reader.push(bytes);
    await this.room();
  }

  /** Waits while the client does not take what has come. */
  async room(): Promise<void> {
    const room = this.reader.room();
    if (room) await this.watchdog.client(room);
  }

  /** Calls it off: the client is gone, or something went wrong. */
  abort(reason: unknown): void {
    if (this.#over) return;
    this.finish();
    this.reader.fail(reason);
    this.onabort(reason);
  }

  /** Says that the transport is done with it. */
  finish(): void {
    if (this.#over) return;
    this.#over = true;
    this.watchdog.stop();
    this.request.signal.removeEventListener("abort", this.#abort);
    this.#body?.cancel().catch(() => {});
  }
}

function tooLarge(most: number): ProtocolError {
  return new ProtocolError(
    `Cannot send request body as it must have at most ${most} bytes: it has more`,
    413,
  );
}

function wrongLength(length: number, actual: string): ProtocolError {
  return new ProtocolError(
    `Cannot send request body as it must have ${length} bytes: it has ${actual}`,
  );
}

/** The length of a request's body, if it is known; 0 without one. */
function bodyLength(request: Request, options: GatewayOptions): number | undefined {
  if (request.body === null) return 0;
  const text = request.headers.get("content-length");
  if (text === null) return undefined;
  const length = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(length)) {
    throw new ProtocolError(
      `Cannot send request body as Content-Length must be a whole number: current value is ${
        JSON.stringify(text)
      }`,
    );
  }
  const { maxBodyBytes = DEFAULTS.maxBodyBytes } = options;
  if (length > maxBodyBytes) throw tooLarge(maxBodyBytes);
  return length;
}

/** Reads a body to its end to learn its length. */
async function withLength(request: Request, most: number): Promise<Request> {
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  let length = 0;
  for await (const chunk of request.body!) {
    length += chunk.length;
    if (length > most) throw tooLarge(most);
    chunks.push(chunk);
  }
  const headers = new Headers(request.headers);
  headers.set("content-length", String(length));
  const { url, method, signal } = request;
  return new Request(url, { method, headers, signal, body: new Blob(chunks) });
}

/** Makes the variables of a request. */
function variablesOf(
  request: Request,
  info: Info,
  options: GatewayOptions,
  path: ScriptPath,
  length: number | undefined,
  files: { scriptFilename?: string; documentRoot?: string } = {},
): [name: string, value: string][] {
  const given = typeof options.variables === "function"
    ? options.variables(request, info)
    : options.variables;
  const variables = createVariables(request, {
    ...path,
    ...files,
    contentLength: request.body === null && length === 0 ? undefined : length,
    remoteAddr: info?.remoteAddr,
    dropAuthorization: options.passAuthorization === false,
    variables: given,
  });
  for (const [name, value] of variables) {
    if (value.includes("\0")) {
      throw new ProtocolError(`Cannot send ${name} as it must have no NUL: it has one`);
    }
  }
  return variables;
}

/** Decodes a request's path and takes the prefix off; undefined if it is not under the prefix. */
function pathBelow(request: Request, options: GatewayOptions): string | undefined {
  const path = decodeTarget(new URL(request.url).pathname);
  return stripPrefix(path, toByteString(options.prefix ?? ""));
}

async function askFastCGI(
  request: Request,
  info: Info,
  pool: ConnectionPool,
  options: FastCGIGatewayOptions,
): Promise<Answer> {
  const rest = pathBelow(request, options);
  const prefix = toByteString(options.prefix ?? "");
  if (rest === undefined) return plainResponse(404);
  let path: ScriptPath = { scriptName: prefix, pathInfo: rest };
  let files = {};
  const { root } = options;
  if (root !== undefined) {
    const { split = DEFAULTS.split, index = DEFAULTS.index, fallback } = options;
    const found = splitScript(rest || "/", { split: [...split], index, fallback });
    if (found === undefined || hasDotName(found.scriptName)) return plainResponse(404);
    const file = root.replace(/\/+$/, "") + toText(found.scriptName);
    if (options.checkFiles !== false && !await isScript(root, file)) return plainResponse(404);
    path = { scriptName: prefix + found.scriptName, pathInfo: found.pathInfo };
    files = { scriptFilename: file, documentRoot: root };
  }
  const length = bodyLength(request, options);
  const variables = variablesOf(request, info, options, path, length, files);
  const repeatable = request.body === null && IDEMPOTENT.test(request.method);
  const keep = repeatable && (options.maxIdleConnections ?? DEFAULTS.maxIdleConnections) > 0;
  while (true) {
    const connection = await pool.acquire(!repeatable, request.signal);
    const exchange = new FastCGIExchange(new Inquiry(request, options), connection, keep);
    const done = exchange.run(variables, length);
    done.then((reusable) => pool.release(connection, reusable));
    try {
      return await exchange.answer;
    } catch (error) {
      // The application closed the connection while it was idle, and has seen nothing of the request.
      if (!connection.reused || exchange.answered || request.signal.aborted) throw error;
      await done;
    }
  }
}

async function isScript(root: string, file: string): Promise<boolean> {
  try {
    const info = await Deno.stat(file);
    const inside = (await Deno.realPath(root)).replace(/\/*$/, "/");
    return info.isFile && (await Deno.realPath(file)).startsWith(inside);
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    return false;
  }
}

/** One request on a FastCGI connection. */
class FastCGIExchange implements RecordSink {
  /** Whether the application has sent anything. */
  answered = false;
  #inquiry: Inquiry;
  #connection: PooledConnection;
  #keep: boolean;
  #out = new ByteBuffer();
  #output: Output;
  #decoder = new RecordDecoder();
  #stdoutEnded = false;
  #ended = false;
  #sent = false;
  #stderr: LineLog;
  #grace: ReturnType<typeof setTimeout> | undefined;

  constructor(inquiry: Inquiry, connection: PooledConnection, keep: boolean) {
    this.#inquiry = inquiry;
    this.#connection = connection;
    this.#keep = keep;
    this.#output = new Output(connection.duplex, this.#out, () => {});
    this.#stderr = new LineLog(inquiry.log);
    inquiry.onabort = () => this.#abort();
  }

  get answer(): Promise<Answer> {
    return this.#inquiry.reader.answer;
  }

  /** Asks, and resolves when the connection is done with it: to whether it may serve again. */
  async run(
    variables: [name: string, value: string][],
    length: number | undefined,
  ): Promise<boolean> {
    const inquiry = this.#inquiry;
    try {
      this.#begin(variables);
      this.#sendBody(length);
      while (!this.#ended) {
        const bytes = await this.#connection.read();
        if (bytes === null) throw new Error("it closed the connection");
        this.answered = true;
        inquiry.watchdog.moved();
        this.#decoder.push(bytes, this);
        await inquiry.room();
      }
    } catch (error) {
      inquiry.abort(
        error instanceof ProtocolError ? error : new ProtocolError(
          `Cannot take the answer as the application must send all of it: ${
            (error as Error).message
          }`,
          502,
        ),
      );
    }
    clearTimeout(this.#grace);
    this.#stderr.end();
    inquiry.finish();
    return this.#ended && this.#keep && this.#sent && this.#grace === undefined &&
      this.#decoder.idle && !this.#output.writing && this.#out.length === 0;
  }

  record(type: number, id: number, content: Uint8Array): void {
    if (id !== 1 || this.#ended) return;
    if (type === RecordType.stdout) {
      if (content.length === 0) this.#stdoutEnded = true;
      else this.#inquiry.reader.push(content.slice());
    } else if (type === RecordType.stderr) {
      this.#stderr.push(content);
    } else if (type === RecordType.endRequest) {
      this.#end(content);
    }
  }

  #begin(variables: [name: string, value: string][]): void {
    const out = this.#out;
    encodeBeginRequest(out, 1, Role.responder, this.#keep ? KEEP_CONNECTION : 0);
    const pairs = new ByteBuffer();
    for (const [name, value] of variables) encodePair(pairs, name, value);
    encodeStream(out, RecordType.params, 1, pairs.bytes.subarray(0, pairs.length));
    encodeStreamEnd(out, RecordType.params, 1);
  }

  async #sendBody(length: number | undefined): Promise<void> {
    const inquiry = this.#inquiry;
    try {
      if (inquiry.request.body !== null) {
        this.#output.flush();
        await inquiry.send(length, (chunk) => {
          encodeStream(this.#out, RecordType.stdin, 1, chunk);
          return this.#output.flush();
        });
      }
      if (this.#ended || this.#grace !== undefined) return;
      encodeStreamEnd(this.#out, RecordType.stdin, 1);
      this.#sent = true;
      this.#output.flush();
    } catch (error) {
      // An application may answer, and close, without reading all: what it says counts.
      if (error instanceof ProtocolError) inquiry.abort(error);
    }
  }

  /** FCGI_END_REQUEST: the statuses are told only where there is no answer (SPEC C19). */
  #end(content: Uint8Array): void {
    const { reader } = this.#inquiry;
    const { appStatus, protocolStatus } = decodeEndRequest(content);
    this.#ended = true;
    if (protocolStatus !== ProtocolStatus.requestComplete && !reader.begun) {
      const overloaded = protocolStatus === ProtocolStatus.overloaded;
      throw new ProtocolError(
        `Cannot take the answer as FCGI_END_REQUEST must say that the request is complete: it says ${protocolStatus}`,
        overloaded ? 503 : 502,
      );
    }
    if (reader.begun && appStatus !== 0 && !this.#stdoutEnded) {
      throw new Error(`it broke off with status ${appStatus}`);
    }
    reader.end();
  }

  #abort(): void {
    if (this.#ended) return;
    this.#grace = setTimeout(() => this.#connection.close(), ABORT_GRACE);
    try {
      encodeAbortRequest(this.#out, 1);
      this.#output.flush();
    } catch {
      this.#connection.close();
    }
  }
}

async function askSCGI(
  asked: Request,
  info: Info,
  pool: ConnectionPool,
  options: SCGIGatewayOptions,
): Promise<Answer> {
  const rest = pathBelow(asked, options);
  if (rest === undefined) return plainResponse(404);
  let request = asked;
  let length = bodyLength(request, options);
  if (length === undefined) {
    request = await withLength(request, options.maxBufferedBody ?? DEFAULTS.maxBufferedBody);
    length = bodyLength(request, options)!;
  }
  const path = { scriptName: toByteString(options.prefix ?? ""), pathInfo: rest };
  const [, ...others] = variablesOf(request, info, options, path, length);
  const head = encodeSCGIHeaders([
    ["CONTENT_LENGTH", String(length)],
    ["SCGI", "1"],
    ...others.filter(([name]) => name !== "CONTENT_LENGTH" && name !== "SCGI"),
  ]);
  const connection = await pool.acquire(true, request.signal);
  const inquiry = new Inquiry(request, options);
  inquiry.onabort = () => connection.close();
  runSCGI(inquiry, connection, head, length).finally(() => pool.release(connection, false));
  return await inquiry.reader.answer;
}

async function runSCGI(
  inquiry: Inquiry,
  connection: PooledConnection,
  head: Uint8Array,
  length: number,
): Promise<void> {
  const out = new ByteBuffer();
  const output = new Output(connection.duplex, out, () => {});
  const sendBody = async () => {
    try {
      out.append(head);
      if (inquiry.request.body === null) return void output.flush();
      await inquiry.send(length, (chunk) => {
        out.append(chunk);
        return output.flush();
      });
    } catch (error) {
      if (error instanceof ProtocolError) inquiry.abort(error);
    }
  };
  try {
    sendBody();
    while (true) {
      const bytes = await connection.read();
      if (bytes === null) break;
      await inquiry.receive(bytes);
    }
    inquiry.reader.end();
  } catch (error) {
    inquiry.abort(
      error instanceof ProtocolError ? error : new ProtocolError(
        `Cannot take the answer as the application must send all of it: ${
          (error as Error).message
        }`,
        502,
      ),
    );
  }
  inquiry.finish();
}

/** The scripts of a CGI gateway, and the processes that run them. */
class Scripts {
  #options: CGIGatewayOptions;
  #root: string;
  #rules: ScriptRules;
  #env: Record<string, string>;
  #running = new Set<ProcessGroup>();

  constructor(options: CGIGatewayOptions) {
    const { root, script } = options;
    if ((root === undefined) === (script === undefined)) {
      throw new TypeError(
        `Cannot make a CGI gateway as it must have a root or a script: it has ${
          root === undefined ? "neither" : "both"
        }`,
      );
    }
    for (const flag of Object.values(options.permissions ?? {}).flat()) {
      if (!flag.startsWith("--") || /^--allow-all\b/.test(flag)) {
        throw new TypeError(
          `Cannot run scripts as a permission must be a flag such as "--allow-env": current value is ${
            JSON.stringify(flag)
          }`,
        );
      }
    }
    this.#options = options;
    this.#root = root ?? folderOf(script!);
    this.#rules = {
      index: options.index ?? [],
      extensions: options.extensions,
      needsRunBit: (file) => this.#command(file).length === 1,
    };
    this.#env = { PATH: searchPath(), ...options.env };
  }

  /** Ends all processes. */
  end(): void {
    for (const process of this.#running) process.kill();
  }

  async ask(asked: Request, info: Info): Promise<Answer> {
    const options = this.#options;
    const { log = console.error, maxProcesses = DEFAULTS.maxProcesses } = options;
    const rest = pathBelow(asked, options);
    if (rest === undefined) return plainResponse(404);
    const found = await this.#find(asked);
    if ("status" in found) {
      if (found.status !== 404) log(`Cannot run script: ${found.reason}`);
      return plainResponse(found.status);
    }
    if (this.#running.size >= maxProcesses) {
      throw new ProtocolError(
        `Cannot run script as there must be at most ${maxProcesses} processes: all are running`,
        503,
      );
    }
    let request = asked;
    let length = bodyLength(request, options);
    if (length === undefined) {
      request = await withLength(request, options.maxBufferedBody ?? DEFAULTS.maxBufferedBody);
      length = bodyLength(request, options)!;
    }
    const env = { ...this.#env };
    const files = { scriptFilename: found.file, documentRoot: this.#root };
    for (const [name, value] of variablesOf(request, info, options, found.path, length, files)) {
      if ((name === "PATH_INFO" || name === "SCRIPT_NAME") && !isUTF8(value)) {
        throw new ProtocolError(`Cannot run script as ${name} must be UTF-8: it is not`);
      }
      env[name] = toText(value);
    }
    const inquiry = new Inquiry(request, options);
    try {
      const process = new ProcessGroup({
        command: this.#command(found.file),
        cwd: folderOf(found.file),
        env,
      }, log);
      this.#running.add(process);
      process.status.finally(() => this.#running.delete(process));
      inquiry.onabort = () => process.kill();
      runScript(inquiry, process, length);
    } catch (error) {
      inquiry.abort(
        new ProtocolError(
          `Cannot run ${found.file} as it must be a program, or have an interpreter: ${
            (error as Error).message
          }`,
          502,
        ),
      );
    }
    return await inquiry.reader.answer;
  }

  async #find(
    request: Request,
  ): Promise<{ file: string; path: ScriptPath } | { status: number; reason: string }> {
    const { prefix = "", script } = this.#options;
    const encoded = stripPrefix(new URL(request.url).pathname, prefix);
    if (encoded === undefined) return { status: 404, reason: "The path is not below the prefix" };
    if (script !== undefined) {
      const info = await Deno.stat(script);
      const found = await checkScript(this.#root, script, info, 0, this.#rules);
      if ("status" in found) return found;
      const path = { scriptName: toByteString(prefix), pathInfo: decodeTarget(encoded) };
      return { file: script, path };
    }
    const found = await findScript(this.#root, fileNames(encoded || "/"), this.#rules);
    if ("status" in found) return found;
    const left = encoded.split("/").slice(1 + found.taken);
    const name = found.file.slice(this.#root.replace(/\/+$/, "").length);
    const path = {
      scriptName: toByteString(prefix + name),
      pathInfo: left.map((segment) => "/" + decodeTarget(segment)).join(""),
    };
    return { file: found.file, path };
  }

  /** The program and arguments that run a script. */
  #command(file: string): string[] {
    const { interpreters = {}, permissions } = this.#options;
    if (permissions !== undefined && DENO_SCRIPT.test(file)) {
      let folder = file.slice(this.#root.replace(/\/+$/, "").length);
      while (folder !== "") {
        folder = folder.slice(0, folder.lastIndexOf("/"));
        const flags = permissions[`/${folder.slice(1)}`];
        if (flags) return [Deno.execPath(), "run", "--quiet", "--no-prompt", ...flags, file];
      }
    }
    for (const [end, program] of Object.entries(interpreters)) {
      if (file.endsWith(end)) return [...program, file];
    }
    return [file];
  }
}

function folderOf(file: string): string {
  const slash = file.lastIndexOf("/");
  return slash < 0 ? "." : file.slice(0, slash) || "/";
}

async function runScript(inquiry: Inquiry, process: ProcessGroup, length: number): Promise<void> {
  const sendBody = async () => {
    try {
      if (inquiry.request.body !== null) {
        await inquiry.send(length, (chunk) => process.write(chunk));
      }
    } catch (error) {
      // A script may answer, and end, without reading all.
      if (error instanceof ProtocolError) inquiry.abort(error);
    }
    await process.closeInput();
  };
  try {
    sendBody();
    for await (const bytes of process.stdout) await inquiry.receive(bytes);
    inquiry.reader.end();
    const { success, code, signal } = await process.status;
    if (!success) inquiry.log(`The script ended with ${signal ?? `exit code ${code}`}`);
  } catch (error) {
    inquiry.abort(error);
  }
  inquiry.finish();
}

function searchPath(): string {
  const { state } = Deno.permissions.querySync({ name: "env", variable: "PATH" });
  return state === "granted" ? Deno.env.get("PATH") ?? DEFAULT_PATH : DEFAULT_PATH;
}
