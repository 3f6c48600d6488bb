import { ProtocolError } from "../wire/protocol_error.ts";
import { type Answer, AnswerReader } from "./cgi_response.ts";
import { DEFAULTS, type GatewayInfo, type GatewayOptions } from "./gateway_options.ts";
import type { ScriptPath } from "./script_path.ts";
import { createVariables } from "./variables.ts";
import { Watchdog } from "./watchdog.ts";

/** Where a script is. */
export interface ScriptFiles {
  /** SCRIPT_FILENAME. */
  scriptFilename: string;
  /** DOCUMENT_ROOT. */
  documentRoot: string;
}

/** A request under way: what goes to the application and what comes back, whatever the transport. */
export class Inquiry {
  readonly request: Request;
  /** How long the body is; undefined if that is not known. */
  length: number | undefined;
  /** Takes what the application writes. */
  readonly reader: AnswerReader;
  /** Ends it when nothing moves. */
  readonly watchdog: Watchdog;
  /** Writes a line to the gateway's log. */
  readonly log: (message: string) => void;
  /** Set by the transport: the answer is whole, and the body will not be. */
  onunsent: () => void = () => {};
  /** Set by the transport: ends its side of it. */
  onabort: (reason: unknown) => void = () => {};
  #options: GatewayOptions;
  #maxBodyBytes: number;
  #body: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>> | undefined;
  #held: Uint8Array<ArrayBuffer>[] = [];
  #over = false;
  #stopped = false;
  #abort = () => {
    // Deno.serve aborts the signal after a whole answer as well.
    if (!this.reader.answered) this.abort(this.request.signal.reason);
  };

  /** @throws {ProtocolError} If the request's body is longer than allowed (status 413). */
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
    this.reader = new AnswerReader({
      method: request.method,
      maxHeaderBytes,
      oncancel: (reason) => this.abort(reason),
      onwhole: () => this.#stopSending(),
      log,
    });
    this.watchdog = new Watchdog({ application: timeout, client: clientTimeout }, (waited) => {
      const [limit, status] = waited === "client" ? [clientTimeout, 408] : [timeout, 504];
      const error = new ProtocolError(
        `Cannot finish the answer as the ${waited} must move within ${limit} ms: it did not`,
        status,
      );
      if (this.reader.begun) log(error.message);
      this.abort(error);
    });
    if (request.signal.aborted) this.#abort();
    else request.signal.addEventListener("abort", this.#abort);
  }

  /** The answer, once its header block is whole. */
  get answer(): Promise<Answer> {
    return this.reader.answer;
  }

  /** Whether it has been called off. */
  get over(): boolean {
    return this.#over;
  }

  /**
   * Tells the request as variables, names and values as byte strings.
   *
   * @throws {ProtocolError} If one has a NUL: it would end a C string, or an SCGI header.
   */
  variables(
    info: GatewayInfo | undefined,
    path: ScriptPath,
    files?: ScriptFiles,
  ): [name: string, value: string][] {
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
   * Finds out how long the body is, by reading all of it if need be.
   *
   * @param most How many bytes are held.
   * @throws {ProtocolError} If there are more (status 413).
   */
  async measure(most: number): Promise<number> {
    if (this.length !== undefined) return this.length;
    let length = 0;
    for (let chunk = await this.#read(); chunk !== null; chunk = await this.#read()) {
      length += chunk.length;
      if (length > Math.min(most, this.#maxBodyBytes)) {
        throw tooLarge(Math.min(most, this.#maxBodyBytes));
      }
      this.#held.push(chunk);
    }
    return this.length = length;
  }

  /**
   * Sends the body as it comes.
   *
   * @param write Takes a chunk; rejects when the application reads no more.
   * @returns Whether all of it was sent: an application may answer without reading it.
   */
  async send(write: (chunk: Uint8Array<ArrayBuffer>) => Promise<void> | void): Promise<boolean> {
    let sent = 0;
    try {
      const next = async () => this.#held.shift() ?? await this.#read();
      for (let chunk = await next(); chunk !== null; chunk = await next()) {
        sent += chunk.length;
        if (sent > this.#maxBodyBytes) throw tooLarge(this.#maxBodyBytes);
        if (sent > (this.length ?? Infinity)) throw wrongLength(this.length!, "more");
        await write(chunk);
        this.watchdog.moved();
        if (this.#over || this.#stopped) return false;
      }
      if (this.#over || this.#stopped) return false;
      if (sent < (this.length ?? 0)) throw wrongLength(this.length!, String(sent));
      return true;
    } catch (error) {
      if (error instanceof ProtocolError) this.abort(error);
      return false;
    }
  }

  /** The next of the body from the client. */
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

  /** Takes no more of the body: Deno.serve would wait for it to be read, and not read it. */
  #stopSending(): void {
    const body = this.#body;
    if (body === undefined) return;
    this.#stopped = true;
    this.#body = undefined;
    body.cancel().catch(() => {});
    this.onunsent();
  }

  /** Waits while the client does not take what has come. */
  async room(): Promise<void> {
    const room = this.reader.room();
    if (room) await this.watchdog.client(room);
  }

  /** Ends it with what the application did wrong: never the client's fault. */
  fail(error: unknown): void {
    if (error instanceof ProtocolError && error.status >= 500) return this.abort(error);
    const { message } = error as Error;
    this.abort(
      new ProtocolError(
        error instanceof ProtocolError
          ? message
          : `Cannot take the answer as the application must send all of it: ${message}`,
        502,
      ),
    );
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

/** The length of a request's body, if it is known; 0 without one. */
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
