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

import type { App, AppOptions } from "./bridge/app.ts";
import { Exchange } from "./bridge/exchange.ts";
import { contentLength } from "./bridge/request.ts";
import { RequestBody } from "./bridge/request_body.ts";
import { refuse, respond, type ResponseSink, toHandler } from "./bridge/respond.ts";
import { decodeDebugFormat, encodeByteString } from "./wire/byte_string.ts";
import { ProtocolError } from "./wire/protocol_error.ts";
import { Variables } from "./wire/variables.ts";

export { localRedirect } from "./bridge/local_redirect.ts";
export type { App, AppObject, AppOptions, Handler, HandlerInfo, Protocol } from "./bridge/app.ts";

/** Where a script reads the request's body: the part of `Deno.stdin` that is used. */
export interface CGIInput {
  /** Reads into the buffer; null at the end. */
  read(buffer: Uint8Array): Promise<number | null>;
  /** Reads no more. */
  close?(): void;
}

/** Where a script writes: the part of `Deno.stdout` and `Deno.stderr` that is used. */
export interface CGIOutput {
  /** Writes some of the bytes and tells how many. */
  write(bytes: Uint8Array): Promise<number>;
  /** The same at once; used, where it is there, for what no pipe refuses. */
  writeSync?(bytes: Uint8Array): number;
}

/** Options of {@linkcode serveCGI}. */
export interface CGIOptions extends AppOptions {
  /** The meta-variables. @default Deno.env.toObject() */
  env?: Record<string, string>;
  /** Where the body comes from. @default Deno.stdin */
  stdin?: CGIInput;
  /** Where the answer goes. @default Deno.stdout */
  stdout?: CGIOutput;
  /** Where the log goes. @default Deno.stderr */
  stderr?: CGIOutput;
  /**
   * How many bytes the body may have; past it, 413. Bodies stream, and web servers have a limit of their own.
   *
   * @default Infinity
   */
  maxBodyBytes?: number;
  /**
   * How many bytes of the body are held while the web server takes nothing of the answer: Apache sends all of the body
   * before it reads any of the answer. Past it the script waits, and both with it.
   *
   * @default 67_108_864
   */
  maxBufferedBody?: number;
  /**
   * How long the process may live on once the response is written and the request read, in milliseconds: the web server
   * waits for its end. Past it the process is exited with its exit code, and the log says so; 0 for at once, Infinity for
   * never. Ignored where `stdin` or `stdout` is given.
   *
   * @default 1000
   */
  exitTimeout?: number;
}

const READ_SIZE = 65536;
/** How long the next part of a body that nobody wants may take, in milliseconds. */
const LINGER_IDLE = 5_000;
/** How long a write may take before the web server is thought to wait for its body to be read (rule B20). */
const STALL = 100;
/** What any pipe holds: so much can be written though nobody reads. */
const PIPE = 4096;
/**
 * Variables whose bytes are recovered where they are not UTF-8: `Deno.env` omits these, and cannot list their names. Those
 * of RFC 3875 and of web servers, and `HTTP_*` of usual header fields.
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
 * Serves the one request that a CGI script is run for, and resolves when it is answered. Sets `Deno.exitCode` to 1 where
 * the answer failed. What the app logs goes to stderr, `console.log` included: on stdout it would break the answer.
 *
 * Needs `--allow-env`.
 *
 * @param app A handler, or an object with `fetch`.
 *
 * @example Handed in rather than taken from the process
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
  const { stdin = Deno.stdin, stdout = Deno.stdout, stderr = Deno.stderr, exitTimeout = 1000 } =
    options;
  const log = (message: string) => writeLog(stderr, message);
  if (options.env === undefined) keepStdoutClean();
  const output = new ScriptOutput(stdout);
  let exchange: Exchange | undefined;
  const body = new ScriptBody(stdin, output, options);
  let refusal = 0;
  try {
    const variables = readVariables(options.env);
    const length = contentLength(variables);
    body.begin(variables, length);
    exchange = new Exchange(transport(log), variables, body.body, options);
  } catch (error) {
    log((error as Error).message);
    refusal = error instanceof ProtocolError ? error.status : 500;
  }
  exchange ??= new Exchange(transport(log), new Variables([]), null, options);
  output.ongone = (reason) => exchange.abort(reason);
  const sent = refusal
    ? await refuse(refusal, exchange, output)
    : await respond(toHandler(app), exchange, output, options);
  if (!output.gone) await body.drain();
  if (options.env === undefined && (!sent && !output.gone || refusal === 500)) Deno.exitCode = 1;
  if (stdin === Deno.stdin && stdout === Deno.stdout) exitWithin(exitTimeout, log);
}

/**
 * Exits the process unless it ends by itself within a time. Waits by `Atomics.waitAsync`, which keeps no process alive and
 * costs nothing; a script's first timer would take a fifth of its whole time.
 */
function exitWithin(timeout: number, log: (message: string) => void): void {
  if (timeout === Infinity) return;
  const never = new Int32Array(new SharedArrayBuffer(4));
  // Not Math.max(): to wait for NaN is to wait without end.
  const { value } = Atomics.waitAsync(never, 0, 0, timeout > 1 ? timeout : 1);
  Promise.resolve(value).then(() => {
    log(
      `Exited the script as it must end within ${timeout} ms of its response: something kept it alive, ` +
        "such as a timer or a connection. Stop it, or set exitTimeout",
    );
    Deno.exit();
  });
}

function transport(log: (message: string) => void) {
  return { protocol: "cgi", program: undefined, debugTools: { readSource }, log } as const;
}

async function readSource(url: string): Promise<string | undefined> {
  return (await import("./io/source_file.ts")).readSource(url);
}

/** Reads the environment, and takes HTTP_PROXY out of it: child processes would use it (rule A27). */
function readVariables(given: Record<string, string> | undefined): Variables {
  let env = given && { ...given };
  let byteStrings: Record<string, string> | undefined;
  if (env === undefined) {
    try {
      Deno.env.delete("HTTP_PROXY");
      env = Deno.env.toObject();
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
      "Cannot serve CGI as REQUEST_METHOD must be set: it is absent. " +
        "A web server sets it; to try a script by hand, set REQUEST_METHOD=GET",
    );
  }
  return variables;
}

/** The variables that `Deno.env.toObject()` omits since they are not UTF-8, as byte strings (rule A18). */
function recoverVariables(env: Record<string, string>): Record<string, string> | undefined {
  let byteStrings: Record<string, string> | undefined;
  for (const name of RECOVERABLE.split(" ")) {
    if (env[name] !== undefined) continue;
    try {
      Deno.env.get(name);
    } catch (error) {
      // The message ends with the value as Rust's Debug formats it.
      const [, escaped] = /"(.*)"$/s.exec((error as Error).message) ?? [];
      if (escaped !== undefined) (byteStrings ??= {})[name] = decodeDebugFormat(escaped);
    }
  }
  return byteStrings;
}

function writeLog(stderr: CGIOutput, message: string): void {
  const bytes = new TextEncoder().encode(message + "\n");
  if (stderr.writeSync !== undefined) stderr.writeSync(bytes);
  else stderr.write(bytes).catch(() => {});
}

/** Has the console write to stderr what it would write to stdout (rule B19). Its methods do not use one another. */
function keepStdoutClean(): void {
  const counts = new Map<string, number>();
  const timers = new Map<string, number>();
  const logTime = (label = "default", ...data: unknown[]) =>
    console.error(`${label}: ${Date.now() - (timers.get(label) ?? NaN)}ms`, ...data);
  Object.assign(console, {
    log: console.error,
    info: console.error,
    debug: console.error,
    dir: (data: unknown) => console.error(data),
    dirxml: console.error,
    table: (data: unknown) => console.error(data),
    clear: () => {},
    count: (label = "default") => {
      counts.set(label, (counts.get(label) ?? 0) + 1);
      console.error(`${label}: ${counts.get(label)}`);
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

/** A script's answer on its way to the web server. */
class ScriptOutput implements ResponseSink {
  /** Called when the web server takes no more. */
  ongone: (reason: unknown) => void = () => {};
  /** Whether the web server takes no more. */
  gone = false;
  /** Called when the web server has taken nothing for a while. */
  onstall: () => void = () => {};
  /** Whether it has taken nothing for a while. */
  stalled = false;
  #stdout: CGIOutput;
  #sent = 0;

  constructor(stdout: CGIOutput) {
    this.#stdout = stdout;
  }

  send(head: string | null, chunk: Uint8Array | null, _last: boolean): Promise<void> | void {
    const bytes = head === null ? chunk : join(encodeByteString(head), chunk);
    if (bytes === null) return;
    const at = this.#writeAtOnce(bytes);
    if (at < bytes.length) return this.#write(bytes, at);
  }

  async #write(bytes: Uint8Array, at: number): Promise<void> {
    while (at < bytes.length) {
      const timer = this.#sent + bytes.length - at > PIPE
        ? setTimeout(() => {
          this.stalled = true;
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
        // Only then: the first use of a timer function costs a script more than its answer.
        if (timer !== undefined) clearTimeout(timer);
        this.stalled = false;
      }
    }
  }

  /** Writes a small answer without the thread that a write in the background costs: an empty pipe has room for it. */
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
    this.gone = true;
    this.ongone(new DOMException("The web server closed the connection", "AbortError"));
    return error;
  }
}

function join(head: Uint8Array, chunk: Uint8Array | null): Uint8Array {
  if (chunk === null) return head;
  const joined = new Uint8Array(head.length + chunk.length);
  joined.set(head);
  joined.set(chunk, head.length);
  return joined;
}

/** A script's body: read when the app asks, and as far as it goes when the web server is stuck sending it. */
class ScriptBody {
  body: RequestBody | null = null;
  #stdin: CGIInput;
  #output: ScriptOutput;
  #left = 0;
  #buffer: Uint8Array | null = null;
  #wanted = false;
  #draining = false;
  #reading: Promise<void> | null = null;
  #reads = 0;
  #mostHeld: number;
  #mostRead: number;

  constructor(stdin: CGIInput, output: ScriptOutput, options: CGIOptions) {
    this.#stdin = stdin;
    this.#output = output;
    this.#mostHeld = options.maxBufferedBody ?? 67_108_864;
    this.#mostRead = options.maxBodyBytes ?? Infinity;
    output.onstall = () => {
      if (this.body !== null) this.#read();
    };
  }

  /** Without a length there is a body only if the server took chunks apart, and then it goes to the end (rule A20). */
  begin(variables: Variables, length: number | undefined): void {
    const coding = variables.byteString("HTTP_TRANSFER_ENCODING") ?? "";
    const declared = length ?? (/chunked/i.test(coding) ? undefined : 0);
    this.#left = declared ?? Infinity;
    this.body = new RequestBody(this, this.#mostRead);
    this.body.declare(declared);
  }

  /** The app wants bytes. */
  wanted(): void {
    if (this.body!.discarded) return;
    this.#wanted = true;
    this.#read();
  }

  /**
   * The answer is complete, and what still comes of the body is read and dropped: Apache's mod_cgid loses the answer of a
   * script that ends before, and fcgiwrap takes it for an error. What does not come is not waited for.
   */
  async drain(): Promise<void> {
    if (this.body === null || this.#left === 0) return;
    this.body.discard();
    this.#draining = true;
    const ended = this.#read();
    for (let before = Infinity; this.#left > 0 && this.#reads !== before;) {
      before = this.#reads;
      let timer;
      const idle = new Promise<void>((resolve) => timer = setTimeout(resolve, LINGER_IDLE));
      await Promise.race([ended, idle]);
      clearTimeout(timer);
    }
    if (this.#left > 0) this.#stdin.close?.();
  }

  #read(): Promise<void> {
    return this.#reading ??= this.#readOn().then(async () => {
      this.#reading = null;
      // More may have been wanted meanwhile.
      if (this.#left > 0 && this.#isWanted(this.body!)) await this.#read();
    });
  }

  async #readOn(): Promise<void> {
    const body = this.body!;
    try {
      while (this.#left > 0 && this.#isWanted(body)) {
        this.#wanted = false;
        const size = Math.min(READ_SIZE, this.#left);
        this.#buffer ??= new Uint8Array(size);
        const count = await this.#stdin.read(this.#buffer.subarray(0, size));
        this.#reads++;
        if (count === null) {
          this.#left = 0;
          body.end();
          return;
        }
        this.#left -= count;
        if (body.push(this.#buffer.subarray(0, count), true)) this.#buffer = null;
      }
    } catch (error) {
      this.#left = 0;
      body.fail(error);
    }
  }

  #isWanted(body: RequestBody): boolean {
    if (this.#draining) return true;
    return !body.discarded && !body.ended &&
      (this.#wanted || this.#output.stalled && body.buffered < this.#mostHeld);
  }
}
