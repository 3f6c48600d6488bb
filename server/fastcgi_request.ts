import { BodyWatch } from "./body_watch.ts";
import type { DebugHook } from "./debug_hook.ts";
import { disconnected, Exchange, FilterExchange, type TransportInfo } from "./exchange.ts";
import { BODY_HIGH_WATER, type BodyMemory } from "./body_memory.ts";
import { Params } from "./fastcgi_params.ts";
import type { LimitOptions } from "./limits.ts";
import { RequestBody, type RequestBodySource } from "./request_body.ts";
import { expire, ResponseClock, timeoutError } from "./request_timeout.ts";
import { refuse, respond, type ResponseSink } from "./respond.ts";
import type { RunningRequests } from "./running_requests.ts";
import type { AppObject, AppOptions, FilterInfo, Handler, HandlerInfo } from "../bridge/app.ts";
import { describeError } from "../io/describe.ts";
import { contentLength } from "../bridge/request.ts";
import { type ServerQuirks, serverQuirks } from "../bridge/server_quirks.ts";
import { LINGER, LINGER_IDLE } from "../io/timeouts.ts";
import type { LogFunction } from "../io/log.ts";
import { Progress } from "../io/progress.ts";
import type { ReadBuffer } from "../io/read_buffer.ts";
import { workload } from "../io/workload.ts";
import type { ByteBuffer } from "../wire/byte_buffer.ts";
import { toByteString } from "../wire/byte_string.ts";
import {
  type BeginRequest,
  encodeAbortRequest,
  encodeEndRequest,
  encodeStream,
  encodeStreamEnd,
  encodeStreamText,
  ProtocolStatus,
  RecordType,
  Role,
} from "../wire/fastcgi.ts";
import { ProtocolError } from "../wire/protocol_error.ts";
import { Variables } from "../wire/variables.ts";

/** The limits of a FastCGI server. */
export interface FastCGILimits extends Required<LimitOptions> {
  maxRequestsPerConnection: number;
  idleTimeout: number;
}

/** What all connections of one server share. */
export interface FastCGIService {
  app: AppObject;
  options: AppOptions;
  limits: FastCGILimits;
  log: LogFunction<HandlerInfo>;
  logTo: "server" | "log" | "both";
  running: RunningRequests;
  memory: BodyMemory;
  requestTimeout: number;
  program: string | undefined;
  debug: DebugHook;
  /** The response to FCGI_GET_VALUES. */
  capacity: [name: string, value: string][];
}

/** The connection of a request, as the request sees it. */
export interface RequestConnection extends RequestBodySource {
  /** Where requests encode their records. */
  readonly out: ByteBuffer;
  /** Whether the connection is closed. */
  readonly closed: boolean;
  /** Whether exactly one request is in progress on it. */
  readonly alone: boolean;
  /** The protocol status of a complete request. */
  readonly status: number;
  /**
   * Starts to send the pending bytes. If that fails, the connection aborts its requests.
   *
   * @returns A promise if so many bytes are pending that the caller should wait.
   */
  flush(): Promise<void> | void;
  /**
   * Removes a request that has ended, and closes if it was the last one.
   *
   * @param broken Whether closing truncates its response.
   */
  ended(request: FastCGIRequest, broken: boolean): void;
}

/** How many bytes of variables a refused request may have: more are dropped, and an access log does without them. */
const MAX_REFUSED = 16_384;
/** How many bytes may be pending before a log message flushes them. */
const LOG_BUFFER = 16384;

/** How long FCGI_ABORT_REQUEST waits for the response where it may be sent too soon, in milliseconds. */
const ABORT_DELAY = 2000;

/** How a request is refused: the status of the response, and the protocol status of FCGI_END_REQUEST. */
interface Refusal {
  status: number;
  protocolStatus: number;
}

/** One request on a connection, from FCGI_BEGIN_REQUEST to FCGI_END_REQUEST. */
export class FastCGIRequest implements ResponseSink, TransportInfo {
  readonly protocol = "fastcgi";
  readonly id: number;
  readonly keepConnection: boolean;
  /** The web server's quirks: those of an earlier request until this one's variables are complete. */
  quirks: ServerQuirks;
  /**
   * Prepared: the variables are complete, or the request is refused without them. Running: the app was called, or the
   * refusal was sent. Responded: FCGI_END_REQUEST waits for the rest of the input (rule C13).
   */
  #phase: "variables" | "prepared" | "running" | "responded" | "ended" = "variables";
  #refusal: Refusal | null = null;
  #connection: RequestConnection;
  #service: FastCGIService;
  #role: number;
  /** The app's handler for the role, if it has one. */
  #handler: Handler | undefined;
  /** Whether it counts among the running requests. One that arrives while the server is overloaded does not. */
  #counted: boolean;
  /** Ends the count of a request that has ended before its handler has settled. */
  #settle: (() => void) | null = null;
  /** Its variables, until they are decoded. */
  #params: Params | null = new Params();
  #exchange: Exchange | null = null;
  #body: RequestBody | null = null;
  #data: RequestBody | null = null;
  /** The record types of the streams that have not ended, as bits: a request costs no Set. */
  #open = 0;
  #begun: Progress | null = null;
  /** The watches of the body and of a filter's data, once they are checked. */
  #watches: [BodyWatch, BodyWatch] | null = null;
  /** How long the app takes to respond, once that is checked. */
  #clock: ResponseClock | null = null;
  /** In the filter role, resolves when FCGI_STDIN has ended. */
  #inputWhole: PromiseWithResolvers<void> | null = null;
  /** Whether FCGI_STDERR was used. */
  #logged = false;
  /** How long FCGI_ABORT_REQUEST waits, once it has arrived. */
  #aborting: Progress | null = null;
  /** How long the input has been dropped after the response: in total, and without a byte. */
  #drained: [Progress, Progress] | null = null;

  constructor(
    connection: RequestConnection,
    service: FastCGIService,
    id: number,
    { role, keepConnection }: BeginRequest,
    overloaded: boolean,
    quirks: ServerQuirks,
  ) {
    this.#connection = connection;
    this.#service = service;
    this.id = id;
    this.#role = role;
    this.keepConnection = keepConnection;
    this.quirks = quirks;
    this.#handler = this.#findHandler(service.app);
    this.#counted = !overloaded;
    if (overloaded) this.#refuse(503, ProtocolStatus.overloaded);
    else service.running.count++;
  }

  get program(): string | undefined {
    return this.#service.program;
  }

  get debug(): DebugHook {
    return this.#service.debug;
  }

  /** How many bytes are buffered for the app, while reading may wait for it. */
  get buffered(): number {
    if (this.#phase === "responded") return 0;
    return (this.#body?.buffered ?? 0) + (this.#data?.buffered ?? 0);
  }

  /** Whether the whole request has arrived. An authorizer gets no FCGI_STDIN (rule C27). */
  get inputEnded(): boolean {
    if (this.#exchange === null || this.#handler === undefined) return false;
    if (this.#role === Role.authorizer) return true;
    return this.#body !== null && this.#open === 0;
  }

  /** Returns whether its variables are late. */
  isLate(now: number): boolean {
    if (this.#phase !== "variables") return false;
    return (this.#begun ??= new Progress()).elapsed(now) > this.#service.limits.variablesTimeout;
  }

  /** Records that the connection closes as its variables are late. */
  dropLate(): void {
    this.#refusedExchange().dropped(408);
  }

  /** Refuses the request. The first reason counts. */
  #refuse(status: number, protocolStatus: number = ProtocolStatus.requestComplete): void {
    this.#refusal ??= { status, protocolStatus };
  }

  /**
   * Refuses a role that the app lacks, without waiting for the variables (rule C7).
   *
   * @returns Whether it did: the request can start.
   */
  checkRole(): boolean {
    if (this.#handler !== undefined) return false;
    const method = ROLE_METHODS[this.#role];
    const reason = method === undefined ? "there is no such role" : `the app has no ${method}`;
    this.log(`Refused a request of role ${this.#role}: ${reason}`);
    this.#refuse(500, ProtocolStatus.unknownRole);
    this.#phase = "prepared";
    this.#exchange = this.#refusedExchange();
    return true;
  }

  /**
   * Adds content of FCGI_PARAMS. Empty content ends the stream.
   *
   * @returns Whether the variables are now complete: the request can start.
   */
  addVariables(content: Uint8Array): boolean {
    if (this.#phase !== "variables") return false;
    if (content.length === 0) {
      this.#prepare();
      return true;
    }
    const isRefused = this.#refusal !== null;
    this.#params!.add(content, isRefused ? MAX_REFUSED : this.#service.limits.maxVariableBytes);
    return false;
  }

  /**
   * Adds content of FCGI_STDIN or FCGI_DATA. Empty content ends the stream.
   *
   * @param read The buffer of the content.
   */
  addInput(type: number, content: Uint8Array, read: ReadBuffer): void {
    const body = type === RecordType.stdin ? this.#body : this.#data;
    if (body === null) {
      if (this.#phase !== "variables") return;
      throw new ProtocolError("Cannot accept FCGI_STDIN before the end of FCGI_PARAMS");
    }
    if (content.length === 0) {
      body.end();
      this.#open &= ~(1 << type);
      if (body === this.#body) this.#inputWhole?.resolve();
      if (this.#phase === "responded" && this.inputEnded) this.#endLate();
      return;
    }
    body.push(content, read);
    const { maxBufferedBody } = this.#service.limits;
    if (body.buffered > maxBufferedBody + BODY_HIGH_WATER) {
      body.fail(
        new ProtocolError(
          `Cannot buffer request body: it has more than ${maxBufferedBody} unread bytes. Raise maxBufferedBody, or read it sooner`,
          413,
        ),
      );
    }
  }

  /** Creates the exchange, or refuses the request, once the variables are complete. */
  #prepare(): void {
    const { limits } = this.#service;
    let variables: Variables | undefined;
    let exchange: Exchange | undefined;
    if (this.#role !== Role.authorizer) {
      this.#body = this.#createBody(RecordType.stdin, limits.maxBodyBytes);
    }
    try {
      variables = this.#params!.decode(limits);
      this.quirks = serverQuirks(variables);
      if (this.#refusal === null) {
        this.#body?.declare(contentLength(variables));
        exchange = this.#createExchange(variables);
      }
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#refuse(error.status);
      this.log(error.message);
    }
    this.#params = null;
    this.#phase = "prepared";
    this.#exchange = exchange ?? this.#refusedExchange(variables);
  }

  /** Calls the app without waiting for the rest of the body (rule C12), or sends the refusal. */
  start(): void {
    if (this.#phase === "ended") return;
    this.#phase = "running";
    const exchange = this.#exchange!;
    workload.begin();
    const responded = this.#refusal !== null
      ? refuse(this.#refusal.status, exchange, this)
      : respond(this.#handler!, exchange, this, this.#service.options);
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
    if (this.#settle === null) this.#release();
    else this.#settle();
  }

  /** Stops counting the buffered bytes of its body, as no handler runs that might read it. */
  #release(): void {
    this.#body?.release();
    this.#data?.release();
  }

  #createBody(type: number, maxBytes?: number): RequestBody {
    this.#open |= 1 << type;
    return new RequestBody(this.#connection, maxBytes, this.#service.memory);
  }

  #uncount(): void {
    if (this.#counted) this.#service.running.count--;
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
          this.#exchange!.responded();
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
    return new Exchange(this, variables, this.#body, this.#service.options);
  }

  /** Creates the exchange. A filter's has FCGI_DATA too, whose length and time are required (section 6.4). */
  #createExchange(variables: Variables): Exchange {
    const { options } = this.#service;
    if (this.#role !== Role.filter) return new Exchange(this, variables, this.#body, options);
    const length = Number(variables.byteString("FCGI_DATA_LENGTH") ?? NaN);
    const seconds = Number(variables.byteString("FCGI_DATA_LAST_MOD") ?? NaN);
    this.#data = this.#createBody(RecordType.data);
    this.#data.declare(Number.isSafeInteger(length) ? length : undefined);
    this.#inputWhole = Promise.withResolvers();
    const exchange = new FilterExchange(this, variables, this.#body, options, {
      data: this.#data.stream,
      dataLength: length,
      dataLastModified: new Date(seconds * 1000),
    });
    if (!Number.isSafeInteger(length) || length < 0 || !Number.isSafeInteger(seconds)) {
      throw new ProtocolError(
        "Cannot filter: FCGI_DATA_LENGTH and FCGI_DATA_LAST_MOD are not whole numbers",
      );
    }
    return exchange;
  }

  send(head: string | null, chunk: Uint8Array | null, last: boolean): Promise<void> | void {
    if (this.#phase === "ended" || this.#connection.closed) throw disconnected();
    const { out } = this.#connection;
    const { id } = this;
    if (head !== null) encodeStreamText(out, RecordType.stdout, id, head);
    if (chunk !== null) encodeStream(out, RecordType.stdout, id, chunk);
    if (last) {
      encodeStreamEnd(out, RecordType.stdout, id);
      if (this.quirks.needsInputEnd && !this.inputEnded) this.#drain();
      else this.#end(0, false);
    }
    return this.#connection.flush();
  }

  log(message: string, info?: HandlerInfo): void {
    const { logTo, log } = this.#service;
    const ended = this.#phase === "ended" || this.#connection.closed;
    const toServer = logTo !== "log" && !ended && !this.quirks.lacksStderr;
    if (logTo === "both" || !toServer) log(message, info);
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

  /** Drops the rest of the input until it ends. */
  #drain(): void {
    this.#phase = "responded";
    this.#uncount();
    this.#drained = [new Progress(), new Progress()];
    this.#discard();
    this.#connection.pull();
  }

  #discard(): void {
    this.#body?.discard();
    this.#data?.discard();
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
    const received = this.#body?.received ?? 0;
    if (total.elapsed(now) <= LINGER && stall.elapsed(now, received) <= LINGER_IDLE) return;
    if (this.#connection.alone) this.#forget(true);
    else this.#endLate();
  }

  /** Fails a body whose next bytes do not arrive in time while the app reads it. */
  checkBody(now: number): void {
    if (this.#phase === "responded") return this.#checkDrain(now);
    const { limits } = this.#service;
    this.#watches ??= [new BodyWatch(limits), new BodyWatch(limits)];
    if (this.#body !== null) this.#watches[0].check(this.#body, now);
    if (this.#data !== null) this.#watches[1].check(this.#data, now);
  }

  /** Responds with 503 if the app has taken too long. */
  checkTime(now: number): void {
    const { requestTimeout } = this.#service;
    const exchange = this.#exchange;
    if (requestTimeout === Infinity || exchange?.handling !== true) return;
    this.#clock ??= new ResponseClock(requestTimeout);
    const waits = this.#body?.waiting === true || this.#data?.waiting === true;
    if (!this.#clock.isOver(now, waits)) return;
    const error = timeoutError(requestTimeout);
    this.#abandon();
    this.#data?.destroy(error);
    expire(error, exchange, this).then((sent) => {
      if (!sent) this.#truncate();
    });
  }

  /** Aborts the request, as FCGI_ABORT_REQUEST arrived (section 5.4). Where that may be too soon, it waits (rule C21). */
  abortedByPeer(): void {
    if (this.quirks.abortsEarly && this.inputEnded) this.#aborting ??= new Progress();
    else this.#abortNow();
  }

  /** Aborts a request whose abort has waited long enough. */
  checkAbort(now: number): void {
    if (this.#aborting !== null && this.#aborting.elapsed(now) > ABORT_DELAY) this.#abortNow();
  }

  #abortNow(): void {
    if (this.#phase === "ended") return;
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
    this.#data?.fail(reason);
    this.#exchange?.abort(reason);
  }

  /** Counts a request whose handler runs on until that settles, for some time. */
  #abandon(): void {
    if (this.#phase !== "running" || !this.#counted) return;
    this.#counted = false;
    this.#settle = this.#service.running.abandon(() => this.#release());
  }

  /**
   * Truncates a response that failed after its head (rule B17): closes the connection without ending the stream, or
   * where other requests share it, ends the request with an appStatus other than 0.
   */
  #truncate(): void {
    if (this.#phase === "ended") return;
    const { alone, out } = this.#connection;
    if (alone) {
      if (this.quirks.hidesClose) encodeAbortRequest(out, this.id);
      return this.#forget(true);
    }
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
    if (this.#phase === "variables" || this.#phase === "prepared") this.#release();
    this.#phase = "ended";
    this.#uncount();
    this.#discard();
    this.#inputWhole?.resolve();
    this.#connection.ended(this, broken);
  }
}

const ROLE_METHODS: Record<number, string> = {
  [Role.responder]: "fetch()",
  [Role.authorizer]: "authorize()",
  [Role.filter]: "filter()",
};
