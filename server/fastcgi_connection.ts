import { disconnected } from "./exchange.ts";
import { FastCGIRequest, type FastCGIService, type RequestConnection } from "./fastcgi_request.ts";
import { BODY_HIGH_WATER } from "./body_memory.ts";
import { NEW_CONNECTION } from "./limits.ts";
import type { ServerConnection } from "./server.ts";
import { NO_QUIRKS, type ServerQuirks } from "../bridge/server_quirks.ts";
import { Channel, type ChannelHandler, StallError } from "../io/channel.ts";
import type { Duplex } from "../io/duplex.ts";
import { Progress } from "../io/progress.ts";
import type { ReadBuffer } from "../io/read_buffer.ts";
import { ByteBuffer } from "../wire/byte_buffer.ts";
import {
  decodeBeginRequest,
  decodePairs,
  encodeStreamEnd,
  encodeUnknownType,
  encodeValues,
  isHTTP,
  ProtocolStatus,
  RecordDecoder,
  type RecordSink,
  RecordType,
  Role,
} from "../wire/fastcgi.ts";
import { ProtocolError } from "../wire/protocol_error.ts";

/** How many unsent bytes may be pending while the web server sends more requests or management records. */
const MAX_UNREAD = 4_194_304;
/** The response to an HTTP request. */
const HTTP_REFUSAL =
  "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n" +
  "400 Bad Request: this address speaks FastCGI, not HTTP\n";
/** The id of all of nginx's requests. */
const NGINX_ID = 1;
/** How long nginx may take to close a connection at the server's request, in milliseconds. */
const LEAVE = 5000;

/** One connection: passes received records on to its requests, and sends theirs. */
export class FastCGIConnection
  implements ServerConnection, ChannelHandler, RecordSink, RequestConnection {
  place = -1;
  readonly out: ByteBuffer = new ByteBuffer();
  #service: FastCGIService;
  #channel: Channel;
  #overloaded: boolean;
  #decoder = new RecordDecoder();
  #requests = new Map<number, FastCGIRequest>();
  #prepared: FastCGIRequest[] = [];
  /** The buffer of the current read. */
  #read: ReadBuffer | null = null;
  /** Whether the connection may carry several requests at once: then none of them may block the others. */
  #multiplexed = false;
  /**
   * Closing: closes once no request is in progress. Leaving: no request is in progress, but the web server may send one
   * before it closes the connection (rule C31).
   */
  #phase: "open" | "closing" | "leaving" = "open";
  /** How long it has been leaving. */
  #left: Progress | null = null;
  /** The web server's quirks, once a request has named it. */
  #quirks: ServerQuirks = NO_QUIRKS;
  /** The number of requests that have begun. */
  #begun = 0;
  /** The same at the last call of {@linkcode takeBusy}. */
  #begunBefore = 0;
  #opened = new Progress();
  #activity = new Progress();
  /** The ids of ended requests whose input the web server may still be sending. */
  #unread = new Set<number>();

  constructor(service: FastCGIService, duplex: Duplex, overloaded: boolean) {
    this.#service = service;
    this.#overloaded = overloaded;
    this.#channel = new Channel(duplex, this.out, this, service.limits.writeTimeout);
  }

  async run(): Promise<void> {
    await this.#channel.run();
    // Requests may have begun while the channel was closing.
    for (const request of [...this.#requests.values()]) request.abort(disconnected());
  }

  /** Starts requests once the whole read is decoded: a response then knows whether its request is complete. */
  received(bytes: Uint8Array, buffer: ReadBuffer): void {
    this.#read = buffer;
    try {
      this.#decoder.push(bytes, this);
    } catch (error) {
      if (this.#channel.reads > 1 || !isHTTP(bytes)) throw error;
      this.#refuseHTTP(error as ProtocolError);
    }
    this.#read = null;
    if (this.#prepared.length > 0) {
      const prepared = this.#prepared;
      this.#prepared = [];
      for (const request of prepared) request.start();
    }
  }

  /** Responds to a peer that speaks HTTP, which would take a closed connection for a crash. */
  #refuseHTTP(error: ProtocolError): void {
    this.#service.log(
      `${error.message}. An HTTP request came: use --protocol http, or fastcgi_pass instead of proxy_pass`,
    );
    this.out.appendByteString(HTTP_REFUSAL);
    this.#channel.finish(false);
  }

  /** Queues a request that can start: once the current read is decoded. */
  #prepare(request: FastCGIRequest): void {
    this.#quirks = request.quirks;
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
    const { limits, memory } = this.#service;
    const limit = stalled || this.#multiplexed
      ? limits.maxBufferedBody
      : memory.isScarce
      ? 1
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
    if (this.#channel.closed) return;
    if (id === 0) return this.#manage(type, content);
    if (type === RecordType.beginRequest) return this.#begin(id, content);
    const request = this.#requests.get(id);
    if (request === undefined) {
      if (content.length === 0 && type !== RecordType.params) this.#unread.delete(id);
      return;
    }
    if (type === RecordType.params) {
      if (request.addVariables(content)) this.#prepare(request);
    } else if (type === RecordType.stdin || type === RecordType.data) {
      request.addInput(type, content, this.#read!);
    } else if (type === RecordType.abortRequest) request.abortedByPeer();
  }

  /** Handles a management record (section 4). */
  #manage(type: number, content: Uint8Array): void {
    if (this.out.length > MAX_UNREAD) {
      throw new ProtocolError(
        `Cannot respond to FastCGI management record: the web server does not read, and ${this.out.length} bytes are pending`,
      );
    }
    if (type === RecordType.getValues) {
      this.#multiplexed = true;
      const requested = new Set(decodePairs(content).map(([name]) => name));
      const known = this.#service.capacity.filter(([name]) => requested.has(name));
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
    const begin = decodeBeginRequest(content);
    if (this.#requests.has(id)) {
      throw new ProtocolError(
        `Cannot begin request as its id must not be in use: current value is ${id}`,
      );
    }
    const { limits, running } = this.#service;
    const limit = limits.maxRequestsPerConnection;
    if (this.#requests.size >= limit * 2 + 64) {
      throw new ProtocolError(
        `Cannot begin request as a connection must have at most ${limit}: ${this.#requests.size} are unfinished`,
      );
    }
    // A filter's response waits for all of FCGI_STDIN, so reading must not wait for the app.
    if (id !== 1 || this.#requests.size > 0 || begin.role === Role.filter) this.#multiplexed = true;
    const overloaded = this.#overloaded || running.count >= limits.maxRequests ||
      this.#requests.size >= limit;
    this.#begun++;
    this.#unread.delete(id);
    const request = new FastCGIRequest(
      this,
      this.#service,
      id,
      begin,
      overloaded,
      this.#quirks,
    );
    this.#requests.set(id, request);
    if (request.checkRole()) this.#prepare(request);
  }

  ended(request: FastCGIRequest, broken: boolean): void {
    this.#requests.delete(request.id);
    if (this.#channel.closed) return;
    this.#channel.resume();
    if (broken || !request.keepConnection) this.#phase = "closing";
    if (!request.inputEnded) this.#unread.add(request.id);
    if (this.#phase === "open" || this.#requests.size > 0) return;
    if (!request.keepConnection || broken) this.#channel.finish(this.#unread.size > 0);
    else if (this.#quirks.closesOnBytes) this.#leave();
    else this.#finishKept();
  }

  /**
   * Makes nginx close a kept connection, by an empty FCGI_STDERR record: it closes an idle connection on which bytes
   * arrive. Where it has just sent a request, the record is the beginning of the response and means nothing, so that
   * no request is lost (rule C31).
   */
  async #leave(): Promise<void> {
    encodeStreamEnd(this.out, RecordType.stderr, NGINX_ID);
    this.flush();
    await this.#channel.sent();
    this.#phase = "leaving";
  }

  /**
   * Closes a kept connection, unless part of another request has arrived: that one is served first. A web server that
   * sends one request at a time sends the next as soon as it has the response, so the close must come with that, not
   * a turn of the event loop later.
   */
  async #finishKept(): Promise<void> {
    await this.#channel.sent();
    if (this.#multiplexed) await this.#channel.polled();
    if (this.#requests.size === 0 && this.#decoder.idle) {
      this.#channel.finish(this.#unread.size > 0);
    }
  }

  /** The web server has closed its writing side: aborts incomplete requests and finishes the others (rule C22). */
  inputEnded(): void {
    this.#phase = "closing";
    for (const request of this.#requests.values()) {
      if (!request.inputEnded) request.abort(disconnected());
    }
    if (this.#requests.size === 0) this.#channel.finish(false);
    else this.#probe();
  }

  /**
   * Checks whether a web server that has closed its writing side still reads (rule C22). Where an empty write cannot
   * show it, sends an empty FCGI_STDERR record, which has no effect: the second one fails on a closed connection.
   */
  #probe(): void {
    if (this.#channel.probe()) return;
    const [id] = this.#requests.keys();
    encodeStreamEnd(this.out, RecordType.stderr, id);
    this.flush();
  }

  flush(): Promise<void> | void {
    try {
      return this.#channel.flush();
    } catch {
      // The channel has called failed().
    }
  }

  pull(): void {
    this.#channel.resume();
  }

  failed(error: unknown): void {
    if (error instanceof ProtocolError || error instanceof StallError) {
      this.#service.log(error.message);
    }
    for (const request of this.#requests.values()) request.abort(disconnected());
  }

  check(now: number): void {
    const channel = this.#channel;
    const { limits, log } = this.#service;
    channel.check(now);
    if (channel.closed) return;
    if (this.out.length > 0) this.flush();
    const open = this.#opened.elapsed(now);
    const idle = this.#activity.elapsed(now, channel.activity);
    if (this.#requests.size === 0) {
      if (this.#phase === "leaving" ? this.#hasLeft(now) : this.#isOver(open, idle)) {
        return channel.close();
      }
      if (this.#phase === "open" && idle > limits.idleTimeout) this.drain();
    }
    for (const request of this.#requests.values()) {
      if (request.isLate(now)) {
        log(
          `Closed a connection: a request's variables did not arrive within ${limits.variablesTimeout} ms`,
        );
        request.dropLate();
        return this.abort(disconnected());
      }
      request.checkBody(now);
      request.checkTime(now);
      request.checkAbort(now);
    }
    if (channel.inputEnded && this.#requests.size > 0) this.#probe();
  }

  /** Returns whether a connection without a request closes now, even if the web server is about to send one. */
  #isOver(open: number, idle: number): boolean {
    const { idleTimeout, variablesTimeout } = this.#service.limits;
    if (this.#begun > 0) return this.#phase === "closing" && idle > idleTimeout;
    return idle > idleTimeout || open > variablesTimeout ||
      this.#phase === "closing" && idle > NEW_CONNECTION;
  }

  /** Returns whether the web server has had its time to close the connection, or to send a last request. */
  #hasLeft(now: number): boolean {
    const limit = this.#quirks.closesOnBytes ? LEAVE : NEW_CONNECTION;
    this.#left ??= new Progress();
    return this.#left.elapsed(now, this.#channel.activity) > limit;
  }

  takeBusy(): boolean {
    const before = this.#begunBefore;
    this.#begunBefore = this.#begun;
    // Rule C32. Until its second request it may be one that the web server does not keep.
    const isBusy = this.#begun > Math.max(before, 1) && this.#phase === "open";
    const { closesOnBytes = false, leavesOverloaded = false } = this.#quirks;
    return isBusy && (closesOnBytes || leavesOverloaded);
  }

  drain(): void {
    if (this.#phase !== "open" || this.#channel.closed) return;
    this.#phase = "closing";
    if (this.#requests.size > 0 || this.#begun === 0) return;
    if (this.#quirks.closesOnBytes) this.#leave();
    else if (this.#quirks.leavesOverloaded) this.#phase = "leaving";
    else this.#channel.polled().then(() => this.#finishKept());
  }

  abort(reason: unknown): void {
    this.#channel.close();
    for (const request of this.#requests.values()) request.abort(reason);
  }

  get closed(): boolean {
    return this.#channel.closed;
  }

  /** HAProxy does not use the connection again after this status (rule C31). */
  get status(): number {
    const last = this.#quirks.leavesOverloaded && this.#phase !== "open" && this.alone;
    return last ? ProtocolStatus.overloaded : ProtocolStatus.requestComplete;
  }

  get alone(): boolean {
    return this.#requests.size === 1;
  }
}
