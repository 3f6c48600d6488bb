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
import { type DebugTools, describeError } from "./bridge/error_response.ts";
import { Exchange, FilterExchange, type TransportInfo } from "./bridge/exchange.ts";
import {
  BODY_HIGH_WATER,
  type LimitOptions,
  NEW_CONNECTION,
  resolveLimits,
} from "./bridge/limits.ts";
import { contentLength } from "./bridge/request.ts";
import { RequestBody, type RequestBodySource } from "./bridge/request_body.ts";
import { refuse, respond, type ResponseSink } from "./bridge/respond.ts";
import { Channel, type ChannelHandler } from "./io/channel.ts";
import type { Duplex, Listener } from "./io/duplex.ts";
import { addressesFromEnvironment } from "./io/peers.ts";
import { mainModulePath } from "./io/main_module.ts";
import {
  type Server,
  type ServerConnection,
  type ServerOptions,
  startServer,
} from "./io/server.ts";
import { StallTimer } from "./io/stall_timer.ts";
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
export type { LimitOptions } from "./bridge/limits.ts";
export type { Server, ServerOptions } from "./io/server.ts";
export type {
  App,
  AppObject,
  AppOptions,
  FilterInfo,
  Handler,
  HandlerInfo,
  Protocol,
} from "./bridge/app.ts";

/** Options of {@linkcode serveFastCGI}. */
export interface FastCGIOptions extends AppOptions, LimitOptions, ServerOptions {
  /**
   * How many requests may be under way on one connection; past it, 503.
   *
   * @default 64
   */
  maxRequestsPerConnection?: number;
  /**
   * How long a connection without a request stays open, in milliseconds. Longer than the web server's own: a request
   * must not meet a connection that is being closed.
   *
   * @default 90_000
   */
  idleTimeout?: number;
  /**
   * Addresses that connections may come from (section 3.2); others are closed, and so are those over Unix sockets.
   *
   * @default The list in FCGI_WEB_SERVER_ADDRS if that may be read and is set, else anyone
   */
  webServerAddresses?: string[];
}

type Limits = Required<
  LimitOptions & Pick<FastCGIOptions, "maxRequestsPerConnection" | "idleTimeout">
>;

/** How much may wait for a web server that sends more requests or management records, in bytes. */
const MAX_UNREAD = 4_194_304;
/** How much of a log waits for the answer, in bytes. */
const LOG_BUFFER = 16384;

/**
 * Serves an app over FastCGI: responder, and the roles authorizer and filter if the app has them. Connections are kept if
 * the web server asks for it, and may carry several requests at once.
 *
 * @param app A handler, or an object with `fetch`.
 * @param listener What `Deno.listen` returns, TCP or Unix, or `inheritedListener()`.
 * @returns A handle with the shape of `Deno.HttpServer`.
 * @throws {Error} If the listener is open to other machines and nothing says that this is meant.
 *
 * @example A daemon for nginx's `fastcgi_pass 127.0.0.1:9000`
 * ```ts no-assert
 * import { serveFastCGI } from "@gatehouse/cgi/fastcgi";
 *
 * const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
 * await using server = serveFastCGI(
 *   (request) => new Response(`You asked for ${new URL(request.url).pathname}`),
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
 * Makes the response of an authorizer that lets a request pass (section 6.3).
 *
 * @param variables What becomes variables of the protected request.
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

/** What all connections of one server share. */
class Service {
  /** Requests under way. */
  requests = 0;
  readonly app: AppObject;
  readonly program: string | undefined = mainModulePath();
  readonly options: FastCGIOptions;
  readonly limits: Limits;
  readonly log: (message: string) => void;
  readonly debugTools: DebugTools;
  readonly capacity: [name: string, value: string][];

  constructor(app: App, options: FastCGIOptions, address: Deno.Addr) {
    this.app = typeof app === "function" ? { fetch: app } : app;
    const {
      maxConnections = 1024,
      maxRequestsPerConnection = 64,
      idleTimeout = 90_000,
      log = console.error,
    } = options;
    this.options = options;
    this.limits = { ...resolveLimits(options), maxRequestsPerConnection, idleTimeout };
    this.log = log;
    this.debugTools = {
      readSource: async (url) => (await import("./io/source_file.ts")).readSource(url),
      address,
    };
    this.capacity = [
      ["FCGI_MAX_CONNS", String(maxConnections)],
      ["FCGI_MAX_REQS", String(this.limits.maxRequests)],
      ["FCGI_MPXS_CONNS", "1"],
    ];
  }
}

/** One connection: records in, records out. */
class Connection implements ServerConnection, ChannelHandler, RecordSink {
  readonly service: Service;
  readonly out: ByteBuffer = new ByteBuffer();
  readonly channel: Channel;
  #overloaded: boolean;
  #decoder = new RecordDecoder();
  #requests = new Map<number, FastCGIRequest>();
  #prepared: FastCGIRequest[] = [];
  /** The body that keeps the buffer of what was received last: one at the most. */
  #keeper: RequestBody | null = null;
  /** Whether it has shown that it carries several requests at once: then one of them never holds up the rest. */
  #multiplexed = false;
  /** Whether it closes when no request is under way. */
  #closing = false;
  /** How many requests have begun. */
  #begun = 0;
  /** The ids of ended requests whose input the web server may still be sending. */
  #unread = new Set<number>();
  #idleTimer = new StallTimer();

  constructor(service: Service, duplex: Duplex, overloaded: boolean) {
    this.service = service;
    this.#overloaded = overloaded;
    this.channel = new Channel(duplex, this.out, this, service.limits.writeTimeout);
  }

  async run(): Promise<void> {
    await this.channel.run();
    // Requests that began while the channel was closing.
    for (const request of [...this.#requests.values()]) request.abort(disconnected());
  }

  /** Apps are asked once all is taken in that came together: then an answer sees how far its request has come. */
  received(bytes: Uint8Array): boolean {
    this.#keeper = null;
    this.#decoder.push(bytes, this);
    if (this.#prepared.length > 0) {
      const prepared = this.#prepared;
      this.#prepared = [];
      for (const request of prepared) request.start();
    }
    return this.#keeper !== null;
  }

  /** A request waits to be started. */
  prepared(request: FastCGIRequest): void {
    this.#prepared.push(request);
  }

  /**
   * A connection waits for an app that does not read the body; not where other requests would wait as well, and later
   * where some may come, or where the web server is stuck sending the body before it reads the answer (rule C14).
   */
  shouldPause(stalled: boolean): boolean {
    if (this.#isFlooded()) return true;
    if (this.#requests.size === 0) return false;
    if (this.#multiplexed && this.#requests.size > 1) return false;
    const most = stalled || this.#multiplexed
      ? this.service.limits.maxBufferedBody
      : BODY_HIGH_WATER;
    for (const request of this.#requests.values()) if (request.buffered >= most) return true;
    return false;
  }

  /**
   * Whether the web server sends on without reading what it gets. One that sends a whole body first may (rule C14), but
   * only one request at a time.
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

  /** Management records (section 4). */
  #manage(type: number, content: Uint8Array): void {
    if (this.out.length > MAX_UNREAD) {
      throw new ProtocolError(
        `Cannot respond to FastCGI management record as the web server must read: ${this.out.length} bytes wait`,
      );
    }
    if (type === RecordType.getValues) {
      this.#multiplexed = true;
      const asked = new Set(decodePairs(content).map(([name]) => name));
      const known = this.service.capacity.filter(([name]) => asked.has(name));
      encodeValues(this.out, RecordType.getValuesResult, known);
    } else if (type >= RecordType.beginRequest && type <= RecordType.data) {
      throw new ProtocolError(
        `Cannot take FastCGI record as its request id must not be 0: its type is ${type}`,
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
    const { limits, requests } = this.service;
    const most = limits.maxRequestsPerConnection;
    if (this.#requests.size >= most * 2 + 64) {
      throw new ProtocolError(
        `Cannot begin request as a connection must have at most ${most}: ${this.#requests.size} are unfinished`,
      );
    }
    // A filter answers after all of FCGI_STDIN, so that this must not wait for the app.
    if (id !== 1 || this.#requests.size > 0 || role === Role.filter) this.#multiplexed = true;
    const overloaded = this.#overloaded || requests >= limits.maxRequests ||
      this.#requests.size >= most;
    this.#begun++;
    this.#unread.delete(id);
    const request = new FastCGIRequest(this, id, role, keepConnection, overloaded);
    this.#requests.set(id, request);
    request.checkRole();
  }

  /** Forgets a request that is over. */
  ended(request: FastCGIRequest, broken: boolean): void {
    this.#requests.delete(request.id);
    if (this.channel.closed) return;
    this.channel.resume();
    if (broken || !request.keepConnection) this.#closing = true;
    if (!request.inputEnded) this.#unread.add(request.id);
    if (!this.#closing || this.#requests.size > 0) return;
    if (request.keepConnection && !broken) this.#finishKept();
    else this.channel.finish(this.#unread.size > 0);
  }

  /**
   * Closes a kept connection, unless bytes of another request have come: that one is served first. A web server with one
   * request at a time sends the next as soon as it has the response: the end must come with that, not a turn later.
   */
  async #finishKept(): Promise<void> {
    await this.channel.sent();
    if (this.#multiplexed) await this.channel.polled();
    if (this.#requests.size === 0 && this.#decoder.idle) this.channel.finish(this.#unread.size > 0);
  }

  /** The web server sends no more: what came whole may still be answered (rule C22). */
  inputEnded(): void {
    this.#closing = true;
    for (const request of this.#requests.values()) {
      if (!request.inputEnded) request.abort(disconnected());
    }
    if (this.#requests.size === 0) this.channel.finish(false);
    else this.#probe();
  }

  /**
   * Finds out whether a web server that sends no more still reads. Where an empty write cannot tell, an empty STDERR
   * record is sent, which means nothing: the second one fails if the web server has closed the connection.
   */
  #probe(): void {
    if (this.channel.probe()) return;
    const [id] = this.#requests.keys();
    encodeStreamEnd(this.out, RecordType.stderr, id);
    this.flush();
  }

  /** Sends what is pending; if that fails, failed() is told. */
  flush(): void {
    try {
      this.channel.flush();
    } catch {
      // failed() has been told.
    }
  }

  failed(error: unknown): void {
    if (error instanceof ProtocolError) this.service.log(error.message);
    for (const request of this.#requests.values()) request.abort(disconnected());
  }

  check(now: number): void {
    const { channel, service: { limits, log } } = this;
    channel.check(now);
    if (channel.closed) return;
    if (this.out.length > 0) this.flush();
    const idle = this.#idleTimer.elapsed(channel.activity, now);
    const patience = this.#closing && this.#begun === 0 ? NEW_CONNECTION : limits.idleTimeout;
    if (this.#requests.size === 0 && idle > patience) return channel.close();
    for (const request of this.#requests.values()) {
      if (request.isLate(now)) {
        log(
          `Closed a connection as a request's variables must come within ${limits.variablesTimeout} ms: they did not`,
        );
        return this.abort(disconnected());
      }
      request.checkBody(now);
    }
    if (channel.inputEnded && this.#requests.size > 0) this.#probe();
  }

  drain(): void {
    this.#closing = true;
    if (this.#requests.size > 0 || this.#begun === 0) return;
    this.channel.polled().then(() => this.#finishKept());
  }

  abort(reason: unknown): void {
    this.channel.close();
    for (const request of this.#requests.values()) request.abort(reason);
  }

  /** Whether it carries no more than one request. */
  get alone(): boolean {
    return this.#requests.size === 1;
  }
}

function disconnected(): DOMException {
  return new DOMException("The web server closed the connection", "AbortError");
}

/** Why a request is refused: the status of the response, and that of FCGI_END_REQUEST. */
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
  /** Prepared: the variables are complete, or not needed to refuse it. Running: the app was called, or the refusal sent. */
  #phase: "variables" | "prepared" | "running" | "ended" = "variables";
  #refusal: Refusal | null = null;
  #connection: Connection;
  #role: number;
  /** What responds in this role, if the app has it. */
  #handler: Handler | undefined;
  /** Whether it counts among the service's requests: one that comes while the server is overloaded does not. */
  #counted: boolean;
  /** The first record of FCGI_PARAMS, a byte string; mostly it is the only one. Empty once they are too long. */
  #variables = "";
  /** The further records: as bytes, since a string of many small parts takes many times their size. */
  #moreVariables: ByteBuffer | null = null;
  #variableBytes = 0;
  #exchange: Exchange | null = null;
  #begunAt = 0;
  /** A filter's input: resolves when FCGI_STDIN has ended. */
  #inputWhole: PromiseWithResolvers<void> | null = null;
  /** Whether FCGI_STDERR was used. */
  #logged = false;

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
    else connection.service.requests++;
  }

  get program(): string | undefined {
    return this.#connection.service.program;
  }

  get debugTools(): DebugTools {
    return this.#connection.service.debugTools;
  }

  /** How many bytes wait for the app. */
  get buffered(): number {
    return (this.body?.buffered ?? 0) + (this.data?.buffered ?? 0);
  }

  /** Whether all that belongs to the request has come. An authorizer gets no FCGI_STDIN (rule C27). */
  get inputEnded(): boolean {
    if (this.#exchange === null || this.#handler === undefined) return false;
    return this.#role === Role.authorizer ||
      (this.body?.closed === true && this.data?.closed !== false);
  }

  /** Whether its variables have not come in time. */
  isLate(now: number): boolean {
    if (this.#phase !== "variables") return false;
    this.#begunAt ||= now;
    return now - this.#begunAt > this.#connection.service.limits.variablesTimeout;
  }

  /** Keeps the first reason to refuse the request. */
  #refuse(status: number, protocolStatus: number = ProtocolStatus.requestComplete): void {
    this.#refusal ??= { status, protocolStatus };
  }

  /** Refuses a role that the app lacks, without waiting for the variables (rule C7). */
  checkRole(): void {
    if (this.#handler !== undefined) return;
    const wanted = ROLE_METHODS[this.#role] ?? "a role from 1 to 3";
    this.log(`Refused a request of role ${this.#role} as the app must have ${wanted}`);
    this.#refuse(500, ProtocolStatus.unknownRole);
    this.#prepared(this.#emptyExchange());
  }

  addVariables(content: Uint8Array): void {
    if (this.#phase !== "variables") return;
    if (content.length === 0) return this.#prepare();
    this.#variableBytes += content.length;
    const { maxVariableBytes } = this.#connection.service.limits;
    if (this.#refusal !== null || this.#variableBytes > maxVariableBytes) {
      this.#variables = "";
      this.#moreVariables = null;
    } else if (this.#variables === "") this.#variables = decodeByteString(content);
    else (this.#moreVariables ??= new ByteBuffer()).append(content);
  }

  /**
   * @param mayKeep Whether the content may be kept where it is.
   * @returns Whether it is.
   */
  addInput(content: Uint8Array, body: RequestBody | null, mayKeep: boolean): boolean {
    if (body === null) {
      if (this.#phase !== "variables") return false;
      throw new ProtocolError("Cannot take FCGI_STDIN as FCGI_PARAMS must end before: it has not");
    }
    if (content.length === 0) {
      body.end();
      body.closed = true;
      if (body === this.body) this.#inputWhole?.resolve();
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

  /** Creates the exchange: the variables are complete. */
  #prepare(): void {
    const { limits } = this.#connection.service;
    let exchange: Exchange | undefined;
    if (this.#role !== Role.authorizer) this.body = new RequestBody(this, limits.maxBodyBytes);
    try {
      const variables = this.#decodeVariables(limits);
      this.body?.declare(contentLength(variables));
      exchange = this.#createExchange(variables);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#refuse(error.status);
      this.log(error.message);
    }
    this.#variables = "";
    this.#moreVariables = null;
    this.#prepared(exchange ?? this.#emptyExchange());
  }

  #prepared(exchange: Exchange): void {
    this.#phase = "prepared";
    this.#exchange = exchange;
    this.#connection.prepared(this);
  }

  /** Calls the app, whatever of the body is still to come (rule C12), or refuses the request. */
  start(): void {
    if (this.#phase === "ended") return;
    this.#phase = "running";
    const exchange = this.#exchange!;
    const responded = this.#refusal !== null
      ? refuse(this.#refusal.status, exchange, this)
      : respond(this.#handler!, exchange, this, this.#connection.service.options);
    responded.then((sent) => sent || this.#truncate(), (error) => {
      this.log(describeError(error));
      this.#truncate();
    });
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
          // Nothing may be sent before all of FCGI_STDIN has come (section 6.4).
          await this.#inputWhole?.promise;
          return response;
        });
      default:
        return undefined;
    }
  }

  #emptyExchange(): Exchange {
    return new Exchange(
      this,
      new Variables([]),
      this.body,
      this.#connection.service.options,
    );
  }

  /** Creates the exchange; a filter's has FCGI_DATA as well, whose length and time must be given (section 6.4). */
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
        `Cannot take request as its variables must have at most ${limits.maxVariableBytes} bytes: they have ${this.#variableBytes}`,
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
      this.#end(0, false);
    }
    return channel.flush();
  }

  log(message: string): void {
    if (this.#phase === "ended" || this.#connection.channel.closed || this.#isFromHAProxy()) {
      return this.#connection.service.log(message);
    }
    encodeStreamText(
      this.#connection.out,
      RecordType.stderr,
      this.id,
      toByteString(message) + "\n",
    );
    this.#logged = true;
    // It goes with the next part of the response, or at the next check().
    if (this.#connection.out.length > LOG_BUFFER) this.#connection.flush();
  }

  /** HAProxy drops FCGI_STDERR unless configured otherwise, and 2.6 crashes if it comes alone. */
  #isFromHAProxy(): boolean {
    const server = this.#exchange?.variables.byteString("SERVER_SOFTWARE");
    return server?.startsWith("HAProxy") === true;
  }

  wanted(): void {
    this.#connection.channel.resume();
  }

  /** Fails a body that the app waits for and that does not come. */
  checkBody(now: number): void {
    const { bodyTimeout } = this.#connection.service.limits;
    this.body?.check(now, bodyTimeout);
    this.data?.check(now, bodyTimeout);
  }

  /** The web server aborts the request (section 5.4). */
  abortedByPeer(): void {
    this.#exchange?.abort(new DOMException("The web server aborted the request", "AbortError"));
    this.#end(0, false);
    this.#connection.flush();
  }

  /** Aborts it without a response: the connection is closed, or will be. */
  abort(reason: unknown): void {
    if (this.#phase === "ended") return;
    this.#forget(false);
    this.data?.fail(reason);
    this.#inputWhole?.resolve();
    this.#exchange?.abort(reason);
  }

  /**
   * Truncates a response that failed after its head (rule B17): closes the connection without the end of the stream, or
   * where other requests share it, ends the request with a status other than 0.
   */
  #truncate(): void {
    if (this.#phase === "ended") return;
    if (this.#connection.alone) return this.#forget(true);
    this.#end(1, false);
    this.#connection.flush();
  }

  #end(appStatus: number, broken: boolean): void {
    const { out } = this.#connection;
    const { protocolStatus = ProtocolStatus.requestComplete } = this.#refusal ?? {};
    if (this.#logged) encodeStreamEnd(out, RecordType.stderr, this.id);
    encodeEndRequest(out, this.id, appStatus, protocolStatus);
    this.#forget(broken);
  }

  /** Ends it as the server counts: its response is in the queue, or there is none. A handler may still be running. */
  #forget(broken: boolean): void {
    this.#phase = "ended";
    if (this.#counted) this.#connection.service.requests--;
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
