/**
 * The client of FastCGI, and the gateway to a FastCGI application. Section numbers are those of the FastCGI
 * specification.
 *
 * @module
 */

import { plainResponse } from "../bridge/error_response.ts";
import type { Address } from "../io/address.ts";
import { LineLog } from "../io/line_log.ts";
import { absolutePath, kindBelow } from "../io/script_file.ts";
import { ByteBuffer } from "../wire/byte_buffer.ts";
import { toByteString, toText } from "../wire/byte_string.ts";
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
} from "../wire/fastcgi.ts";
import { ProtocolError } from "../wire/protocol_error.ts";
import { ApplicationConnections, type Connection } from "./connection.ts";
import { createGateway, fetchOnce, redirectToFolder } from "./handler.ts";
import { DEFAULTS, type FastCGIGatewayOptions, type Gateway, type GatewayInfo } from "./options.ts";
import type { ApplicationResponse } from "./response.ts";
import { RoundTrip, type ScriptFiles, type VariablePairs } from "./round_trip.ts";
import { fileNames, hasDotName, pathBelow, type ScriptPath, splitScript } from "./script_path.ts";

const IDEMPOTENT = /^(?:GET|HEAD|OPTIONS|PUT|DELETE)$/;
const REQUEST_ID = 1;
/** How long an application may take to end an aborted request, in milliseconds. */
const ABORT_GRACE = 1000;

/**
 * Creates a handler that calls a FastCGI application: PHP-FPM, fcgiwrap, an app of `serveFastCGI`.
 *
 * Requests that can be repeated (GET, HEAD, OPTIONS, PUT and DELETE without a body) reuse connections: if the
 * application closes a kept connection before it responds, the request is sent again over a new one. Other requests
 * get a new connection each. To spread requests over several applications, put a load balancer between.
 *
 * Needs `--allow-net` of the address; for a Unix socket `--allow-net=unix:/path`, and `--allow-read` and
 * `--allow-write` of its path; with `root` also `--allow-read` of it.
 *
 * @param address `host:port`, `[ipv6]:port` or `unix:/path`.
 * @throws {TypeError} If the address is invalid.
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
  const { maxIdleConnections = options.root === undefined ? DEFAULTS.maxIdleConnections : 0 } =
    options;
  const connections = new ApplicationConnections(address, { ...options, maxIdleConnections });
  return createGateway(
    options,
    (request, info) => callFastCGI(request, info, connections, maxIdleConnections > 0, options),
    () => connections.close(),
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
  const connections = new ApplicationConnections(address, { ...options, maxIdleConnections: 0 });
  return fetchOnce((sent) => callFastCGI(sent, undefined, connections, false, options), request);
}

/** Sends a request, twice if need be. @param keeps Whether connections are kept for the next request. */
async function callFastCGI(
  request: Request,
  info: GatewayInfo | undefined,
  connections: ApplicationConnections,
  keeps: boolean,
  options: FastCGIGatewayOptions,
): Promise<ApplicationResponse> {
  const found = await findScript(request, options);
  if (found instanceof Response) return found;
  const { needsLength = options.root !== undefined, maxBufferedBody = DEFAULTS.maxBufferedBody } =
    options;
  const repeatable = request.body === null && IDEMPOTENT.test(request.method);
  for (let fresh = !repeatable;; fresh = true) {
    const roundTrip = new RoundTrip(request, options);
    try {
      if (needsLength) await roundTrip.measure(maxBufferedBody);
      const variables = roundTrip.variables(info, found.path, found.files);
      const connection = await connections.acquire(fresh, request.signal);
      if (roundTrip.over) {
        connection.release(false);
        return await roundTrip.response;
      }
      const client = new FastCGIClient(roundTrip, connection, repeatable && keeps);
      const done = client.run(variables).then((reusable) => connection.release(reusable));
      try {
        return await roundTrip.response;
      } catch (error) {
        // The application closed the connection while it was idle, before it read the request.
        if (!connection.reused || !client.lost) throw error;
        await done;
      }
    } catch (error) {
      roundTrip.abort(error);
      throw error;
    }
  }
}

/** Finds the script that the path names. Without `root` the application handles every path. */
async function findScript(
  request: Request,
  options: FastCGIGatewayOptions,
): Promise<{ path: ScriptPath; files?: ScriptFiles } | Response> {
  const {
    prefix = DEFAULTS.prefix,
    root,
    split = DEFAULTS.split,
    index = DEFAULTS.index,
    fallback,
    checkFiles = DEFAULTS.checkFiles,
  } = options;
  const rest = pathBelow(request, prefix);
  if (rest === undefined) return plainResponse(404);
  const scriptPrefix = toByteString(prefix);
  if (root === undefined) return { path: { scriptName: scriptPrefix, pathInfo: rest } };
  const documentRoot = absolutePath(root).replace(/\/+$/, "");
  const kind = async (name: string) =>
    checkFiles ? await kindBelow(documentRoot || "/", documentRoot + toText(name)) : "file";
  let path = splitScript(rest || "/", { split: [...split], index });
  if (path && (hasDotName(path.scriptName) || await kind(path.scriptName) !== "file")) {
    path = undefined;
  }
  if (path !== undefined) checkNames(request, scriptPrefix + path.scriptName);
  if (path === undefined && checkFiles && !rest.endsWith("/")) {
    const isFolder = await kind(rest) === "folder" && await kind(`${rest}/${index}`) === "file";
    if (isFolder && !hasDotName(rest)) return redirectToFolder(request);
  }
  if (path === undefined && fallback !== undefined) path = { scriptName: fallback, pathInfo: "" };
  if (path === undefined) return plainResponse(404);
  return {
    path: { scriptName: scriptPrefix + path.scriptName, pathInfo: path.pathInfo },
    files: { scriptFilename: documentRoot + toText(path.scriptName), documentRoot },
  };
}

/**
 * Checks that each segment of the script's name is one segment of the URL (rule F14).
 *
 * @throws {ProtocolError} If a segment of the URL has an encoded slash, backslash or NUL, or is not UTF-8.
 */
function checkNames(request: Request, scriptName: string): void {
  let left = scriptName.split("/").length - 1;
  for (const _ of fileNames(new URL(request.url).pathname)) if (--left === 0) return;
}

/** One request to a FastCGI application. */
class FastCGIClient implements RecordSink {
  /** Whether the connection failed or ended before the application had sent anything. */
  lost = false;
  #roundTrip: RoundTrip;
  #connection: Connection;
  #keep: boolean;
  #log: LineLog;
  #decoder = new RecordDecoder();
  #stdoutEnded = false;
  #ended = false;
  #grace: ReturnType<typeof setTimeout> | undefined;

  /** @param keep Whether the application is to keep the connection open. */
  constructor(roundTrip: RoundTrip, connection: Connection, keep: boolean) {
    this.#roundTrip = roundTrip;
    this.#connection = connection;
    this.#keep = keep;
    this.#log = new LineLog(roundTrip.log);
    roundTrip.onabort = roundTrip.oncomplete = () => this.#abort();
  }

  /** Sends the request and reads the response. Resolves to whether the connection can carry another request. */
  async run(variables: VariablePairs): Promise<boolean> {
    const roundTrip = this.#roundTrip;
    const connection = this.#connection;
    let received = false;
    let sent = false;
    try {
      this.#begin(variables);
      this.#sendBody().then((all) => sent = all);
      while (!this.#ended) {
        const bytes = await connection.read();
        if (bytes === null) throw new Error("it closed the connection");
        received = true;
        roundTrip.watchdog.moved();
        this.#decoder.push(bytes, this);
        await roundTrip.room();
      }
    } catch (error) {
      this.lost = !received && !roundTrip.over;
      roundTrip.fail(error);
    }
    clearTimeout(this.#grace);
    this.#log.end();
    roundTrip.finish();
    return this.#keep && this.#ended && sent && this.#grace === undefined && connection.sent &&
      this.#decoder.idle;
  }

  record(type: number, id: number, content: Uint8Array): void {
    if (id !== REQUEST_ID || this.#ended) return;
    if (type === RecordType.stdout) {
      if (content.length === 0) this.#stdoutEnded = true;
      else this.#roundTrip.reader.push(content.slice());
    } else if (type === RecordType.stderr) {
      this.#log.push(content);
    } else if (type === RecordType.endRequest) {
      this.#end(content);
    }
  }

  #begin(variables: VariablePairs): void {
    const { out } = this.#connection;
    encodeBeginRequest(out, REQUEST_ID, Role.responder, this.#keep ? KEEP_CONNECTION : 0);
    const pairs = new ByteBuffer();
    for (const [name, value] of variables) encodePair(pairs, name, value);
    encodeStream(out, RecordType.params, REQUEST_ID, pairs.bytes.subarray(0, pairs.length));
    encodeStreamEnd(out, RecordType.params, REQUEST_ID);
  }

  /** Sends FCGI_STDIN while run() reads the response. Returns whether all of it was sent. */
  async #sendBody(): Promise<boolean> {
    const connection = this.#connection;
    const { request } = this.#roundTrip;
    try {
      if (request.body !== null) {
        connection.flush();
        const sent = await this.#roundTrip.send((chunk) => {
          encodeStream(connection.out, RecordType.stdin, REQUEST_ID, chunk);
          return connection.flush();
        });
        if (!sent || this.#ended) return false;
      }
      encodeStreamEnd(connection.out, RecordType.stdin, REQUEST_ID);
      connection.flush();
      return true;
    } catch {
      // run() fails to read as well, and reports it.
      return false;
    }
  }

  /** Handles FCGI_END_REQUEST (section 5.5). Its protocol status counts only if there is no response (rule C19). */
  #end(content: Uint8Array): void {
    const { reader } = this.#roundTrip;
    const { appStatus, protocolStatus } = decodeEndRequest(content);
    this.#ended = true;
    if (protocolStatus !== ProtocolStatus.requestComplete && !reader.begun) {
      throw new ProtocolError(
        `Cannot read response as FCGI_END_REQUEST must have protocol status 0: current value is ${protocolStatus}`,
        protocolStatus === ProtocolStatus.overloaded ? 503 : 502,
      );
    }
    // The application failed after the header block of its response (rule B17).
    if (reader.begun && appStatus !== 0 && !this.#stdoutEnded) {
      throw new Error(`it ended the request with status ${appStatus}`);
    }
    reader.end();
  }

  /** Sends FCGI_ABORT_REQUEST (section 5.4). If the application does not end the request, closes the connection. */
  #abort(): void {
    if (this.#ended || this.#grace !== undefined) return;
    this.#grace = setTimeout(() => this.#connection.close(), ABORT_GRACE);
    try {
      encodeAbortRequest(this.#connection.out, REQUEST_ID);
      this.#connection.flush();
    } catch {
      this.#connection.close();
    }
  }
}
