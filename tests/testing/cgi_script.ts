import { Buffer } from "@std/io/buffer";
import type { App } from "../../bridge/app.ts";
import { type CGIOptions, serveCGI } from "../../cgi.ts";
import { type ParsedResponse, parseOutput, parseResponse } from "./response.ts";
import { text } from "./bytes.ts";
import { deadline } from "./deadline.ts";

/** Serves one request with `serveCGI()` in this process: environment and streams are passed as options. */
export async function run(
  app: App,
  env: Record<string, string> = {},
  body: Uint8Array = new Uint8Array(),
  options: CGIOptions = {},
): Promise<ParsedResponse & { stderr: string }> {
  const stdout = new Buffer();
  const stderr = new Buffer();
  const served = serveCGI(app, {
    env: {
      GATEWAY_INTERFACE: "CGI/1.1",
      REQUEST_METHOD: "GET",
      SERVER_NAME: "example.org",
      ...env,
    },
    stdin: new Buffer(body.slice().buffer),
    stdout,
    stderr,
    ...options,
  });
  await deadline(served, "the script's end");
  return { ...parseResponse(stdout.bytes()), stderr: text(stderr.bytes()) };
}

/** Options for running a script. */
export interface SpawnOptions {
  /** Its Deno permission flags. */
  permissions?: string[];
  /** The program's own arguments. */
  args?: string[];
  /** What runs it instead of Deno. */
  program?: string[];
}

/** Starts a script as a web server does: with these variables, and no others except those that Deno needs. */
export function spawn(
  script: URL,
  env: Record<string, string>,
  { permissions = ["--allow-env"], args = [], program }: SpawnOptions = {},
): Deno.ChildProcess {
  const inherited = ["PATH", "HOME", "DENO_DIR"].flatMap((name) => {
    const value = Deno.env.get(name);
    return value === undefined ? [] : [[name, value]];
  });
  const flags = ["run", "--no-prompt", "--no-config", ...permissions];
  const [command, ...before] = program ?? [Deno.execPath(), ...flags];
  return new Deno.Command(command, {
    args: [...before, script.pathname, ...args],
    clearEnv: true,
    env: { ...Object.fromEntries(inherited), NO_COLOR: "1", ...env },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

/** Writes the body to the script's stdin, and stops without an error if the script closes it. */
export async function feed(child: Deno.ChildProcess, body: Uint8Array): Promise<void> {
  const writer = child.stdin.getWriter();
  try {
    await writer.write(body);
    await writer.close();
  } catch (error) {
    if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
  }
}

/** A script's response, log and exit code. */
export interface Outcome extends ParsedResponse {
  stderr: string;
  code: number;
  stdout: Uint8Array;
}

/** Runs a script for one request. Writes the body and reads the response at the same time. */
export async function runScript(
  script: URL,
  env: Record<string, string>,
  body: Uint8Array = new Uint8Array(),
  options?: SpawnOptions,
): Promise<Outcome> {
  const child = spawn(script, env, options);
  const [{ code, stdout, stderr }] = await deadline(
    Promise.all([child.output(), feed(child, body)]),
    "the script's end",
    30_000,
  );
  const response = parseOutput(stdout);
  return { ...response, code, stdout, stderr: new TextDecoder().decode(stderr) };
}
