/**
 * The client of FastCGI, and the gateway to a FastCGI application. Section numbers are those of the FastCGI
 * specification.
 *
 * @module
 */

import { plainResponse } from "../bridge/plain_response.ts";
import type { Address } from "../io/address.ts";
import { LineLog } from "../io/line_log.ts";
import { safeLog } from "../io/log.ts";
import { absolutePath, type FileKind, FileKinds } from "./script_file.ts";
import type { Spool } from "../io/spool.ts";
import { Progress } from "../io/progress.ts";
import type { CallTrace } from "../io/telemetry.ts";
import type { Ticked, Ticker } from "../io/ticker.ts";
import { toText } from "../wire/byte_string.ts";
import {
  decodeEndRequest,
  encodeAbortRequest,
  encodeBeginRequest,
  encodePair,
  encodeStream,
  encodeStreamEnd,
  finishStream,
  KEEP_CONNECTION,
  ProtocolStatus,
  RecordDecoder,
  type RecordSink,
  RecordType,
  Role,
  startStream,
} from "../wire/fastcgi.ts";
import { ProtocolError } from "../wire/protocol_error.ts";
import { ApplicationConnections, type Connection } from "./connection.ts";
import {
  createGateway,
  createSpool,
  createTicker,
  fetchOnce,
  findMerged,
  redirectToFolder,
} from "./handler.ts";
import { DEFAULTS, type FastCGIGatewayOptions, type Gateway, type GatewayInfo } from "./options.ts";
import type { ApplicationResponse } from "./response.ts";
import { RoundTrip, type ScriptFiles, type Transport } from "./round_trip.ts";
import {
  type BasePath,
  decodeTarget,
  fileNames,
  hasBadName,
  pathBelow,
  readBasePath,
  type ScriptPath,
  splitScript,
} from "./script_path.ts";

const IDEMPOTENT = /^(?:GET|HEAD|OPTIONS|PUT|DELETE)$/;
const MAX_REQUEST_ID = 65535;
/** How long an application may take to end an aborted request, in milliseconds. */
const ABORT_GRACE = 1000;

/**
 * Creates a handler that calls a FastCGI application: PHP-FPM, fcgiwrap, an app of `serveFastCGI`.
 *
 * Requests that can be repeated (GET, HEAD, OPTIONS, PUT and DELETE without a body) reuse connections: if the
 * application closes a kept connection before it responds, the request is sent again over a new one. Other requests
 * get a new connection each. To spread requests over several applications, put a load balancer in front of them.
 *
 * Needs `--allow-net` of the address; for a Unix socket `--allow-net=unix:/path`, and `--allow-read` and
 * `--allow-write` of its path; with `root` also `--allow-read` of it. With `--allow-read` and `--allow-write` of the
 * temporary folder, long bodies that are received first wait there instead of in memory (`bufferBody`).
 *
 * @param address `host:port`, `[ipv6]:port` or `unix:/path`.
 * @throws {TypeError} If the address or the base path is invalid.
 * @throws {RangeError} If a limit or timeout is negative or NaN.
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
  const application = new Application(address, options, createTicker(options));
  return createGateway(
    options,
    (request, info, trace) => application.call(request, info, trace),
    () => application.close(),
  );
}

/**
 * Sends one request to a FastCGI application, over a new connection.
 *
 * @param request A request, or its URL.
 * @param address `host:port`, `[ipv6]:port` or `unix:/path`.
 * @throws {Error} If the application does not respond, or its response is invalid.
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
  const application = new Application(
    address,
    { ...options, maxIdleConnections: 0 },
    createTicker(options, true),
  );
  return fetchOnce(options, (sent, info, trace) => application.call(sent, info, trace), request);
}

/** A FastCGI application, as a gateway calls it. */
class Application {
  #options: FastCGIGatewayOptions;
  #connections: ApplicationConnections;
  #ticker: Ticker;
  #spool: Spool;
  /** The part of a body that is received before the application is called. */
  #bufferedPart: "whole" | "length" | "small" | "none";
  #scripts: ScriptFinder;
  /** Whether connections are kept for the next request. */
  #keeps: boolean;

  constructor(address: Address, options: FastCGIGatewayOptions, ticker: Ticker) {
    const { root, maxIdleConnections = Infinity } = options;
    this.#options = options;
    this.#connections = new ApplicationConnections(
      address,
      { ...options, maxIdleConnections },
      ticker,
    );
    this.#ticker = ticker;
    this.#spool = createSpool(options);
    const { needsLength = root === undefined ? undefined : true } = options;
    const { bufferBody = root !== undefined && needsLength } = options;
    if (bufferBody) this.#bufferedPart = "whole";
    else this.#bufferedPart = needsLength === undefined ? "small" : needsLength ? "length" : "none";
    this.#scripts = new ScriptFinder(options);
    this.#keeps = maxIdleConnections > 0;
  }

  /** Closes all connections. */
  close(): void {
    this.#connections.close();
    this.#ticker.close();
  }

  /** Sends a request, and again if the application closed its kept connection. */
  async call(
    request: Request,
    info: GatewayInfo | undefined,
    trace?: CallTrace,
  ): Promise<ApplicationResponse> {
    const options = this.#options;
    const url = new URL(request.url);
    const found = this.#scripts.find(request, url);
    if (found instanceof Response) return found;
    const part = this.#bufferedPart;
    const repeatable = request.body === null && IDEMPOTENT.test(request.method);
    for (let fresh = !repeatable;; fresh = true) {
      const roundTrip = new RoundTrip(request, info, options, this.#ticker, trace);
      try {
        if (part !== "none") await roundTrip.receive(part, this.#spool);
        const reused = fresh || roundTrip.over ? undefined : this.#connections.reuse();
        const connection = reused ?? await this.#connections.connect(roundTrip, !fresh);
        if (connection === undefined) return await roundTrip.response;
        const isKept = connection.uses > 1;
        const client = this.#send(roundTrip, connection, url, found, repeatable);
        try {
          return await roundTrip.response;
        } catch (error) {
          // The application closed the connection while it was idle, before it read the request.
          if (!isKept || !client.lost) throw error;
          await client.released;
        }
      } catch (error) {
        roundTrip.abort(error);
        throw error;
      }
    }
  }

  /** Starts to send a request. */
  #send(
    roundTrip: RoundTrip,
    connection: Connection,
    url: URL,
    found: FoundScript,
    repeatable: boolean,
  ): FastCGIClient {
    const client = new FastCGIClient(
      roundTrip,
      connection,
      repeatable && this.#keeps,
      this.#ticker,
    );
    try {
      client.begin(url, found);
    } catch (error) {
      // Part of the request is encoded, and nothing is sent.
      this.#connections.release(connection, false);
      throw error;
    }
    client.released = client.run().then((reusable) =>
      this.#connections.release(connection, reusable)
    );
    return client;
  }
}

/** The script that a path names. Without `root` the application handles every path. */
export interface FoundScript {
  path: ScriptPath;
  files?: ScriptFiles;
}

/** The result for a path that names no script. */
const NONE = { reason: "there is no such script" } as const;

/** Finds the scripts that paths name. Without `root` the application handles all paths below the base path. */
export class ScriptFinder {
  #options: FastCGIGatewayOptions;
  #base: BasePath;
  /** The files of the root, if there is one. */
  #files: FileKinds | undefined;
  #log: (message: string) => void;

  /**
   * @param options `basePath`, `root`, and how its scripts are found.
   * @throws {TypeError} If the base path is invalid.
   */
  constructor(options: FastCGIGatewayOptions) {
    const { root, log } = options;
    this.#options = options;
    this.#base = readBasePath(options);
    this.#log = safeLog(log);
    if (root === undefined) return;
    this.#files = new FileKinds(absolutePath(root).replace(/\/+$/, ""));
  }

  /** Returns the script that the path of a request names, or the response if there is none. */
  find(request: Request, { pathname }: URL): FoundScript | Response {
    const { fallback, mergeSlashes = DEFAULTS.mergeSlashes } = this.#options;
    const files = this.#files;
    const rest = pathBelow(pathname, this.#base);
    if (files === undefined) {
      if (rest === undefined) return plainResponse(404);
      return { path: { scriptName: this.#base.name, pathInfo: decodeTarget(rest) } };
    }
    const found = findMerged(
      request,
      pathname,
      mergeSlashes,
      (path) => this.#look(request, path, files),
    );
    if (!("reason" in found)) return found;
    if (fallback === undefined || rest === undefined) return plainResponse(404);
    return this.#found({ scriptName: fallback, pathInfo: "" }, files);
  }

  #look(
    request: Request,
    pathname: string,
    files: FileKinds,
  ): FoundScript | Response | typeof NONE {
    const {
      split = DEFAULTS.split,
      index = DEFAULTS.index,
      checkFiles = DEFAULTS.checkFiles,
    } = this.#options;
    const encoded = pathBelow(pathname, this.#base);
    if (encoded === undefined) return NONE;
    const rest = decodeTarget(encoded);
    const kind = (name: string): FileKind => checkFiles ? files.kind(toText(name)) : "file";
    const path = splitScript(rest || "/", { split: [...split], index });
    if (path !== undefined && !hasBadName(path.scriptName)) {
      const named = kind(path.scriptName);
      if (named === "foreign") return this.#refuse(path.scriptName, files);
      if (named === "file") {
        checkNames(pathname, this.#base.name + path.scriptName);
        return this.#found(path, files);
      }
    }
    if (checkFiles && !rest.endsWith("/") && !hasBadName(rest)) {
      const inFolder = `${rest}/${index}`;
      const foreign = [rest, inFolder].find((name) => kind(name) === "foreign");
      if (foreign !== undefined) return this.#refuse(foreign, files);
      if (kind(rest) === "folder" && kind(inFolder) === "file") {
        return redirectToFolder(request, pathname);
      }
    }
    return NONE;
  }

  #refuse(name: string, { root }: FileKinds): typeof NONE {
    this.#log(`Cannot run script: ${root}${toText(name)} is behind a link to another user's file`);
    return NONE;
  }

  #found({ scriptName, pathInfo }: ScriptPath, { root }: FileKinds): FoundScript {
    return {
      path: { scriptName: this.#base.name + scriptName, pathInfo },
      files: { scriptFilename: root + toText(scriptName), documentRoot: root || "/" },
    };
  }
}

/**
 * Checks that each segment of the script's name is one segment of the URL (rule F14).
 *
 * @throws {ProtocolError} If a segment of the URL has an encoded slash, backslash or NUL, or is not UTF-8.
 */
function checkNames(pathname: string, scriptName: string): void {
  let left = scriptName.split("/").length - 1;
  for (const _ of fileNames(pathname)) if (--left === 0) return;
}

/**
 * The phases of a request on its connection: "waiting" until the application sends something, "responding", "streamed"
 * after the end of FCGI_STDOUT, and "ended" by FCGI_END_REQUEST. "aborted": FCGI_ABORT_REQUEST is sent. "lost": the
 * connection failed before the application had sent anything. "unusable": it failed later, was closed by this side, or
 * carries bytes that belong to no request, so that it cannot be used again.
 */
type Phase = "waiting" | "responding" | "streamed" | "ended" | "aborted" | "lost" | "unusable";

/** The phases in which a request can be aborted. */
const OPEN: ReadonlySet<Phase> = new Set(["waiting", "responding", "streamed"]);

/** One request to a FastCGI application. */
class FastCGIClient implements RecordSink, Ticked, Transport {
  /** Resolves when the connection is back in the pool. */
  released: Promise<void> | undefined;
  #phase: Phase = "waiting";
  #roundTrip: RoundTrip;
  #connection: Connection;
  /** The request's id. On a kept connection each request has its own, so that it ignores late records. */
  #id: number;
  #log: LineLog | undefined;
  #decoder = new RecordDecoder();
  /** Whether all of FCGI_STDIN was sent. */
  #bodySent = false;
  place = -1;
  #ticker: Ticker;
  #aborted = new Progress();

  /**
   * @param keep Whether the application should keep the connection open.
   * @param ticker Limits how long the application may take to end an aborted request.
   */
  constructor(roundTrip: RoundTrip, connection: Connection, keep: boolean, ticker: Ticker) {
    this.#ticker = ticker;
    this.#roundTrip = roundTrip;
    this.#connection = connection;
    this.#id = (connection.uses - 1) % MAX_REQUEST_ID + 1;
    connection.keeps = keep;
  }

  /** Whether the connection failed or ended before the application had sent anything. */
  get lost(): boolean {
    return this.#phase === "lost";
  }

  /**
   * Encodes the request without its body.
   *
   * @throws {ProtocolError} If a variable is invalid.
   */
  begin(url: URL, { path, files }: FoundScript): void {
    const { out } = this.#connection;
    encodeBeginRequest(out, this.#id, Role.responder, this.#connection.keeps ? KEEP_CONNECTION : 0);
    const start = startStream(out);
    this.#roundTrip.variables(url, path, files, (name, value) => encodePair(out, name, value));
    finishStream(out, RecordType.params, this.#id, start);
    encodeStreamEnd(out, RecordType.params, this.#id);
  }

  /** Sends the request and reads the response. Resolves to whether the connection can carry another request. */
  async run(): Promise<boolean> {
    const roundTrip = this.#roundTrip;
    const { reader } = roundTrip;
    roundTrip.transport = this;
    try {
      this.#sendBody();
      while (this.#phase !== "ended" && this.#phase !== "unusable") {
        const bytes = await this.#connection.read();
        if (bytes === null) throw new Error("it closed the connection");
        if (this.#phase === "waiting") this.#phase = "responding";
        roundTrip.progressed();
        this.#decoder.push(bytes, this);
        reader.flush();
        const room = roundTrip.room();
        if (room) await room;
      }
    } catch (error) {
      const lost = this.#phase === "waiting" && !roundTrip.over && !this.#connection.closed;
      this.#phase = lost ? "lost" : "unusable";
      roundTrip.fail(error);
    }
    this.#ticker.delete(this);
    this.#log?.end();
    roundTrip.finish();
    return this.#connection.keeps && this.#phase === "ended" && this.#bodySent &&
      this.#connection.sent &&
      this.#decoder.idle;
  }

  record(type: number, id: number, content: Uint8Array<ArrayBuffer>): void {
    if (this.#phase === "ended") this.#phase = "unusable";
    if (id !== this.#id || this.#phase === "unusable") return;
    if (type === RecordType.stdout) {
      if (content.length > 0) this.#roundTrip.reader.push(content);
      else if (this.#phase === "responding") this.#phase = "streamed";
    } else if (type === RecordType.stderr) {
      this.#log ??= new LineLog(this.#roundTrip.log);
      this.#log.push(content);
    } else if (type === RecordType.endRequest) {
      this.#end(content);
    }
  }

  /** Sends FCGI_STDIN while run() reads the response. */
  async #sendBody(): Promise<void> {
    const connection = this.#connection;
    const id = this.#id;
    try {
      if (this.#roundTrip.request.body !== null) {
        connection.setNoDelay();
        connection.flush();
        const sent = await this.#roundTrip.send((chunk) => {
          encodeStream(connection.out, RecordType.stdin, id, chunk);
          return connection.flush();
        });
        if (!sent || this.#phase === "ended" || this.#phase === "unusable") return;
      }
      encodeStreamEnd(connection.out, RecordType.stdin, id);
      connection.flush();
      this.#bodySent = true;
    } catch {
      // run() fails to read as well, and reports it.
    }
  }

  /** Handles FCGI_END_REQUEST (section 5.5). Its protocol status counts only if there is no response (rule C19). */
  #end(content: Uint8Array): void {
    const { reader } = this.#roundTrip;
    const { appStatus, protocolStatus } = decodeEndRequest(content);
    const before = this.#phase;
    this.#phase = before === "aborted" ? "unusable" : "ended";
    if (protocolStatus !== ProtocolStatus.requestComplete && !reader.begun) {
      throw new ProtocolError(
        `Cannot read response as FCGI_END_REQUEST must have protocol status 0: current value is ${protocolStatus}`,
        protocolStatus === ProtocolStatus.overloaded ? 503 : 502,
      );
    }
    // The application failed after the header block of its response (rule B17).
    if (reader.begun && appStatus !== 0 && before === "responding") {
      throw new Error(`it ended the request with status ${appStatus}`);
    }
    reader.end();
  }

  /** Closes the connection if the application does not end an aborted request in time. */
  check(now: number): void {
    if (this.#aborted.elapsed(now) >= ABORT_GRACE) this.#connection.close();
  }

  /** Ends a request whose body is not needed. */
  complete(): void {
    this.abort();
  }

  /** Sends FCGI_ABORT_REQUEST (section 5.4). If the application does not end the request, closes the connection. */
  abort(): void {
    if (!OPEN.has(this.#phase)) return;
    this.#phase = "aborted";
    this.#ticker.add(this);
    try {
      encodeAbortRequest(this.#connection.out, this.#id);
      this.#connection.flush();
    } catch {
      this.#connection.close();
    }
  }
}
