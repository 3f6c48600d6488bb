import { BodyWatch } from "./body_watch.ts";
import type { DebugHook } from "./debug_hook.ts";
import { disconnected, Exchange, type TransportInfo } from "./exchange.ts";
import { BODY_HIGH_WATER, type BodyMemory } from "./body_memory.ts";
import { type LimitOptions, NEW_CONNECTION } from "./limits.ts";
import { RequestBody, type RequestBodySource } from "./request_body.ts";
import { expire, ResponseClock, timeoutError } from "./request_timeout.ts";
import { refuse, respond, type ResponseSink } from "./respond.ts";
import type { RunningRequests } from "./running_requests.ts";
import type { ServerConnection } from "./server.ts";
import type { AppOptions, Handler, HandlerInfo } from "../bridge/app.ts";
import { describeError } from "../io/describe.ts";
import { contentLength } from "../bridge/request.ts";
import { Channel, type ChannelHandler, StallError } from "../io/channel.ts";
import type { Duplex } from "../io/duplex.ts";
import type { LogFunction } from "../io/log.ts";
import { Progress } from "../io/progress.ts";
import type { ReadBuffer } from "../io/read_buffer.ts";
import { workload } from "../io/workload.ts";
import { ByteBuffer } from "../wire/byte_buffer.ts";
import { ProtocolError } from "../wire/protocol_error.ts";
import { SCGIHeaderDecoder } from "../wire/scgi.ts";
import { Variables } from "../wire/variables.ts";

/** What all connections of one server share. */
export interface SCGIService {
  handler: Handler;
  options: AppOptions;
  lenient: boolean;
  limits: Required<LimitOptions>;
  log: LogFunction<HandlerInfo>;
  running: RunningRequests;
  memory: BodyMemory;
  requestTimeout: number;
  program: string | undefined;
  debug: DebugHook;
}

/** One connection, which carries one request and its response. */
export class SCGIConnection
  implements ServerConnection, ChannelHandler, ResponseSink, RequestBodySource, TransportInfo {
  place = -1;
  readonly protocol = "scgi";
  #service: SCGIService;
  #overloaded: boolean;
  #out = new ByteBuffer();
  #channel: Channel;
  #headers: SCGIHeaderDecoder | null;
  #exchange: Exchange | null = null;
  #body: RequestBody | null = null;
  #bodyWatch: BodyWatch | null = null;
  /** How long the app takes to respond, once that is checked. */
  #clock: ResponseClock | null = null;
  /** Resolves when the handler has settled and nothing more will be sent. */
  #responding: Promise<void> | null = null;
  /** Responding: the app was called, or the request refused. Finished: the response has ended, completely or not. */
  #phase: "variables" | "responding" | "finished" = "variables";
  #opened = new Progress();
  /** The time without a byte of a request since the shutdown began. */
  #unused: Progress | null = null;

  constructor(service: SCGIService, duplex: Duplex, overloaded: boolean) {
    this.#service = service;
    this.#overloaded = overloaded || service.running.count >= service.limits.maxRequests;
    this.#headers = new SCGIHeaderDecoder(service.limits.maxVariableBytes);
    this.#channel = new Channel(duplex, this.#out, this, service.limits.writeTimeout);
  }

  get program(): string | undefined {
    return this.#service.program;
  }

  get debug(): DebugHook {
    return this.#service.debug;
  }

  async run(): Promise<void> {
    const { running } = this.#service;
    if (!this.#overloaded) running.count++;
    await this.#channel.run();
    if (this.#overloaded) return;
    const handled = this.#phase === "finished" && this.#exchange?.expired !== true;
    if (handled || this.#responding === null) running.count--;
    else this.#responding.then(running.abandon(() => this.#body?.release()));
  }

  received(bytes: Uint8Array, buffer: ReadBuffer): void {
    if (this.#headers !== null) this.#decodeHeaders(this.#headers, bytes, buffer);
    else this.#body?.push(bytes, buffer);
  }

  /** Pauses reading while the app does not read. Buffers more if the web server sends the body first (rule D6). */
  shouldPause(stalled: boolean): boolean {
    const { limits, memory } = this.#service;
    const limit = stalled ? limits.maxBufferedBody : memory.isScarce ? 1 : BODY_HIGH_WATER;
    return this.#body !== null && this.#body.buffered >= limit;
  }

  #decodeHeaders(decoder: SCGIHeaderDecoder, bytes: Uint8Array, buffer: ReadBuffer): void {
    const { options, lenient, limits, log } = this.#service;
    let refusal = this.#overloaded ? 503 : 0;
    let variables = new Variables([]);
    let rest: Uint8Array | null = null;
    try {
      const headers = decoder.push(bytes);
      if (headers === null) return;
      rest = headers.rest;
      variables = new Variables(headers.pairs);
      if (!lenient) checkHeaders(headers.pairs);
      if (headers.pairs.length > limits.maxVariables) {
        throw new ProtocolError(
          `Cannot accept request as it must have at most ${limits.maxVariables} variables: it has ${headers.pairs.length}`,
          431,
        );
      }
      this.#body = new RequestBody(this, limits.maxBodyBytes, this.#service.memory);
      this.#body.declare(contentLength(variables) ?? 0);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      log(error.message);
      refusal ||= error.status;
    }
    this.#headers = null;
    this.#phase = "responding";
    this.#exchange = new Exchange(this, variables, this.#body, options);
    if (rest !== null && rest.length > 0) this.#body?.push(rest, buffer);
    workload.begin();
    const responded = refusal > 0
      ? refuse(refusal, this.#exchange, this)
      : respond(this.#service.handler, this.#exchange, this, options);
    this.#responding = responded.catch((error) => log(describeError(error))).then(() => {
      workload.end();
      this.#body?.release();
      this.#finish();
    });
  }

  send(head: string | null, chunk: Uint8Array | null, last: boolean): Promise<void> | void {
    if (this.#channel.closed) throw disconnected();
    if (head !== null) this.#out.appendByteString(head);
    if (chunk !== null) this.#out.append(chunk);
    const flushed = this.#channel.flush();
    // Not after the write, as the channel would begin another read, only to cancel it.
    if (last) this.#finish();
    return flushed;
  }

  log(message: string, info?: HandlerInfo): void {
    this.#service.log(message, info);
  }

  pull(): void {
    this.#channel.resume();
  }

  /** Closes the connection, which ends the response (rule D5), complete or truncated (rule B17). */
  #finish(): void {
    if (this.#phase === "finished") return;
    this.#phase = "finished";
    this.#body?.discard();
    this.#channel.finish(this.#body?.arrived !== true);
  }

  /** The web server has closed its writing side, as it may once the body is complete (rule D4). */
  inputEnded(): void {
    if (this.#phase === "finished") return;
    if (this.#body?.arrived !== true) this.abort(disconnected());
    else this.#channel.probe();
  }

  failed(error: unknown): void {
    if (error instanceof ProtocolError || error instanceof StallError) this.log(error.message);
    this.#exchange?.abort(disconnected());
  }

  check(now: number): void {
    const { limits, log } = this.#service;
    this.#channel.check(now);
    const open = this.#opened.elapsed(now);
    const unused = this.#unused?.elapsed(now, this.#channel.reads === 0 ? 0 : NaN) ?? 0;
    if (unused > NEW_CONNECTION) {
      this.#channel.close();
    } else if (this.#phase === "variables" && open > limits.variablesTimeout) {
      log(
        `Closed a connection: a request's variables did not arrive within ${limits.variablesTimeout} ms`,
      );
      if (this.#channel.reads > 0) this.#dropLate();
      this.abort(disconnected());
    } else {
      if (this.#body !== null) (this.#bodyWatch ??= new BodyWatch(limits)).check(this.#body, now);
      this.#checkTime(now);
      if (this.#channel.inputEnded) this.#channel.probe();
    }
  }

  /** Responds with 503 if the app has taken too long. */
  #checkTime(now: number): void {
    const { requestTimeout } = this.#service;
    const exchange = this.#exchange;
    if (requestTimeout === Infinity || exchange?.handling !== true) return;
    this.#clock ??= new ResponseClock(requestTimeout);
    if (!this.#clock.isOver(now, this.#body?.waiting === true)) return;
    expire(timeoutError(requestTimeout), exchange, this).then(() => this.#finish());
  }

  /** Records that the connection closes as its variables are late. */
  #dropLate(): void {
    new Exchange(this, new Variables([]), null, this.#service.options).dropped(408);
  }

  drain(): void {
    this.#unused ??= new Progress();
  }

  abort(reason: unknown): void {
    this.#channel.close();
    this.#exchange?.abort(reason);
  }
}

/**
 * Checks that CONTENT_LENGTH is the first header and that SCGI is 1 (section 3).
 *
 * @throws {ProtocolError} If not.
 */
function checkHeaders(pairs: [name: string, value: string][]): void {
  if (pairs[0][0] !== "CONTENT_LENGTH" || !/^\d+$/.test(pairs[0][1])) {
    throw new ProtocolError(
      `Cannot accept SCGI request as its first header must be CONTENT_LENGTH with a number: it is ${
        JSON.stringify(pairs[0])
      }`,
    );
  }
  if (!pairs.some(([name, value]) => name === "SCGI" && value === "1")) {
    throw new ProtocolError("Cannot accept SCGI request: its header SCGI is not 1");
  }
}
