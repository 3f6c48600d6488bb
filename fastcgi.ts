/**
 * Serves an app over FastCGI 1.0: a daemon behind nginx, Apache, lighttpd, Caddy, HAProxy or h2o.
 *
 * ```ts no-assert
 * import { serveFastCGI } from "@gatehouse/cgi/fastcgi";
 *
 * const server = serveFastCGI(
 *   () => new Response("Hello"),
 *   Deno.listen({ hostname: "127.0.0.1", port: 0 }),
 * );
 * await server.shutdown();
 * ```
 *
 * @module
 */

import type { App, AppObject, AppOptions, FilterInfo, Handler } from "./bridge/app.ts";
import { describeError } from "./bridge/describe.ts";
import type { DebugHook } from "./server/error_response.ts";
import { BodyWatch } from "./server/body_watch.ts";
import { disconnected, Exchange, FilterExchange, type TransportInfo } from "./server/exchange.ts";
import {
  BODY_HIGH_WATER,
  type LimitOptions,
  NEW_CONNECTION,
  resolveLimits,
} from "./server/limits.ts";
import { contentLength } from "./bridge/request.ts";
import { RequestBody, type RequestBodySource } from "./server/request_body.ts";
import { refuse, respond, type ResponseSink } from "./server/respond.ts";
import { RunningRequests } from "./server/running_requests.ts";
import { NO_QUIRKS, type ServerQuirks, serverQuirks } from "./bridge/server_quirks.ts";
import { Channel, type ChannelHandler, LINGER, LINGER_IDLE, StallError } from "./io/channel.ts";
import type { Duplex, Listener } from "./io/duplex.ts";
import { safeLog } from "./io/log.ts";
import { addressesFromEnvironment } from "./io/peers.ts";
import { mainModulePath } from "./io/main_module.ts";
import {
  MAX_CONNECTIONS,
  type Server,
  type ServerConnection,
  type ServerOptions,
  startServer,
} from "./server/server.ts";
import { Progress } from "./io/progress.ts";
import { workload } from "./io/workload.ts";
import { ByteBuffer } from "./wire/byte_buffer.ts";
import { decodeByteString, toByteString } from "./wire/byte_string.ts";
import {
  decodeBeginRequest,
  decodePairs,
  decodeVariables,
  encodeEndRequest,
  encodeStream,
  encodeStreamEnd,
  encodeStreamText,
  encodeUnknownType,
  encodeValues,
  isHTTP,
  ProtocolStatus,
  RecordDecoder,
  type RecordSink,
  RecordType,
  Role,
} from "./wire/fastcgi.ts";
import { ProtocolError } from "./wire/protocol_error.ts";
import { Variables } from "./wire/variables.ts";

export { localRedirect } from "./bridge/local_redirect.ts";
export { inheritedListener, type InheritedListenerOptions } from "./io/inherited.ts";
export { listen, type ListenOptions } from "./io/listen.ts";
export type { Duplex, Listener } from "./io/duplex.ts";
export type { LimitOptions } from "./server/limits.ts";
export type { Server, ServerOptions } from "./server/server.ts";
export type {
  App,
  AppObject,
  AppOptions,
  CompletedRequest,
  FilterInfo,
  Handler,
  HandlerInfo,
  Protocol,
} from "./bridge/app.ts";

/** Options of {@linkcode serveFastCGI}. */
export interface FastCGIOptions extends AppOptions, LimitOptions, ServerOptions {
  /**
   * How many requests may be in progress on one connection. Beyond it the response is 503.
   *
   * @default 64
   */
  maxRequestsPerConnection?: number;
  /**
   * How long a connection stays open after a request, in milliseconds. It must exceed the web server's own timeout, so
   * that no request meets a connection that closes. Before the first request `variablesTimeout` applies, too.
   *
   * @default 90_000
   */
  idleTimeout?: number;
  /**
   * The IP addresses that connections may come from (section 3.2). Connections from others, and over Unix sockets, are
   * closed.
   *
   * @default The list in FCGI_WEB_SERVER_ADDRS if it is set and may be read, else any address
   */
  webServerAddresses?: string[];
  /**
   * Where the errors and the log of a request go: to the web server by FCGI_STDERR, to the option `log`, or to both.
   * Those that the web server cannot get, as the request is over, go to `log` anyway.
   *
   * @default "server"
   */
  logTo?: "server" | "log" | "both";
}

type Limits = Required<
  LimitOptions & Pick<FastCGIOptions, "maxRequestsPerConnection" | "idleTimeout">
>;

/** How many unsent bytes may be pending while the web server sends more requests or management records. */
const MAX_UNREAD = 4_194_304;
/** The response to an HTTP request. */
const HTTP_REFUSAL =
  "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n" +
  "400 Bad Request: this address speaks FastCGI, not HTTP\n";
/** How many bytes of variables a refused request may have: more are dropped, and an access log does without them. */
const MAX_REFUSED = 16_384;
/** How many bytes may be pending before a log message flushes them. */
const LOG_BUFFER = 16384;
/** The id of all of nginx's requests. */
const NGINX_ID = 1;
/** How long nginx may take to close a connection that it was asked to close, in milliseconds. */
const LEAVE = 5000;

/**
 * Serves an app over FastCGI: in the responder role, and in the roles authorizer and filter if the app has them. A
 * connection stays open if the web server requests it, and may carry several requests at once.
 *
 * @param app A handler, or an object with `fetch`.
 * @param listener The result of `Deno.listen`, TCP or Unix, or of `inheritedListener()`.
 * @returns A handle with the shape of `Deno.HttpServer`.
 * @throws {Error} If other machines can reach the listener and no option allows this.
 * @throws {RangeError} If a limit or timeout is negative or NaN.
 *
 * @example A daemon for nginx's `fastcgi_pass 127.0.0.1:9000`
 * ```ts no-assert
 * import { serveFastCGI } from "@gatehouse/cgi/fastcgi";
 *
 * const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
 * await using server = serveFastCGI(
 *   (request) => new Response(`You requested ${new URL(request.url).pathname}`),
 *   listener,
 * );
 * ```
 */
export function serveFastCGI(app: App, listener: Listener, options: FastCGIOptions = {}): Server {
  const { webServerAddresses = addressesFromEnvironment() } = options;
  const service = new Service(app, options, listener.addr);
  return startServer(
    listener,
    { ...options, webServerAddresses },
    (duplex, overloaded) => new Connection(service, duplex, overloaded),
  );
}

/**
 * Creates an authorizer's response that allows a request (section 6.3).
 *
 * @param variables The variables to add to the protected request.
 *
 * @example
 * ```ts
 * import { allow } from "@gatehouse/cgi/fastcgi";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(allow({ USER_ID: "7" }).headers.get("Variable-USER_ID"), "7");
 * ```
 */
export function allow(variables: Record<string, string> = {}): Response {
  const headers = new Headers();
  for (const [name, value] of Object.entries(variables)) {
    headers.set(`Variable-${name}`, toByteString(value));
  }
  return new Response(null, { headers });
}

/** The state that all connections of one server share. */
class Service {
  readonly app: AppObject;
  readonly program: string | undefined = mainModulePath();
  readonly options: FastCGIOptions;
  readonly limits: Limits;
  readonly log: (message: string) => void;
  readonly running: RunningRequests;
  readonly debug: DebugHook;
  readonly capacity: [name: string, value: string][];

  constructor(app: App, options: FastCGIOptions, address: Deno.Addr) {
    this.app = typeof app === "function" ? { fetch: app } : app;
    const {
      maxConnections = MAX_CONNECTIONS,
      maxRequestsPerConnection = 64,
      idleTimeout = 90_000,
    } = options;
    this.options = options;
    this.limits = { ...resolveLimits(options), maxRequestsPerConnection, idleTimeout };
    this.log = safeLog(options.log);
    this.running = new RunningRequests(this.log);
    this.debug = {
      load: () => import("./debug/debug_page.ts"),
      address,
    };
    this.capacity = [
      ["FCGI_MAX_CONNS", String(maxConnections)],
      ["FCGI_MAX_REQS", String(this.limits.maxRequests)],
      ["FCGI_MPXS_CONNS", "1"],
    ];
  }
}

/** One connection: passes received records on to its requests, and sends theirs. */
class Connection implements ServerConnection, ChannelHandler, RecordSink {
  place = -1;
  readonly service: Service;
  readonly out: ByteBuffer = new ByteBuffer();
  readonly channel: Channel;
  #overloaded: boolean;
  #decoder = new RecordDecoder();
  #requests = new Map<number, FastCGIRequest>();
  #prepared: FastCGIRequest[] = [];
  /** The body that keeps the buffer of the last read, at most one. */
  #keeper: RequestBody | null = null;
  /** Whether the connection may carry several requests at once: then none of them may block the others. */
  #multiplexed = false;
  /**
   * Closing: closes once no request is in progress. Leaving: no request is in progress, but the web server may send one
   * before it closes the connection (rule C31).
   */
  #phase: "open" | "closing" | "leaving" = "open";
  /** What is particular about the web server, once a request has named it. */
  quirks: ServerQuirks = NO_QUIRKS;
  /** The number of requests that have begun. */
  #begun = 0;
  /** The same at the last call of {@linkcode takeBusy}. */
  #begunBefore = 0;
  #opened = new Progress();
  #activity = new Progress();
  /** The ids of ended requests whose input the web server may still be sending. */
  #unread = new Set<number>();

  constructor(service: Service, duplex: Duplex, overloaded: boolean) {
    this.service = service;
    this.#overloaded = overloaded;
    this.channel = new Channel(duplex, this.out, this, service.limits.writeTimeout);
  }

  async run(): Promise<void> {
    await this.channel.run();
    // Requests may have begun while the channel was closing.
    for (const request of [...this.#requests.values()]) request.abort(disconnected());
  }

  /** Starts requests once the whole read is decoded: a response then knows whether its request is complete. */
  received(bytes: Uint8Array): boolean {
    this.#keeper = null;
    try {
      this.#decoder.push(bytes, this);
    } catch (error) {
      if (this.channel.reads > 1 || !isHTTP(bytes)) throw error;
      this.#refuseHTTP(error as ProtocolError);
    }
    if (this.#prepared.length > 0) {
      const prepared = this.#prepared;
      this.#prepared = [];
      for (const request of prepared) request.start();
    }
    return this.#keeper !== null;
  }

  /** Responds to a peer that speaks HTTP, which would take a closed connection for a crash. */
  #refuseHTTP(error: ProtocolError): void {
    this.service.log(
      `${error.message}. An HTTP request came: use --protocol http, or fastcgi_pass instead of proxy_pass`,
    );
    this.out.appendByteString(HTTP_REFUSAL);
    this.channel.finish(false);
  }

  /** Queues a request, which starts once the current read is decoded. */
  prepared(request: FastCGIRequest): void {
    this.#prepared.push(request);
  }

  /**
   * Pauses reading while an app does not read its body, unless other requests would wait too (rule C9). Buffers more
   * before it pauses where other requests may follow, or the web server sends the whole body before it reads the
   * response (rule C14).
   */
  shouldPause(stalled: boolean): boolean {
    if (this.#isFlooded()) return true;
    if (this.#requests.size === 0) return false;
    if (this.#multiplexed && this.#requests.size > 1) return false;
    const limit = stalled || this.#multiplexed
      ? this.service.limits.maxBufferedBody
      : BODY_HIGH_WATER;
    for (const request of this.#requests.values()) if (request.buffered >= limit) return true;
    return false;
  }

  /**
   * Returns whether the web server keeps sending and does not read. One that sends a whole body first may do so (rule
   * C14), but it sends one request at a time.
   */
  #isFlooded(): boolean {
    if (this.out.length <= MAX_UNREAD) return false;
    return this.#multiplexed || [...this.#requests.values()].every(({ inputEnded }) => inputEnded);
  }

  record(type: number, id: number, content: Uint8Array): void {
    if (this.channel.closed) return;
    if (id === 0) return this.#manage(type, content);
    if (type === RecordType.beginRequest) return this.#begin(id, content);
    const request = this.#requests.get(id);
    if (request === undefined) {
      if (content.length === 0 && type !== RecordType.params) this.#unread.delete(id);
      return;
    }
    if (type === RecordType.params) request.addVariables(content);
    else if (type === RecordType.stdin || type === RecordType.data) {
      const body = type === RecordType.stdin ? request.body : request.data;
      const mayKeep = this.#keeper === null || this.#keeper === body;
      if (request.addInput(content, body, mayKeep)) this.#keeper = body;
    } else if (type === RecordType.abortRequest) request.abortedByPeer();
  }

  /** Handles a management record (section 4). */
  #manage(type: number, content: Uint8Array): void {
    if (this.out.length > MAX_UNREAD) {
      throw new ProtocolError(
        `Cannot respond to FastCGI management record as the web server must read: ${this.out.length} bytes are pending`,
      );
    }
    if (type === RecordType.getValues) {
      this.#multiplexed = true;
      const requested = new Set(decodePairs(content).map(([name]) => name));
      const known = this.service.capacity.filter(([name]) => requested.has(name));
      encodeValues(this.out, RecordType.getValuesResult, known);
    } else if (type >= RecordType.beginRequest && type <= RecordType.data) {
      throw new ProtocolError(
        `Cannot accept FastCGI record as its request id must not be 0: its type is ${type}`,
      );
    } else {
      encodeUnknownType(this.out, type);
    }
    this.flush();
  }

  #begin(id: number, content: Uint8Array): void {
    const { role, keepConnection } = decodeBeginRequest(content);
    if (this.#requests.has(id)) {
      throw new ProtocolError(
        `Cannot begin request as its id must not be in use: current value is ${id}`,
      );
    }
    const { limits, running } = this.service;
    const limit = limits.maxRequestsPerConnection;
    if (this.#requests.size >= limit * 2 + 64) {
      throw new ProtocolError(
        `Cannot begin request as a connection must have at most ${limit}: ${this.#requests.size} are unfinished`,
      );
    }
    // A filter's response waits for all of FCGI_STDIN, so reading must not wait for the app.
    if (id !== 1 || this.#requests.size > 0 || role === Role.filter) this.#multiplexed = true;
    const overloaded = this.#overloaded || running.count >= limits.maxRequests ||
      this.#requests.size >= limit;
    this.#begun++;
    this.#unread.delete(id);
    const request = new FastCGIRequest(this, id, role, keepConnection, overloaded);
    this.#requests.set(id, request);
    request.checkRole();
  }

  /**
   * Removes a request that has ended, and closes the connection if it is the last one.
   *
   * @param broken Whether closing the connection truncates its response.
   */
  ended(request: FastCGIRequest, broken: boolean): void {
    this.#requests.delete(request.id);
    if (this.channel.closed) return;
    this.channel.resume();
    if (broken || !request.keepConnection) this.#phase = "closing";
    if (!request.inputEnded) this.#unread.add(request.id);
    if (this.#phase === "open" || this.#requests.size > 0) return;
    if (!request.keepConnection || broken) this.channel.finish(this.#unread.size > 0);
    else if (this.quirks.closesOnBytes) this.#leave();
    else this.#finishKept();
  }

  /**
   * Asks nginx to close a kept connection, by an empty FCGI_STDERR record: it closes an idle connection on which bytes
   * arrive. Where it has just sent a request, the record is the beginning of the response and means nothing, so that
   * no request is lost (rule C31).
   */
  async #leave(): Promise<void> {
    encodeStreamEnd(this.out, RecordType.stderr, NGINX_ID);
    this.flush();
    await this.channel.sent();
    this.#phase = "leaving";
  }

  /**
   * Closes a kept connection, unless part of another request has arrived: that one is served first. A web server that
   * sends one request at a time sends the next as soon as it has the response, so the close must come with that, not
   * a turn of the event loop later.
   */
  async #finishKept(): Promise<void> {
    await this.channel.sent();
    if (this.#multiplexed) await this.channel.polled();
    if (this.#requests.size === 0 && this.#decoder.idle) this.channel.finish(this.#unread.size > 0);
  }

  /** The web server has closed its writing side: aborts incomplete requests and finishes the others (rule C22). */
  inputEnded(): void {
    this.#phase = "closing";
    for (const request of this.#requests.values()) {
      if (!request.inputEnded) request.abort(disconnected());
    }
    if (this.#requests.size === 0) this.channel.finish(false);
    else this.#probe();
  }

  /**
   * Checks whether a web server that has closed its writing side still reads (rule C22). Where an empty write cannot
   * show it, sends an empty FCGI_STDERR record, which has no effect: the second one fails on a closed connection.
   */
  #probe(): void {
    if (this.channel.probe()) return;
    const [id] = this.#requests.keys();
    encodeStreamEnd(this.out, RecordType.stderr, id);
    this.flush();
  }

  /** Starts to send the pending bytes. If that fails, the channel calls failed(). */
  flush(): void {
    try {
      this.channel.flush();
    } catch {
      // The channel has called failed().
    }
  }

  failed(error: unknown): void {
    if (error instanceof ProtocolError || error instanceof StallError) {
      this.service.log(error.message);
    }
    for (const request of this.#requests.values()) request.abort(disconnected());
  }

  check(now: number): void {
    const { channel, service: { limits, log } } = this;
    channel.check(now);
    if (channel.closed) return;
    if (this.out.length > 0) this.flush();
    const open = this.#opened.elapsed(now);
    const idle = this.#activity.elapsed(now, channel.activity);
    if (this.#requests.size === 0) {
      if (this.#isOver(open, idle)) return channel.close();
      if (this.#phase === "open" && idle > limits.idleTimeout) this.drain();
    }
    for (const request of this.#requests.values()) {
      if (request.isLate(now)) {
        log(
          `Closed a connection as a request's variables must arrive within ${limits.variablesTimeout} ms: they did not`,
        );
        request.dropLate();
        return this.abort(disconnected());
      }
      request.checkBody(now);
    }
    if (channel.inputEnded && this.#requests.size > 0) this.#probe();
  }

  /** Returns whether a connection without a request closes now, even if the web server is about to send one. */
  #isOver(open: number, idle: number): boolean {
    const { idleTimeout, variablesTimeout } = this.service.limits;
    if (this.#phase === "leaving") {
      return idle > (this.quirks.closesOnBytes ? LEAVE : NEW_CONNECTION);
    }
    if (this.#begun > 0) return this.#phase === "closing" && idle > idleTimeout;
    return idle > idleTimeout || open > variablesTimeout ||
      this.#phase === "closing" && idle > NEW_CONNECTION;
  }

  takeBusy(): boolean {
    const before = this.#begunBefore;
    this.#begunBefore = this.#begun;
    // Rule C32. Until its second request it may be one that the web server does not keep.
    const isBusy = this.#begun > Math.max(before, 1) && this.#phase === "open";
    const { closesOnBytes = false, leavesOverloaded = false } = this.quirks;
    return isBusy && (closesOnBytes || leavesOverloaded);
  }

  drain(): void {
    if (this.#phase !== "open" || this.channel.closed) return;
    this.#phase = "closing";
    if (this.#requests.size > 0 || this.#begun === 0) return;
    if (this.quirks.closesOnBytes) this.#leave();
    else if (this.quirks.leavesOverloaded) this.#phase = "leaving";
    else this.channel.polled().then(() => this.#finishKept());
  }

  abort(reason: unknown): void {
    this.channel.close();
    for (const request of this.#requests.values()) request.abort(reason);
  }

  /** The protocol status of a complete request, by which HAProxy learns that it was the last one (rule C31). */
  get status(): number {
    const last = this.quirks.leavesOverloaded && this.#phase !== "open" && this.alone;
    return last ? ProtocolStatus.overloaded : ProtocolStatus.requestComplete;
  }

  /** Whether exactly one request is in progress. */
  get alone(): boolean {
    return this.#requests.size === 1;
  }
}

/** How a request is refused: the status of the response, and the protocol status of FCGI_END_REQUEST. */
interface Refusal {
  status: number;
  protocolStatus: number;
}

/** One request on a connection, from FCGI_BEGIN_REQUEST to FCGI_END_REQUEST. */
class FastCGIRequest implements ResponseSink, RequestBodySource, TransportInfo {
  readonly protocol = "fastcgi";
  readonly id: number;
  readonly keepConnection: boolean;
  body: RequestBody | null = null;
  data: RequestBody | null = null;
  /**
   * Prepared: the variables are complete, or the request is refused without them. Running: the app was called, or the
   * refusal was sent. Responded: FCGI_END_REQUEST waits for the rest of the input (rule C13).
   */
  #phase: "variables" | "prepared" | "running" | "responded" | "ended" = "variables";
  #refusal: Refusal | null = null;
  #connection: Connection;
  #role: number;
  /** The app's handler for the role, if it has one. */
  #handler: Handler | undefined;
  /** Whether it counts among the running requests. One that arrives while the server is overloaded does not. */
  #counted: boolean;
  /** Ends the count of a request that was aborted before its handler has settled. */
  #settle: (() => void) | null = null;
  /** The first record of FCGI_PARAMS as a byte string, usually the only one. Empty if the variables are too long. */
  #variables = "";
  /** The later records, as bytes: a string that is joined from many small parts takes many times their size. */
  #moreVariables: ByteBuffer | null = null;
  #variableBytes = 0;
  #exchange: Exchange | null = null;
  #begun = new Progress();
  /** The watches of the body and of a filter's data, once they are checked. */
  #watches: [BodyWatch, BodyWatch] | null = null;
  /** In the filter role, resolves when FCGI_STDIN has ended. */
  #inputWhole: PromiseWithResolvers<void> | null = null;
  /** Whether FCGI_STDERR was used. */
  #logged = false;
  /** How long the input has been dropped after the response: in total, and without a byte. */
  #drained: [Progress, Progress] | null = null;

  constructor(
    connection: Connection,
    id: number,
    role: number,
    keepConnection: boolean,
    overloaded: boolean,
  ) {
    this.#connection = connection;
    this.id = id;
    this.#role = role;
    this.keepConnection = keepConnection;
    this.#handler = this.#findHandler(connection.service.app);
    this.#counted = !overloaded;
    if (overloaded) this.#refuse(503, ProtocolStatus.overloaded);
    else connection.service.running.count++;
  }

  get program(): string | undefined {
    return this.#connection.service.program;
  }

  get debug(): DebugHook {
    return this.#connection.service.debug;
  }

  /** How many bytes are buffered for the app. */
  get buffered(): number {
    return (this.body?.buffered ?? 0) + (this.data?.buffered ?? 0);
  }

  /** Whether the whole request has arrived. An authorizer gets no FCGI_STDIN (rule C27). */
  get inputEnded(): boolean {
    if (this.#exchange === null || this.#handler === undefined) return false;
    return this.#role === Role.authorizer ||
      (this.body?.closed === true && this.data?.closed !== false);
  }

  /** Returns whether its variables are late. */
  isLate(now: number): boolean {
    if (this.#phase !== "variables") return false;
    return this.#begun.elapsed(now) > this.#connection.service.limits.variablesTimeout;
  }

  /** Records that the connection closes as its variables are late. */
  dropLate(): void {
    this.#refusedExchange().dropped(408);
  }

  /** Refuses the request. The first reason counts. */
  #refuse(status: number, protocolStatus: number = ProtocolStatus.requestComplete): void {
    this.#refusal ??= { status, protocolStatus };
  }

  /** Refuses a role that the app lacks, without waiting for the variables (rule C7). */
  checkRole(): void {
    if (this.#handler !== undefined) return;
    const method = ROLE_METHODS[this.#role] ?? "a role from 1 to 3";
    this.log(`Refused a request of role ${this.#role} as the app must have ${method}`);
    this.#refuse(500, ProtocolStatus.unknownRole);
    this.#prepared(this.#refusedExchange());
  }

  /** Adds content of FCGI_PARAMS. Empty content ends the stream. */
  addVariables(content: Uint8Array): void {
    if (this.#phase !== "variables") return;
    if (content.length === 0) return this.#prepare();
    this.#variableBytes += content.length;
    const { maxVariableBytes } = this.#connection.service.limits;
    const most = this.#refusal === null ? maxVariableBytes : MAX_REFUSED;
    if (this.#variableBytes > most) {
      this.#variables = "";
      this.#moreVariables = null;
    } else if (this.#variables === "") this.#variables = decodeByteString(content);
    else (this.#moreVariables ??= new ByteBuffer()).append(content);
  }

  /**
   * Adds content of FCGI_STDIN or FCGI_DATA. Empty content ends the stream.
   *
   * @param body The body that the stream belongs to, or null if there is none.
   * @param mayKeep Whether the body may keep the content's buffer.
   * @returns Whether it keeps the buffer.
   */
  addInput(content: Uint8Array, body: RequestBody | null, mayKeep: boolean): boolean {
    if (body === null) {
      if (this.#phase !== "variables") return false;
      throw new ProtocolError("Cannot accept FCGI_STDIN as FCGI_PARAMS must end first: it has not");
    }
    if (content.length === 0) {
      body.end();
      body.closed = true;
      if (body === this.body) this.#inputWhole?.resolve();
      if (this.#phase === "responded" && this.inputEnded) this.#endLate();
      return false;
    }
    const kept = body.push(content, mayKeep);
    const { maxBufferedBody } = this.#connection.service.limits;
    if (body.buffered > maxBufferedBody + BODY_HIGH_WATER) {
      body.fail(
        new ProtocolError(
          `Cannot buffer request body as it must have at most ${maxBufferedBody} unread bytes: raise maxBufferedBody, or read it sooner`,
          413,
        ),
      );
    }
    return kept;
  }

  /** Creates the exchange, or refuses the request, once the variables are complete. */
  #prepare(): void {
    const { limits } = this.#connection.service;
    let variables: Variables | undefined;
    let exchange: Exchange | undefined;
    if (this.#role !== Role.authorizer) this.body = new RequestBody(this, limits.maxBodyBytes);
    try {
      variables = this.#decodeVariables(limits);
      this.#connection.quirks = serverQuirks(variables);
      if (this.#refusal === null) {
        this.body?.declare(contentLength(variables));
        exchange = this.#createExchange(variables);
      }
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#refuse(error.status);
      this.log(error.message);
    }
    this.#variables = "";
    this.#moreVariables = null;
    this.#prepared(exchange ?? this.#refusedExchange(variables));
  }

  #prepared(exchange: Exchange): void {
    this.#phase = "prepared";
    this.#exchange = exchange;
    this.#connection.prepared(this);
  }

  /** Calls the app without waiting for the rest of the body (rule C12), or sends the refusal. */
  start(): void {
    if (this.#phase === "ended") return;
    this.#phase = "running";
    const exchange = this.#exchange!;
    workload.begin();
    const responded = this.#refusal !== null
      ? refuse(this.#refusal.status, exchange, this)
      : respond(this.#handler!, exchange, this, this.#connection.service.options);
    responded.then((sent) => {
      this.#settled();
      if (!sent) this.#truncate();
    }, (error) => {
      this.#settled();
      this.log(describeError(error));
      this.#truncate();
    });
  }

  /** Called when the handler has settled and nothing more will be sent. */
  #settled(): void {
    workload.end();
    this.#settle?.();
  }

  #uncount(): void {
    if (this.#counted) this.#connection.service.running.count--;
    this.#counted = false;
  }

  #findHandler(app: AppObject): Handler | undefined {
    switch (this.#role) {
      case Role.responder:
        return (request, info) => app.fetch(request, info);
      case Role.authorizer:
        return app.authorize && ((request, info) => app.authorize!(request, info));
      case Role.filter:
        return app.filter && (async (request, info) => {
          const response = await app.filter!(request, info as FilterInfo);
          // The response must wait for all of FCGI_STDIN (section 6.4).
          await this.#inputWhole?.promise;
          return response;
        });
      default:
        return undefined;
    }
  }

  /** Creates the exchange of a request that is refused. */
  #refusedExchange(variables: Variables = new Variables([])): Exchange {
    return new Exchange(this, variables, this.body, this.#connection.service.options);
  }

  /** Creates the exchange. A filter's has FCGI_DATA too, whose length and time are required (section 6.4). */
  #createExchange(variables: Variables): Exchange {
    const { options } = this.#connection.service;
    if (this.#role !== Role.filter) return new Exchange(this, variables, this.body, options);
    const length = Number(variables.byteString("FCGI_DATA_LENGTH") ?? NaN);
    const seconds = Number(variables.byteString("FCGI_DATA_LAST_MOD") ?? NaN);
    this.data = new RequestBody(this);
    this.data.declare(Number.isSafeInteger(length) ? length : undefined);
    this.#inputWhole = Promise.withResolvers();
    const exchange = new FilterExchange(this, variables, this.body, options, {
      data: this.data.stream,
      dataLength: length,
      dataLastModified: new Date(seconds * 1000),
    });
    if (!Number.isSafeInteger(length) || length < 0 || !Number.isSafeInteger(seconds)) {
      throw new ProtocolError(
        "Cannot filter as FCGI_DATA_LENGTH and FCGI_DATA_LAST_MOD must be whole numbers: they are not",
      );
    }
    return exchange;
  }

  #decodeVariables(limits: Limits): Variables {
    if (this.#variableBytes > limits.maxVariableBytes) {
      throw new ProtocolError(
        `Cannot accept request as its variables must have at most ${limits.maxVariableBytes} bytes: they have ${this.#variableBytes}`,
        431,
      );
    }
    const more = this.#moreVariables?.take();
    const text = more === undefined ? this.#variables : this.#variables + decodeByteString(more);
    return decodeVariables(text, limits.maxVariables);
  }

  send(head: string | null, chunk: Uint8Array | null, last: boolean): Promise<void> | void {
    if (this.#phase === "ended" || this.#connection.channel.closed) throw disconnected();
    const { out, channel } = this.#connection;
    const { id } = this;
    if (head !== null) encodeStreamText(out, RecordType.stdout, id, head);
    if (chunk !== null) encodeStream(out, RecordType.stdout, id, chunk);
    if (last) {
      encodeStreamEnd(out, RecordType.stdout, id);
      if (this.#connection.quirks.needsInputEnd && !this.inputEnded) this.#drain();
      else this.#end(0, false);
    }
    return channel.flush();
  }

  log(message: string): void {
    const { options: { logTo }, log } = this.#connection.service;
    const ended = this.#phase === "ended" || this.#connection.channel.closed;
    const toServer = logTo !== "log" && !ended && !this.#connection.quirks.lacksStderr;
    if (logTo === "both" || !toServer) log(message);
    if (!toServer) return;
    encodeStreamText(
      this.#connection.out,
      RecordType.stderr,
      this.id,
      toByteString(message) + "\n",
    );
    this.#logged = true;
    // The next part of the response sends it, or the next check().
    if (this.#connection.out.length > LOG_BUFFER) this.#connection.flush();
  }

  pull(): void {
    this.#connection.channel.resume();
  }

  /** Drops the rest of the input until it ends. */
  #drain(): void {
    this.#phase = "responded";
    this.#uncount();
    this.#drained = [new Progress(), new Progress()];
    this.body?.discard();
    this.data?.discard();
  }

  /** Ends a request whose response was sent before. */
  #endLate(): void {
    this.#end(0, false);
    this.#connection.flush();
  }

  /**
   * Limits how long the rest of the input may take, as a closing connection does (rule C15). Beyond it the connection
   * closes, or where other requests share it, the request ends.
   */
  #checkDrain(now: number): void {
    const [total, stall] = this.#drained!;
    const received = this.body?.received ?? 0;
    if (total.elapsed(now) <= LINGER && stall.elapsed(now, received) <= LINGER_IDLE) return;
    if (this.#connection.alone) this.#forget(true);
    else this.#endLate();
  }

  /** Fails a body whose next bytes do not arrive in time while the app reads it. */
  checkBody(now: number): void {
    if (this.#phase === "responded") return this.#checkDrain(now);
    const { limits } = this.#connection.service;
    this.#watches ??= [new BodyWatch(limits), new BodyWatch(limits)];
    if (this.body !== null) this.#watches[0].check(this.body, now);
    if (this.data !== null) this.#watches[1].check(this.data, now);
  }

  /** Aborts the request, as FCGI_ABORT_REQUEST arrived (section 5.4). */
  abortedByPeer(): void {
    this.#exchange?.abort(new DOMException("The web server aborted the request", "AbortError"));
    this.#abandon();
    this.#end(0, false);
    this.#connection.flush();
  }

  /** Aborts the request without a response: the connection is closed, or is about to close. */
  abort(reason: unknown): void {
    if (this.#phase === "ended") return;
    this.#abandon();
    this.#forget(false);
    this.data?.fail(reason);
    this.#inputWhole?.resolve();
    this.#exchange?.abort(reason);
  }

  /** Counts an aborted request until its handler settles, for some time. */
  #abandon(): void {
    if (this.#phase !== "running" || !this.#counted) return;
    this.#counted = false;
    this.#settle = this.#connection.service.running.abandon();
  }

  /**
   * Truncates a response that failed after its head (rule B17): closes the connection without ending the stream, or
   * where other requests share it, ends the request with an appStatus other than 0.
   */
  #truncate(): void {
    if (this.#phase === "ended") return;
    if (this.#connection.alone) return this.#forget(true);
    this.#end(1, false);
    this.#connection.flush();
  }

  #end(appStatus: number, broken: boolean): void {
    const { out } = this.#connection;
    const { protocolStatus = this.#connection.status } = this.#refusal ?? {};
    if (this.#logged) encodeStreamEnd(out, RecordType.stderr, this.id);
    encodeEndRequest(out, this.id, appStatus, protocolStatus);
    this.#forget(broken);
  }

  /** Ends the request on its connection: its response is queued, or there is none. The handler may still run. */
  #forget(broken: boolean): void {
    this.#phase = "ended";
    this.#uncount();
    if (this.body && !this.body.ended) this.body.discard();
    if (this.data && !this.data.ended) this.data.discard();
    this.#connection.ended(this, broken);
  }
}

const ROLE_METHODS: Record<number, string> = {
  [Role.responder]: "fetch()",
  [Role.authorizer]: "authorize()",
  [Role.filter]: "filter()",
};
