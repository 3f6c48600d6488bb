/**
 * A trial of a CGI script: runs it and parses its output as a web server does.
 *
 * @module
 */

import { ResponseReader } from "../../gateway/response.ts";
import { createFinding, type Finding, type FindingId } from "./findings.ts";
import type { User } from "./user.ts";

/** Options of a trial. */
export interface TrialOptions {
  /** The absolute path of the script. */
  script: string;
  /** The user that runs it. */
  user: User;
  /** Its environment besides the request. */
  env: Record<string, string>;
  /** How long it may take, in seconds. */
  seconds: number;
}

/** The outcome of a trial. */
export interface Trial {
  /** How it ended, such as "exit code 0". */
  end: string;
  stdout: Uint8Array<ArrayBuffer>;
  stderr: string;
  /** The response that a web server makes of the output. */
  verdict: string;
  findings: Finding[];
}

/** Runs a script once. */
export async function tryScript(options: TrialOptions): Promise<Trial> {
  const { user, seconds } = options;
  const child = spawn(options);
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    child.kill("SIGKILL");
  }, seconds * 1000);
  const output = await child.output();
  clearTimeout(timer);
  const stderr = withoutColors(new TextDecoder().decode(output.stderr));
  const { verdict, response, error } = await readResponse(output.stdout);
  const find = (id: FindingId, values: Record<string, string> = {}) =>
    createFinding(id, {
      script: options.script,
      user: user.name,
      denoDir: options.env.DENO_DIR ?? `${user.home}/.cache/deno`,
      ...values,
    });
  const text = new TextDecoder().decode(output.stdout);
  const findings = late
    ? [find("slow", { seconds: String(seconds) })]
    : judge({ success: output.success, stderr, text, response, error, ...options }, find);
  const end = late ? "killed" : output.signal ?? `exit code ${output.code}`;
  return { end, stdout: output.stdout, stderr, verdict, findings };
}

function spawn({ script, user, env }: TrialOptions): Deno.ChildProcess {
  const name = script.slice(script.lastIndexOf("/") + 1);
  const isOther = user.uid !== Deno.uid();
  return new Deno.Command(script, {
    cwd: script.slice(0, -name.length),
    clearEnv: true,
    env: {
      ...env,
      GATEWAY_INTERFACE: "CGI/1.1",
      SERVER_PROTOCOL: "HTTP/1.1",
      SERVER_SOFTWARE: "Gatehouse",
      SERVER_NAME: "localhost",
      SERVER_PORT: "80",
      REQUEST_METHOD: "GET",
      REQUEST_URI: `/cgi-bin/${encodeURIComponent(name)}`,
      SCRIPT_NAME: `/cgi-bin/${name}`,
      SCRIPT_FILENAME: script,
      PATH_INFO: "",
      QUERY_STRING: "",
      REMOTE_ADDR: "127.0.0.1",
      HTTP_HOST: "localhost",
    },
    ...(isOther ? { uid: user.uid, gid: user.gid } : {}),
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

/** Parses a script's output as a gateway does. */
async function readResponse(
  stdout: Uint8Array<ArrayBuffer>,
): Promise<{ verdict: string; response?: Response; error?: string }> {
  const reader = new ResponseReader({
    method: "GET",
    maxHeaderBytes: 65_536,
    oncancel: () => {},
    oncomplete: () => {},
    log: () => {},
  });
  try {
    reader.push(stdout);
    reader.end();
    const response = await reader.response;
    if (!(response instanceof Response)) {
      return { verdict: `the response of ${response.location}, a local redirect` };
    }
    const body = await response.bytes();
    const type = response.headers.get("content-type") ?? "no type";
    return { verdict: `${response.status}, ${type}, ${body.length} bytes`, response };
  } catch (error) {
    const { message } = error as Error;
    return { verdict: "500 or 502: the output is no response", error: message };
  }
}

/** The results of a trial. */
interface Shown extends TrialOptions {
  success: boolean;
  stderr: string;
  text: string;
  response?: Response;
  error?: string;
}

type Find = (id: FindingId, values?: Record<string, string>) => Finding;

function judge(shown: Shown, find: Find): Finding[] {
  const { success, stderr, text, response, error } = shown;
  if (response !== undefined && response.status < 500) return [];
  if (response !== undefined) {
    return [...denied(stderr, find), find("status", { status: String(response.status) })];
  }
  if (!success && text === "") return [judgeError(shown, find)];
  if (error === undefined) return [];
  if (text === "") return [find("no-serve")];
  const [first] = text.split(/\r?\n/);
  // The response of serve() begins with its status.
  if (/\nStatus: \d{3}/.test(text) && !/^Status: /.test(text)) {
    return [find("printed", { text: JSON.stringify(first) })];
  }
  return success ? [find("invalid", { error })] : [judgeError(shown, find)];
}

/** Finds out why a script ended with an error. */
function judgeError({ script, stderr }: Shown, find: Find): Finding {
  const error = /^error: (?:Uncaught (?:\(in promise\) )?)?(.*)$/m.exec(stderr)?.[1] ??
    stderr.split("\n")[0];
  if (stderr.includes("add --allow-env to the first line")) return find("allow-env");
  const [permission] = denied(stderr, find);
  if (permission !== undefined) return permission;
  // V8 throws if Deno parses TypeScript as JavaScript.
  if (/^error: Uncaught SyntaxError:[^]*^ +at <anonymous> \(file:/m.test(stderr)) {
    return find(hasLanguage(script) ? "syntax" : "extension", { error });
  }
  if (/^error: (?:SyntaxError:|The module's source code could not be parsed)/m.test(stderr)) {
    return find("syntax", { error });
  }
  if (/^error: (?!Uncaught)/m.test(stderr)) return find("import", { error });
  return find("throws", { error });
}

/** Returns whether a script's name or first line states its language. */
function hasLanguage(script: string): boolean {
  return /\.(?:[cm]?[jt]s|[jt]sx)$/.test(script) ||
    Deno.readTextFileSync(script).split("\n", 1)[0].includes("--ext");
}

/** Finds a permission that the first line does not grant. */
function denied(stderr: string, find: Find): Finding[] {
  const match = /(Requires \w+ access(?: to "([^"]*)")?).*--allow-(\w+)/.exec(stderr);
  if (match === null) return [];
  const [, error, value, name] = match;
  return [find("permission", { error, flag: `--allow-${name}${value ? `=${value}` : ""}` })];
}

function withoutColors(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replaceAll(/\x1b\[[\d;]*m/g, "");
}
