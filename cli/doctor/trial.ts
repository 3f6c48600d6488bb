/**
 * A trial of a CGI script: runs it and parses its output as a web server does.
 *
 * @module
 */

import { basename, dirname } from "node:path";
import { createVariables } from "../../bridge/request_variables.ts";
import { DEFAULTS } from "../../gateway/options.ts";
import { ResponseReader } from "../../gateway/response.ts";
import { MAX_DELAY } from "../../io/max_delay.ts";
import { ProcessGroup, startsSessions } from "../../process/script_process.ts";
import { toByteString, toText } from "../../wire/byte_string.ts";
import { Failure } from "../errors.ts";
import { stat, type User } from "./user.ts";

/** The request of a trial. */
export interface TrialRequest {
  request: Request;
  /** The body of `request`. */
  body: Uint8Array<ArrayBuffer> | undefined;
  /** The path after the script's name. */
  pathInfo: string;
}

/** Options of a trial. */
export interface TrialOptions extends TrialRequest {
  /** The absolute path of the script. */
  script: string;
  /** What runs the script. @default the script itself, whose first line names its program */
  command?: string[];
  /** The user that runs it. */
  user: User;
  /** Its environment besides the request. */
  env: Record<string, string>;
  /** How long it may take, in seconds. */
  seconds: number;
  /** How many bytes of memory it may have; undefined for no limit. */
  memory: number | undefined;
}

/** The outcome of a trial. */
export interface Trial {
  /** How it ended, such as "exit code 0". */
  end: string;
  success: boolean;
  /** Whether it took too long: "script", or "child" if a process that the script has started keeps its output open. */
  late: "script" | "child" | undefined;
  /** The beginning of its output. */
  stdout: string;
  /** The beginning and the end of its log. */
  stderr: string;
  /** The response that a web server makes of the output. */
  verdict: string;
  /** Its status, if there is a response. */
  status: number | undefined;
  /** What is wrong with the output. */
  error: string | undefined;
}

const PROGRAMS = "/usr/bin";
/** How much of the output is remembered, in characters. */
const REMEMBERED = 65_536;
/** How long the script may take to end after it is killed, and its log to be read after its end, in milliseconds. */
const DELAY = 1000;

/** Runs a script once, without the terminal of this process, to which it could type. */
export async function tryScript(options: TrialOptions): Promise<Trial> {
  if (!startsSessions()) throw new Failure(missing("setsid"));
  const { script, body, seconds } = options;
  const stderr = new Excerpt();
  const process = new ProcessGroup({
    command: commandOf(options),
    cwd: dirname(script),
    env: environmentOf(options),
    input: body !== undefined,
  }, (line) => stderr.add(`${line}\n`));
  const output = new Output(options.request.method);
  let late: Trial["late"];
  let hasEnded = false;
  let killed: Promise<void> | undefined;
  const gaveUp = Promise.withResolvers<void>();
  const giveUp = async () => {
    late = hasEnded ? "child" : "script";
    process.stdout.cancel().catch(() => {});
    await process.kill();
    // A script with the rights of another user cannot be killed.
    setTimeout(gaveUp.resolve, DELAY);
  };
  const timer = setTimeout(() => killed = giveUp(), Math.min(seconds * 1000, MAX_DELAY));
  process.status.then(() => hasEnded = true);
  if (body !== undefined) {
    process.write(body).catch(() => {}).then(() => process.closeInput());
  }
  for (let bytes; (bytes = await process.stdout.read()) !== null;) output.push(bytes);
  const status = await Promise.race([process.status, gaveUp.promise]);
  clearTimeout(timer);
  await killed;
  // A process that the script leaves may keep its log open.
  await Promise.race([process.logged, new Promise((resolve) => setTimeout(resolve, DELAY))]);
  const success = status?.success === true;
  const end = late === "script" ? "killed" : status?.signal ?? `exit code ${status?.code}`;
  return { end, success, late, stderr: withoutColors(stderr.text), ...await output.end() };
}

/** Returns the command that runs a script as a user, with a limit of memory. */
function commandOf({ script, user, memory, command: own = [script] }: TrialOptions): string[] {
  const command: string[] = [];
  if (memory !== undefined) {
    // As Apache's RLimitMEM sets it: the script may raise it.
    command.push(program("prlimit"), `--as=${memory}:`);
  }
  if (user.uid !== Deno.uid()) {
    const { name: _, uid, gid } = user;
    command.push(program("setpriv"), `--reuid=${uid}`, `--regid=${gid}`, "--init-groups");
    command.push("--inh-caps=-all", "--");
    // setpriv itself may run any file: it still has the rights of root.
    command.push(program("nice"), "-n", "0");
  }
  return [...command, ...own];
}

/** Returns the path of a program of util-linux or coreutils. */
function program(name: string): string {
  const path = `${PROGRAMS}/${name}`;
  if (stat(path)?.isFile !== true) throw new Failure(missing(name));
  return path;
}

function missing(program: string): string {
  return `Cannot try the script: ${program} is not installed in ${PROGRAMS}`;
}

function environmentOf(options: TrialOptions): Record<string, string> {
  const { script, env, request, body, pathInfo } = options;
  const variables = createVariables(request, {
    scriptName: toByteString(scriptNameOf(script)),
    pathInfo: toByteString(pathInfo),
    scriptFilename: script,
    documentRoot: dirname(script),
    contentLength: body?.length,
    remoteAddr: { transport: "tcp", hostname: "127.0.0.1", port: 40000 },
  });
  const named = variables.map(([name, value]) => [name, toText(value)]);
  return { ...env, ...Object.fromEntries(named) };
}

/** Returns the path that a web server gives a script. */
export function scriptNameOf(script: string): string {
  return `/cgi-bin/${basename(script)}`;
}

/** Parses a script's output as a gateway does, however long it is. */
class Output {
  #reader: ResponseReader;
  #excerpt = new Excerpt();
  #decoder = new TextDecoder();
  #length = 0;
  #body: Promise<unknown>;

  constructor(method: string) {
    const nothing = () => {};
    this.#reader = new ResponseReader({
      method,
      maxHeaderBytes: DEFAULTS.maxHeaderBytes,
      oncancel: nothing,
      oncomplete: nothing,
      log: nothing,
    });
    this.#body = this.#reader.response.then(async (response) => {
      if (!(response instanceof Response) || response.body === null) return;
      for await (const chunk of response.body) this.#length += chunk.length;
    });
    this.#body.catch(nothing);
  }

  push(bytes: Uint8Array<ArrayBuffer>): void {
    this.#excerpt.add(this.#decoder.decode(bytes, { stream: true }));
    this.#attempt(() => {
      this.#reader.push(bytes);
      this.#reader.flush();
    });
  }

  async end(): Promise<Pick<Trial, "stdout" | "verdict" | "status" | "error">> {
    this.#attempt(() => this.#reader.end());
    const stdout = this.#excerpt.text;
    try {
      const response = await this.#reader.response;
      if (!(response instanceof Response)) {
        const verdict = "location" in response
          ? `the response of ${response.location}, a local redirect`
          : `the file ${response.value}`;
        return { stdout, verdict, status: undefined, error: undefined };
      }
      await this.#body;
      const type = response.headers.get("content-type") ?? "no type";
      const verdict = `${response.status}, ${type}, ${this.#length} bytes`;
      return { stdout, verdict, status: response.status, error: undefined };
    } catch (error) {
      const verdict = "500 or 502: the output is no response";
      return { stdout, verdict, status: undefined, error: (error as Error).message };
    }
  }

  #attempt(step: () => void): void {
    try {
      step();
    } catch (error) {
      this.#reader.fail(error);
    }
  }
}

/** The beginning and the end of a text. */
class Excerpt {
  #start = "";
  #end = "";

  add(text: string): void {
    const room = REMEMBERED / 2 - this.#start.length;
    this.#start += text.slice(0, room);
    this.#end = (this.#end + text.slice(room)).slice(-REMEMBERED / 2);
  }

  get text(): string {
    return this.#end.length < REMEMBERED / 2
      ? this.#start + this.#end
      : `${this.#start}\n…\n${this.#end}`;
  }
}

/** Removes colors, whose escape characters are escaped. */
function withoutColors(text: string): string {
  return text.replaceAll(/\\x1b\[[\d;]*m/g, "");
}
