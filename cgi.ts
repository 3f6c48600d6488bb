/**
 * Serves an app as a CGI script (RFC 3875): one process, one request.
 *
 * ```ts ignore
 * #!/usr/bin/env -S deno run --allow-env
 * import { serveCGI } from "@gatehouse/cgi/cgi";
 *
 * await serveCGI(() => new Response("Hello"));
 * ```
 *
 * @module
 */

import type { App, AppOptions, HandlerInfo } from "./bridge/app.ts";
import { checkNumbers } from "./io/check_numbers.ts";
import { checkRequestOptions, disconnected, Exchange } from "./server/exchange.ts";
import { contentLength, isDecoded } from "./bridge/request.ts";
import { serverQuirks } from "./bridge/server_quirks.ts";
import { MAX_BUFFERED_BODY, RequestBody, type RequestBodySource } from "./server/request_body.ts";
import { refuse, respond, type ResponseSink, toHandler } from "./server/respond.ts";
import { type LogFunction, pipeWriter, safeLog } from "./io/log.ts";
import { ReadBuffer } from "./io/read_buffer.ts";
import { concat, decodeDebugFormat, encodeByteString } from "./wire/byte_string.ts";
import { ProtocolError } from "./wire/protocol_error.ts";
import { Variables } from "./wire/variables.ts";

export { localRedirect } from "./server/local_redirect.ts";
export type {
  App,
  AppObject,
  AppOptions,
  CompletedRequest,
  Handler,
  HandlerInfo,
  Protocol,
} from "./bridge/app.ts";
export type { NetAddr } from "./io/addr.ts";
import { runtime } from "./io/runtime.ts";

/** The input that a script reads the body from: the part of `Deno.stdin` that is used. */
export interface CGIInput {
  /** Reads bytes into the buffer and returns their number, or null at the end. */
  read(buffer: Uint8Array): Promise<number | null>;
  /** Closes the input. */
  close?(): void;
}

/** An output of a script: the part of `Deno.stdout` and `Deno.stderr` that is used. */
export interface CGIOutput {
  /** Writes some of the bytes and returns their number. */
  write(bytes: Uint8Array): Promise<number>;
  /**
   * Does the same synchronously. If present, it is used for logs, and for responses that an empty pipe has room for.
   */
  writeSync?(bytes: Uint8Array): number;
}

/** Options of {@linkcode serveCGI}. */
export interface CGIOptions extends AppOptions {
  /**
   * The meta-variables.
   *
   * @default Deno.env.toObject()
   */
  env?: Record<string, string>;
  /**
   * The input with the body.
   *
   * @default Deno.stdin
   */
  stdin?: CGIInput;
  /**
   * The output for the response.
   *
   * @default Deno.stdout
   */
  stdout?: CGIOutput;
  /**
   * The output for logs, unless `log` is set. Nothing is written behind a web server that sends it to the client, such
   * as mini_httpd.
   *
   * @default Deno.stderr
   */
  stderr?: CGIOutput;
  /**
   * Writes a line of the log, such as to a file. The output of `console`, and what Deno itself says, goes to stderr all
   * the same.
   *
   * @default undefined, lines are written to `stderr`
   */
  log?: (message: string) => void;
  /**
   * How many bytes the body may have, from 0. Beyond it the response is 413, unless the app handles the error. Bodies
   * stream, and web servers have limits of their own.
   *
   * @default Infinity
   */
  maxBodyBytes?: number;
  /**
   * How many bytes of the body are buffered, from 0, while a write makes no progress: Apache sends the whole body
   * before it reads the response. Beyond it the script stops reading, and both sides block.
   *
   * @default 67_108_864
   */
  maxBufferedBody?: number;
  /**
   * How long the process may run after it has written the response and read the request, in milliseconds, from 0: the
   * web server waits until it ends. Beyond it the process is exited with its exit code, and this is logged. 0 exits it
   * at once, Infinity never. Ignored if `stdin` or `stdout` is set.
   *
   * @default 1000
   */
  exitTimeout?: number;
}

const READ_SIZE = 65536;
/** How long a write may take before the script reads the body meanwhile, in milliseconds (rule B20). */
const STALL = 100;
/** How many bytes an empty pipe has room for on any system: writing them cannot block. */
const PIPE = 4096;
/**
 * Variables whose bytes are recovered if they are not UTF-8: `Deno.env` omits such variables and cannot list their
 * names. They are those of RFC 3875 and of web servers, and the `HTTP_*` variables of usual headers.
 */
const RECOVERABLE =
  "AUTH_TYPE CONTENT_LENGTH CONTENT_TYPE PATH_INFO PATH_TRANSLATED QUERY_STRING " +
  "REMOTE_ADDR REMOTE_HOST REMOTE_IDENT REMOTE_USER REQUEST_METHOD SCRIPT_NAME SERVER_NAME SERVER_PORT " +
  "SERVER_PROTOCOL SERVER_SOFTWARE REQUEST_URI SCRIPT_FILENAME DOCUMENT_ROOT " +
  "REDIRECT_HTTP_AUTHORIZATION REDIRECT_QUERY_STRING REDIRECT_REMOTE_USER REDIRECT_URL " +
  "HTTP_ACCEPT HTTP_ACCEPT_LANGUAGE HTTP_AUTHORIZATION HTTP_CONTENT_DISPOSITION HTTP_COOKIE HTTP_DESTINATION " +
  "HTTP_FROM HTTP_HOST HTTP_IF_MATCH HTTP_IF_NONE_MATCH HTTP_ORIGIN HTTP_RANGE HTTP_REFERER " +
  "HTTP_TRANSFER_ENCODING HTTP_USER_AGENT HTTP_VIA HTTP_X_FORWARDED_FOR HTTP_X_FORWARDED_HOST " +
  "HTTP_X_REQUESTED_WITH";

/**
 * Serves the one request of a CGI script. Sets `Deno.exitCode` to 1 if the response fails. Makes the methods of
 * `console` write to stderr, as on stdout their output would break the response.
 *
 * Needs `--allow-env`.
 *
 * @param app A handler, or an object with `fetch`.
 * @returns Resolves when the response is sent and the rest of the request read.
 * @throws {RangeError} If a limit or timeout is negative or NaN.
 * @throws {TypeError} If `basePath` or `trustForwarded` is invalid.
 *
 * @example With an environment and streams other than those of the process
 * ```ts
 * import { serveCGI } from "@gatehouse/cgi/cgi";
 * import { Buffer } from "@std/io/buffer";
 * import { assertEquals } from "@std/assert";
 *
 * const stdout = new Buffer();
 * await serveCGI(() => new Response("Hello"), {
 *   env: { GATEWAY_INTERFACE: "CGI/1.1", REQUEST_METHOD: "GET", SCRIPT_NAME: "/hello" },
 *   stdin: new Buffer(),
 *   stdout,
 * });
 * assertEquals(new TextDecoder().decode(stdout.bytes()).split("\r\n")[0], "Status: 200 OK");
 * ```
 */
export async function serveCGI(app: App, options: CGIOptions = {}): Promise<void> {
  checkNumbers("Cannot serve", options);
  checkRequestOptions(options);
  const {
    stdin = runtime.stdin,
    stdout = runtime.stdout,
    stderr = runtime.stderr,
    exitTimeout = 1000,
  } = options;
  let shown = false;
  const write = pipeWriter(stderr);
  const log = safeLog(options.log, (message) => {
    if (!shown) write(message);
  });
  if (options.env === undefined) redirectConsole();
  const output = new ScriptOutput(stdout);
  let exchange: Exchange | undefined;
  const body = new ScriptBody(stdin, output, options);
  let refusal = 0;
  try {
    const variables = readVariables(options.env);
    shown = serverQuirks(variables).showsStderr === true;
    const length = contentLength(variables);
    body.begin(variables, length);
    exchange = new Exchange(transport(log), variables, body.body, options);
  } catch (error) {
    log((error as Error).message);
    refusal = error instanceof ProtocolError ? error.status : 500;
  }
  exchange ??= new Exchange(transport(log), new Variables([]), null, options);
  output.onclose = (reason) => exchange.abort(reason);
  const sent = refusal
    ? await refuse(refusal, exchange, output)
    : await respondInTime(app, exchange, output, body, options);
  const isOpen = output.phase !== "closed";
  if (isOpen) await body.drain();
  if (options.env === undefined && (!sent && isOpen || refusal === 500)) {
    runtime.exitCode = 1;
  }
  if (stdin === runtime.stdin && stdout === runtime.stdout) exitWithin(exitTimeout, log);
}

/** Calls the app, and responds with 503 if it takes longer than `requestTimeout`. */
async function respondInTime(
  app: App,
  exchange: Exchange,
  output: ScriptOutput,
  script: ScriptBody,
  options: CGIOptions,
): Promise<boolean> {
  const { requestTimeout = Infinity, slowLog = Infinity } = options;
  const watched = slowLog === Infinity
    ? app
    : (await import("./server/slow_log.ts")).openSlowLog(slowLog)!.watch(app);
  const handler = toHandler(watched);
  if (requestTimeout === Infinity) return await respond(handler, exchange, output, options);
  const [{ Ticker, tickFor }, { expire, ResponseClock, timeoutError }] = await Promise.all([
    import("./io/ticker.ts"),
    import("./server/request_timeout.ts"),
  ]);
  const clock = new ResponseClock(requestTimeout);
  // Keeps the process alive, as an app may wait for what does not.
  const ticker = new Ticker(tickFor(requestTimeout), true);
  const late = Promise.withResolvers<boolean>();
  const ticked = {
    place: -1,
    check(now: number) {
      const waits = script.body?.waiting === true;
      if (!exchange.handling) ticker.delete(ticked);
      else if (clock.isOver(now, waits)) {
        late.resolve(expire(timeoutError(requestTimeout), exchange, output));
      }
    },
  };
  ticker.add(ticked);
  try {
    return await Promise.race([respond(handler, exchange, output, options), late.promise]);
  } finally {
    ticker.delete(ticked);
    ticker.close();
  }
}

/**
 * Exits the process unless it ends by itself within a timeout. Uses `Atomics.waitAsync`, which does not keep the
 * process alive and costs nothing: the first timer of a script would take a fifth of its total time.
 */
function exitWithin(timeout: number, log: (message: string) => void): void {
  if (timeout === Infinity) return;
  const never = new Int32Array(new SharedArrayBuffer(4));
  const { value } = Atomics.waitAsync(never, 0, 0, Math.max(timeout, 1));
  Promise.resolve(value).then(() => {
    log(
      `Exited the script ${timeout} ms after its response: something kept it alive, ` +
        "such as a timer or a connection. Stop it, or set exitTimeout",
    );
    import("./process/exit.ts").then(({ exit }) => exit());
  });
}

function transport(log: LogFunction<HandlerInfo>) {
  return {
    protocol: "cgi",
    program: undefined,
    debug: { load: () => import("./debug/debug_page.ts") },
    log,
  } as const;
}

/**
 * Reads the variables. Deletes HTTP_PROXY from the environment, as child processes would use it (rule A27).
 *
 * @param override The variables to use instead of the environment.
 */
function readVariables(override: Record<string, string> | undefined): Variables {
  let env = override && { ...override };
  let byteStrings: Record<string, string> | undefined;
  if (env === undefined) {
    try {
      runtime.env.delete("HTTP_PROXY");
      env = runtime.env.toObject();
      byteStrings = recoverVariables(env);
    } catch (error) {
      throw new Error(
        `Cannot serve CGI as the script must be run with --allow-env: ${(error as Error).message}`,
      );
    }
  }
  const variables = Variables.lookUpIn(env, byteStrings);
  if (variables.byteString("REQUEST_METHOD") === undefined) {
    throw new Error(
      "Cannot serve CGI: REQUEST_METHOD is absent. " +
        "A web server sets it; to try a script by hand, set REQUEST_METHOD=GET",
    );
  }
  return variables;
}

/** Returns the variables that `Deno.env.toObject()` omits as they are not UTF-8, as byte strings (rule A18). */
function recoverVariables(env: Record<string, string>): Record<string, string> | undefined {
  let byteStrings: Record<string, string> | undefined;
  for (const name of RECOVERABLE.split(" ")) {
    if (env[name] !== undefined) continue;
    try {
      runtime.env.get(name);
    } catch (error) {
      // The message ends with the value as Rust's Debug formats it.
      const [, escaped] = /"(.*)"$/s.exec((error as Error).message) ?? [];
      if (escaped !== undefined) (byteStrings ??= {})[name] = decodeDebugFormat(escaped);
    }
  }
  return byteStrings;
}

/**
 * Makes `console` write to stderr instead of stdout, and never throw (rule B19). Replaces each method, as none calls
 * another.
 */
function redirectConsole(): void {
  const counts = new Map<string, number>();
  const timers = new Map<string, number>();
  const { error } = console;
  const write = (...data: unknown[]) => {
    try {
      error(...data);
    } catch {
      // The disk is full, or the web server has closed its end of the pipe.
    }
  };
  const logTime = (label = "default", ...data: unknown[]) =>
    write(`${label}: ${Date.now() - (timers.get(label) ?? NaN)}ms`, ...data);
  Object.assign(console, {
    error: write,
    warn: write,
    log: write,
    info: write,
    debug: write,
    dir: (data: unknown) => write(data),
    dirxml: write,
    table: (data: unknown) => write(data),
    clear: () => {},
    count: (label = "default") => {
      counts.set(label, (counts.get(label) ?? 0) + 1);
      write(`${label}: ${counts.get(label)}`);
    },
    countReset: (label = "default") => counts.delete(label),
    time: (label = "default") => timers.set(label, Date.now()),
    timeLog: logTime,
    timeEnd: (label = "default") => {
      logTime(label);
      timers.delete(label);
    },
  });
}

/** Writes a script's response to the web server. */
class ScriptOutput implements ResponseSink {
  /** Called when a write fails. */
  onclose: (reason: unknown) => void = () => {};
  /** "stalled": the current write waits for the web server to read. "closed": a write has failed as it has closed the pipe. */
  phase: "open" | "stalled" | "closed" = "open";
  /** Called when a write has stalled. */
  onstall: () => void = () => {};
  #stdout: CGIOutput;
  #sent = 0;

  constructor(stdout: CGIOutput) {
    this.#stdout = stdout;
  }

  send(head: string | null, chunk: Uint8Array | null): Promise<void> | void {
    const bytes = head === null
      ? chunk
      : concat([encodeByteString(head), ...(chunk === null ? [] : [chunk])]);
    if (bytes === null) return;
    const at = this.#writeAtOnce(bytes);
    if (at < bytes.length) return this.#write(bytes, at);
  }

  async #write(bytes: Uint8Array, at: number): Promise<void> {
    while (at < bytes.length) {
      const timer = this.#sent + bytes.length - at > PIPE
        ? setTimeout(() => {
          this.phase = "stalled";
          this.onstall();
        }, STALL)
        : undefined;
      try {
        const count = await this.#stdout.write(at === 0 ? bytes : bytes.subarray(at));
        at += count;
        this.#sent += count;
      } catch (error) {
        throw this.#fail(error);
      } finally {
        // The first call of a timer function costs a script more than its response.
        if (timer !== undefined) clearTimeout(timer);
        if (this.phase === "stalled") this.phase = "open";
      }
    }
  }

  /** Writes a small response synchronously, which saves a thread: an empty pipe has room for it. */
  #writeAtOnce(bytes: Uint8Array): number {
    if (this.#sent + bytes.length > PIPE || this.#stdout.writeSync === undefined) return 0;
    try {
      const count = this.#stdout.writeSync(bytes);
      this.#sent += count;
      return count;
    } catch (error) {
      throw this.#fail(error);
    }
  }

  #fail(error: unknown): unknown {
    this.phase = "closed";
    this.onclose(disconnected());
    return error;
  }
}

/** Reads a script's body when the app reads it, and ahead of the app while a write stalls (rule B20). */
class ScriptBody implements RequestBodySource {
  body: RequestBody | null = null;
  #stdin: CGIInput;
  #output: ScriptOutput;
  #left = 0;
  #buffer: ReadBuffer | null = null;
  /** "pulled": the app needs bytes. "draining": what comes is dropped. */
  #phase: "resting" | "pulled" | "draining" = "resting";
  #reading: Promise<void> | null = null;
  #reads = 0;
  #maxBuffered: number;
  #maxBytes: number;

  constructor(stdin: CGIInput, output: ScriptOutput, options: CGIOptions) {
    this.#stdin = stdin;
    this.#output = output;
    this.#maxBuffered = options.maxBufferedBody ?? MAX_BUFFERED_BODY;
    this.#maxBytes = options.maxBodyBytes ?? Infinity;
    output.onstall = () => {
      if (this.body !== null) this.#read();
    };
  }

  /**
   * Creates the body. Without a length it is all of stdin if the server has decoded a chunked body, else empty (rule
   * A20).
   */
  begin(variables: Variables, length: number | undefined): void {
    const declared = length ?? (isDecoded(variables) ? undefined : 0);
    this.#left = declared ?? Infinity;
    this.body = new RequestBody(this, this.#maxBytes);
    this.body.declare(declared);
  }

  pull(): void {
    if (!this.body!.receiving) return;
    if (this.#phase === "resting") this.#phase = "pulled";
    this.#read();
  }

  /**
   * Drains the rest of the body after the response, until it ends or nothing arrives for 5 seconds, and for 30 seconds
   * in total: Apache's mod_cgid and fcgiwrap lose the response of a script that leaves a large body unread (rule B20).
   */
  async drain(): Promise<void> {
    if (this.body === null || this.#left === 0) return;
    this.body.discard();
    this.#phase = "draining";
    const ended = this.#read();
    const { LINGER, LINGER_IDLE } = await import("./io/timeouts.ts");
    let before = Infinity;
    for (let left = LINGER; left > 0 && this.#left > 0 && this.#reads !== before;) {
      left -= LINGER_IDLE;
      before = this.#reads;
      let timer;
      const idle = new Promise<void>((resolve) => timer = setTimeout(resolve, LINGER_IDLE));
      await Promise.race([ended, idle]);
      clearTimeout(timer);
    }
    if (this.#left > 0) this.#stdin.close?.();
  }

  #read(): Promise<void> {
    return this.#reading ??= this.#readWhileNeeded().then(async () => {
      this.#reading = null;
      // The app may need bytes again by now.
      if (this.#left > 0 && this.#shouldRead(this.body!)) await this.#read();
    });
  }

  async #readWhileNeeded(): Promise<void> {
    const body = this.body!;
    try {
      while (this.#left > 0 && this.#shouldRead(body)) {
        if (this.#phase === "pulled") this.#phase = "resting";
        const size = Math.min(READ_SIZE, this.#left);
        this.#buffer ??= new ReadBuffer(new Uint8Array(size));
        const { bytes } = this.#buffer;
        const count = await this.#stdin.read(bytes.subarray(0, size));
        this.#reads++;
        if (count === null) {
          this.#left = 0;
          body.end();
          return;
        }
        this.#left -= count;
        body.push(bytes.subarray(0, count), this.#buffer);
        if (this.#buffer.taken) this.#buffer = null;
      }
    } catch (error) {
      this.#left = 0;
      body.fail(error);
    }
  }

  #shouldRead(body: RequestBody): boolean {
    if (this.#phase === "draining") return true;
    const isAhead = this.#output.phase === "stalled" && body.buffered < this.#maxBuffered;
    return body.receiving && (this.#phase === "pulled" || isAhead);
  }
}
