import { createVariables } from "../bridge/request_variables.ts";
import { ProtocolError } from "../wire/protocol_error.ts";
import { DEFAULTS, type GatewayInfo, type GatewayOptions } from "./options.ts";
import { type ApplicationResponse, ResponseReader } from "./response.ts";
import type { ScriptPath } from "./script_path.ts";
import { Watchdog } from "./watchdog.ts";

/** The files of a script, which become variables. */
export interface ScriptFiles {
  /** SCRIPT_FILENAME. */
  scriptFilename: string;
  /** DOCUMENT_ROOT. */
  documentRoot: string;
}

/** Names and values of variables, as byte strings. */
export type VariablePairs = [name: string, value: string][];

/** One request to an application and its response, whatever the transport. */
export class RoundTrip {
  readonly request: Request;
  /** The length of the body in bytes, or undefined if it is unknown. */
  length: number | undefined;
  /** Reads the response from the bytes that the application writes. */
  readonly reader: ResponseReader;
  /** Aborts the round trip when it makes no progress. */
  readonly watchdog: Watchdog;
  /** Writes a line to the gateway's log. */
  readonly log: (message: string) => void;
  /** Set by the transport. Called when the response is complete and the rest of the request's body will not be sent. */
  oncomplete: () => void = () => {};
  /** Set by the transport. Called when the round trip is aborted. */
  onabort: (reason: unknown) => void = () => {};
  #options: GatewayOptions;
  #maxBodyBytes: number;
  #body: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>> | undefined;
  #buffered: Uint8Array<ArrayBuffer>[] = [];
  /**
   * "complete": the response is complete before the whole body was sent. "over": the transport has finished, or the
   * round trip was aborted.
   */
  #phase: "open" | "complete" | "over" = "open";
  #abort = () => {
    // Deno.serve aborts the signal after a complete response as well.
    if (!this.reader.complete) this.abort(this.request.signal.reason);
  };

  /**
   * @throws {ProtocolError} If the body is longer than allowed (status 413), or Content-Length invalid (status 400).
   */
  constructor(request: Request, options: GatewayOptions) {
    const {
      timeout = DEFAULTS.timeout,
      clientTimeout = DEFAULTS.clientTimeout,
      maxHeaderBytes = DEFAULTS.maxHeaderBytes,
      maxBodyBytes = DEFAULTS.maxBodyBytes,
      log = console.error,
    } = options;
    this.request = request;
    this.#options = options;
    this.log = log;
    this.#maxBodyBytes = maxBodyBytes;
    this.length = bodyLength(request);
    if ((this.length ?? 0) > maxBodyBytes) throw tooLarge(maxBodyBytes);
    this.#body = request.body?.getReader();
    this.reader = new ResponseReader({
      method: request.method,
      maxHeaderBytes,
      oncancel: (reason) => this.abort(reason),
      oncomplete: () => this.#complete(),
      log,
    });
    this.watchdog = new Watchdog({ application: timeout, client: clientTimeout }, (side) => {
      const [limit, status] = side === "client" ? [clientTimeout, 408] : [timeout, 504];
      const error = new ProtocolError(
        `Cannot complete the response as the ${side} must make progress within ${limit} ms: it made none`,
        status,
      );
      if (this.reader.begun) log(error.message);
      this.abort(error);
    });
    if (request.signal.aborted) this.#abort();
    else request.signal.addEventListener("abort", this.#abort);
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
   * Creates the variables of the request.
   *
   * @throws {ProtocolError} If one has a NUL, which would end a C string or an SCGI header.
   */
  variables(
    info: GatewayInfo | undefined,
    path: ScriptPath,
    files?: ScriptFiles,
  ): VariablePairs {
    const { request, length } = this;
    const { variables: given, passAuthorization } = this.#options;
    const variables = createVariables(request, {
      ...path,
      ...files,
      contentLength: request.body === null ? undefined : length,
      remoteAddr: info?.remoteAddr,
      dropAuthorization: passAuthorization === false,
      variables: typeof given === "function" ? given(request, info) : given,
    });
    for (const [name, value] of variables) {
      if (value.includes("\0")) {
        throw new ProtocolError(`Cannot send ${name} as it must have no NUL: it has one`);
      }
    }
    return variables;
  }

  /**
   * Returns the length of the body. Buffers a body of unknown length to find it.
   *
   * @param most The maximum number of buffered bytes.
   * @throws {ProtocolError} If the body is longer (status 413).
   */
  async measure(most: number): Promise<number> {
    if (this.length !== undefined) return this.length;
    let length = 0;
    for (let chunk = await this.#read(); chunk !== null; chunk = await this.#read()) {
      length += chunk.length;
      if (length > Math.min(most, this.#maxBodyBytes)) {
        throw tooLarge(Math.min(most, this.#maxBodyBytes));
      }
      this.#buffered.push(chunk);
    }
    return this.length = length;
  }

  /**
   * Sends the body as it arrives from the client.
   *
   * @param write Writes a chunk; rejects when the application has stopped reading.
   * @returns Whether the whole body was sent: an application may respond without reading it.
   */
  async send(write: (chunk: Uint8Array<ArrayBuffer>) => Promise<void> | void): Promise<boolean> {
    let sent = 0;
    try {
      const next = async () => this.#buffered.shift() ?? await this.#read();
      for (let chunk = await next(); chunk !== null; chunk = await next()) {
        sent += chunk.length;
        if (sent > this.#maxBodyBytes) throw tooLarge(this.#maxBodyBytes);
        if (sent > (this.length ?? Infinity)) throw wrongLength(this.length!, "more");
        await write(chunk);
        this.watchdog.moved();
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

  /** Reads the next chunk of the body from the client. */
  async #read(): Promise<Uint8Array<ArrayBuffer> | null> {
    if (this.#body === undefined) return null;
    try {
      const { done, value } = await this.watchdog.client(this.#body.read());
      if (!done) return value;
    } catch (error) {
      throw new ProtocolError(
        `Cannot send request body as the client must send all of it: ${(error as Error).message}`,
      );
    }
    this.#body = undefined;
    return null;
  }

  /** Cancels the rest of the body: `Deno.serve` would wait for it. */
  #complete(): void {
    const body = this.#body;
    if (body === undefined || this.over) return;
    this.#phase = "complete";
    this.#body = undefined;
    body.cancel().catch(() => {});
    this.oncomplete();
  }

  /** Waits until the client has read enough of the response. */
  async room(): Promise<void> {
    const room = this.reader.room();
    if (room) await this.watchdog.client(room);
  }

  /** Aborts because of the application or the connection to it. The status of the response is then at least 500. */
  fail(error: unknown): void {
    if (error instanceof ProtocolError && error.status >= 500) return this.abort(error);
    const { message } = error as Error;
    this.abort(
      new ProtocolError(
        error instanceof ProtocolError
          ? message
          : `Cannot read response as the application must send all of it: ${message}`,
        502,
      ),
    );
  }

  /** Aborts the round trip: the client has disconnected, or something failed. */
  abort(reason: unknown): void {
    if (this.over) return;
    this.finish();
    this.reader.fail(reason);
    this.onabort(reason);
  }

  /** Ends the round trip. Called by the transport when it has finished. */
  finish(): void {
    if (this.over) return;
    this.#phase = "over";
    this.watchdog.stop();
    this.request.signal.removeEventListener("abort", this.#abort);
    this.#body?.cancel().catch(() => {});
  }
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
    `Cannot send request body as it must have at most ${most} bytes: it has more`,
    413,
  );
}

function wrongLength(length: number, actual: string): ProtocolError {
  return new ProtocolError(
    `Cannot send request body as it must have ${length} bytes: it has ${actual}`,
  );
}
