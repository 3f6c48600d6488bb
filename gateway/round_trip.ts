import { BodyRate } from "../io/body_rate.ts";
import { cancelSoon } from "../io/cancel_soon.ts";
import { messageOf } from "../io/describe.ts";
import { type VariableSink, writeVariables } from "../bridge/request_variables.ts";
import { safeLog } from "../io/log.ts";
import { Progress } from "../io/progress.ts";
import { EntryTooLargeError, type Spool, type SpoolEntry } from "../io/spool.ts";
import { StreamReader } from "../io/stream_reader.ts";
import type { CallTrace, Fields } from "../io/telemetry.ts";
import type { Ticked, Ticker } from "../io/ticker.ts";
import { isProtocolError, ProtocolError } from "../wire/protocol_error.ts";
import { DEFAULTS, type GatewayInfo, type GatewayOptions } from "./options.ts";
import { type ApplicationResponse, ResponseReader } from "./response.ts";
import type { ScriptPath } from "./script_path.ts";

/** The files of a script, which become variables. */
export interface ScriptFiles {
  /** SCRIPT_FILENAME. */
  scriptFilename: string;
  /** DOCUMENT_ROOT. */
  documentRoot: string;
}

/** A connection or process that carries a round trip. */
export interface Transport {
  /** Called when the round trip is aborted. */
  abort(reason: unknown): void;
  /** Called when the response is complete and the rest of the request's body will not be sent. */
  complete?(): void;
}

/** The size of a small body, in bytes: it is always received before the application is called, and in memory. */
const SMALL_BODY = 65_536;
/** The size of the buffer that a body is read into at first, in bytes. */
const BODY_READ = 16_384;

/** One request to an application and its response, whatever the transport. */
export class RoundTrip implements Ticked {
  readonly request: Request;
  /** The length of the body in bytes, or undefined if it is unknown. */
  length: number | undefined;
  /** Reads the response from the bytes that the application writes. */
  readonly reader: ResponseReader;
  /** Writes a line to the gateway's log. */
  readonly log: (message: string) => void;
  place = -1;
  /** What carries the round trip, once it has begun. */
  transport: Transport | undefined;
  #options: GatewayOptions;
  #info: GatewayInfo | undefined;
  #ticker: Ticker;
  /** The header fields that the span sends, if there is one. */
  #fields: Fields | undefined;
  #checks = 0;
  #progress = new Progress();
  /** How many waits for the client are in progress: the client's timeout then applies. */
  #clientWaits = 0;
  /** The time since the response was complete. */
  #completed = new Progress();
  /** The request's signal, once it is observed. */
  #signal: AbortSignal | undefined;
  #maxBodyBytes: number;
  #body: StreamReader | undefined;
  /** The part of a small body that was received before the application was called. */
  #buffered: Uint8Array<ArrayBuffer>[] = [];
  /** The same of a larger body. */
  #spooled: SpoolEntry | undefined;
  /** The number of bytes that the client has sent of the body, and whether the gateway waits for more. */
  #received = 0;
  #receiving = false;
  #rate: BodyRate | undefined;
  /**
   * "complete": the response is complete before the whole body was sent. "over": the transport has finished, or the
   * round trip was aborted.
   */
  #phase: "open" | "complete" | "over" = "open";
  #abort = () => {
    // Deno.serve aborts the signal after a complete response as well.
    if (!this.reader.complete) this.abort(this.#signal!.reason);
  };

  /**
   * @param trace The span of the request, if spans are exported.
   * @throws {ProtocolError} If the body is longer than allowed (status 413), or Content-Length invalid (status 400).
   */
  constructor(
    request: Request,
    info: GatewayInfo | undefined,
    options: GatewayOptions,
    ticker: Ticker,
    trace?: CallTrace,
  ) {
    const {
      maxHeaderBytes = DEFAULTS.maxHeaderBytes,
      maxBodyBytes = DEFAULTS.maxBodyBytes,
    } = options;
    this.request = request;
    this.log = safeLog(options.log);
    this.#options = options;
    this.#info = info;
    this.#ticker = ticker;
    this.#maxBodyBytes = maxBodyBytes;
    this.length = bodyLength(request);
    if ((this.length ?? 0) > maxBodyBytes) throw tooLarge(maxBodyBytes);
    this.#body = request.body === null ? undefined : new StreamReader(request.body, BODY_READ);
    this.#fields = trace?.begin();
    this.reader = new ResponseReader({
      method: request.method,
      maxHeaderBytes,
      namesFiles: options.sendFile !== undefined,
      oncancel: (reason) => this.abort(reason),
      oncomplete: () => this.#complete(),
      // A client that has left is not a failure of the application.
      onended: trace && ((error) => trace.bodyEnds(this.#signal?.aborted ? undefined : error)),
      log: this.log,
    });
    // Deno.serve aborts a signal that was read even after a complete response, with a DOMException each time. Most
    // requests are finished before the second check, which reads it too.
    if (info === undefined || !("completed" in info)) this.#observe();
    if (!this.over) ticker.add(this);
  }

  /** Aborts the round trip if the client has disconnected or a side has made no progress for too long. */
  check(now: number): void {
    if (++this.#checks > 1) this.#observe();
    this.#rate ??= new BodyRate(this.#options.minBodyRate ?? DEFAULTS.minBodyRate);
    if (this.#rate.isTooSlow(now, this.#received, this.#receiving)) {
      return this.abort(tooSlow(this.#rate.minimum));
    }
    if (this.reader.complete) return this.#checkRest(now);
    const { timeout = DEFAULTS.timeout, clientTimeout = DEFAULTS.clientTimeout } = this.#options;
    const [side, limit, status] = this.#clientWaits > 0
      ? ["client", clientTimeout, 408]
      : ["application", timeout, 504];
    if (this.#progress.elapsed(now) < limit) return;
    this.abort(
      new ProtocolError(
        `Cannot complete the response: the ${side} made no progress for ${limit} ms`,
        status,
      ),
    );
  }

  /** Aborts the round trip if the application runs for too long after its response, whether it writes or not. */
  #checkRest(now: number): void {
    const { timeout = DEFAULTS.timeout } = this.#options;
    if (this.#completed.elapsed(now) < timeout || this.over) return;
    const message = `Stopped the application: it still ran ${timeout} ms after its response`;
    this.log(message);
    this.abort(new Error(message));
  }

  /** Records that the application or the client has made progress. */
  progressed(): void {
    this.#progress.progressed();
  }

  /** Waits for the client, with the client's timeout. */
  async waitForClient<T>(waiting: Promise<T>): Promise<T> {
    this.#clientWaits++;
    this.progressed();
    try {
      return await waiting;
    } finally {
      this.#clientWaits--;
      this.progressed();
    }
  }

  /** Aborts the round trip as the gateway is disposed of. */
  close(): void {
    this.abort(disposed(502));
  }

  #observe(): void {
    if (this.#signal !== undefined) return;
    this.#signal = this.request.signal;
    if (this.#signal.aborted) this.#abort();
    else this.#signal.addEventListener("abort", this.#abort);
  }

  /** The response, once its header block is complete. */
  get response(): Promise<ApplicationResponse> {
    return this.reader.response;
  }

  /** Whether the transport has finished, or the round trip was aborted. */
  get over(): boolean {
    return this.#phase === "over";
  }

  /**
   * Passes the variables of the request to a function, as byte strings.
   *
   * @throws {ProtocolError} If one has a NUL, which would end a C string or an SCGI header.
   */
  variables(
    url: URL,
    path: ScriptPath,
    files: ScriptFiles | undefined,
    write: VariableSink,
  ): void {
    const { request, length } = this;
    const info = this.#info;
    const { variables: given, passAuthorization } = this.#options;
    writeVariables(request, {
      url,
      scriptName: path.scriptName,
      pathInfo: path.pathInfo,
      scriptFilename: files?.scriptFilename,
      documentRoot: files?.documentRoot,
      contentLength: request.body === null ? undefined : length,
      remoteAddr: info?.remoteAddr,
      dropAuthorization: passAuthorization === false,
      fields: this.#fields,
      variables: typeof given === "function" ? given(request, info) : given,
    }, (name, value) => {
      if (value.includes("\0")) {
        throw new ProtocolError(`Cannot send ${name}: it has a NUL`);
      }
      write(name, value);
    });
  }

  /**
   * Receives the body before the application is called, so that a slow client occupies none of its processes.
   *
   * "whole" receives all of it. "length" receives all of a small body, and of one of unknown length, to find its length.
   * "small" receives no more than the size of a small body; a longer one streams.
   *
   * @param spool Where the bytes of a body that is not small wait.
   * @throws {ProtocolError} If the body is longer than allowed (status 413), too many bytes of all bodies wait (503), or
   * the client does not send all of it (400).
   */
  async receive(part: "whole" | "length" | "small", spool: Spool): Promise<void> {
    const unknown = this.length === undefined;
    const most = part === "whole" || part === "length" && unknown ? Infinity : SMALL_BODY;
    if (this.#body === undefined || (this.length ?? 0) > most) return;
    await this.waitForClient(this.#receive(most, spool));
  }

  async #receive(most: number, spool: Spool): Promise<void> {
    while (this.#received < (this.length ?? Infinity)) {
      const chunk = await this.#read();
      if (this.over) return;
      if (chunk === null) {
        this.length ??= this.#received;
        if (this.#received < this.length) throw wrongLength(this.length, String(this.#received));
        return;
      }
      if (this.#received > this.#maxBodyBytes) throw tooLarge(this.#maxBodyBytes);
      if (this.#received <= SMALL_BODY || most === SMALL_BODY) this.#buffered.push(chunk.slice());
      else await this.#spool(chunk, spool);
      if (this.#received > most) return;
    }
  }

  /** Moves a body that is not small from memory to the spool. */
  async #spool(chunk: Uint8Array<ArrayBuffer>, spool: Spool): Promise<void> {
    try {
      if (this.#spooled === undefined) {
        this.#spooled = spool.create();
        this.#spooled.announce(this.length ?? 0);
      }
      for (const bytes of this.#buffered.splice(0)) await this.#spooled.write(bytes);
      await this.#spooled.write(chunk);
    } catch (error) {
      if (this.over) return;
      throw new ProtocolError(
        `Cannot receive request body as ${(error as Error).message}`,
        error instanceof EntryTooLargeError ? 413 : 503,
      );
    }
  }

  /** Returns the next chunk of the body: first the part that was received before the call, then chunks as they arrive. */
  async #next(): Promise<Uint8Array<ArrayBuffer> | null> {
    const buffered = this.#buffered.shift();
    if (buffered !== undefined) return buffered;
    const spooled = await this.#readSpooled();
    if (spooled !== null) return spooled;
    this.#spooled?.close();
    this.#spooled = undefined;
    return await this.#read();
  }

  async #readSpooled(): Promise<Uint8Array<ArrayBuffer> | null> {
    try {
      return await this.#spooled?.read() ?? null;
    } catch (error) {
      // It was closed meanwhile.
      if (this.#phase !== "open") return null;
      throw new ProtocolError(
        `Cannot send request body: its file cannot be read: ${(error as Error).message}`,
        500,
      );
    }
  }

  /**
   * Sends the body: the part that was received, then the rest as it arrives from the client.
   *
   * @param write Writes a chunk; rejects when the application has stopped reading.
   * @returns Whether the whole body was sent: an application may respond without reading it.
   */
  async send(write: (chunk: Uint8Array<ArrayBuffer>) => Promise<void> | void): Promise<boolean> {
    let sent = 0;
    try {
      for (let chunk = await this.#next(); chunk !== null; chunk = await this.#next()) {
        sent += chunk.length;
        if (sent > this.#maxBodyBytes) throw tooLarge(this.#maxBodyBytes);
        if (sent > (this.length ?? Infinity)) throw wrongLength(this.length!, "more");
        await write(chunk);
        this.progressed();
        if (this.#phase !== "open") return false;
      }
      if (this.#phase !== "open") return false;
      if (sent < (this.length ?? 0)) throw wrongLength(this.length!, String(sent));
      return true;
    } catch (error) {
      if (error instanceof ProtocolError) this.abort(error);
      return false;
    }
  }

  /** Reads the next chunk of the body from the client, which is valid until the next read. */
  async #read(): Promise<Uint8Array<ArrayBuffer> | null> {
    if (this.#body === undefined) return null;
    this.#receiving = true;
    try {
      const chunk = await this.waitForClient(this.#body.read());
      if (chunk !== null) {
        this.#received += chunk.length;
        return chunk;
      }
    } catch (error) {
      throw new ProtocolError(
        `Cannot send request body: the client did not send all of it: ${messageOf(error)}`,
      );
    } finally {
      this.#receiving = false;
    }
    this.#body = undefined;
    return null;
  }

  /** Discards the rest of the body: `Deno.serve` would wait for it. */
  #complete(): void {
    const body = this.#body;
    if (body === undefined && this.#spooled === undefined || this.over) return;
    this.#phase = "complete";
    this.#body = undefined;
    if (body !== undefined) cancelSoon(body);
    this.#spooled?.close();
    this.transport?.complete?.();
  }

  /** Returns a promise if the client should first read more of the response. */
  room(): Promise<void> | void {
    const room = this.reader.room();
    if (room) return this.waitForClient(room);
  }

  /** Aborts because of the application or the connection to it. The status of the response is then at least 500. */
  fail(error: unknown): void {
    if (error instanceof ProtocolError && error.status >= 500) return this.abort(error);
    const message = messageOf(error);
    this.abort(
      new ProtocolError(
        error instanceof ProtocolError
          ? message
          : `Cannot read response: the application did not send all of it: ${message}`,
        502,
      ),
    );
  }

  /** Aborts the round trip: the client has disconnected, or something failed. Logs why a response is truncated. */
  abort(reason: unknown): void {
    if (this.over) return;
    const { begun, complete } = this.reader;
    if (begun && !complete && isProtocolError(reason)) this.log(reason.message);
    this.finish();
    this.reader.fail(reason);
    this.transport?.abort(reason);
  }

  /** Ends the round trip. Called by the transport when it has finished. */
  finish(): void {
    if (this.over) return;
    this.#phase = "over";
    this.#ticker.delete(this);
    this.#signal?.removeEventListener("abort", this.#abort);
    if (this.#body !== undefined) cancelSoon(this.#body);
    this.#spooled?.close();
  }
}

/** Creates the error of a request to a gateway that is disposed of. */
export function disposed(status: number): ProtocolError {
  return new ProtocolError(
    "Cannot respond: the gateway was disposed of",
    status,
  );
}

/** Returns the length of a request's body: 0 without a body, undefined if it is unknown. */
function bodyLength(request: Request): number | undefined {
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
  return length;
}

function tooLarge(most: number): ProtocolError {
  return new ProtocolError(
    `Cannot send request body: it has more than ${most} bytes`,
    413,
  );
}

function wrongLength(length: number, actual: string): ProtocolError {
  return new ProtocolError(
    `Cannot send request body as it must have ${length} bytes: it has ${actual}`,
  );
}

function tooSlow(rate: number): ProtocolError {
  return new ProtocolError(
    `Cannot send request body: the client sent fewer than ${rate} bytes per second (minBodyRate)`,
    408,
  );
}
