/**
 * What a trial shows of a script's faults.
 *
 * @module
 */

import { basename, dirname } from "node:path";
import { shellQuote } from "../../debug/shell_command.ts";
import { SPECIFIER } from "../version.ts";
import { asUser, change, changeableAt, type Command } from "./commands.ts";
import type { Examined } from "./examine.ts";
import type { Find, Finding } from "./findings.ts";
import {
  denoArguments,
  type FirstLine,
  setFirstLine,
  withFlag,
  withProgram,
  withVariable,
} from "./first_line.ts";
import { denoOf } from "./programs.ts";
import { findDenied } from "./storage.ts";
import type { Trial } from "./trial.ts";
import { stat, type User } from "./user.ts";

/** The module that has serve(). */
const MODULE = SPECIFIER.replace(/\/cli$/, "");
/** The cache of scripts whose web server names none. */
export const CACHE = "/var/cache/deno";
/** The first version of Node that runs Gatehouse. */
const NODE = 24;
const OUT_OF_MEMORY =
  /Fatal process out of memory|Failed to reserve|memory allocation of \d+ bytes failed|Cannot allocate memory/;

/** A script, what is known of it, and its trial. */
export interface Judged extends Examined, Trial {
  /** The script's file, without symbolic links. */
  file: string;
  source: string;
  first?: FirstLine;
  seconds: number;
  find: Find;
}

/** Returns whether a trial shows that the system could not start a script. */
export function startFailure({ stderr, stdout, success }: Trial): string | undefined {
  if (success || stdout !== "") return undefined;
  return /^\S*\b(?:setsid|setpriv|prlimit|nice): (.*: Permission denied|.*: No such file or directory|.*: Exec format error)$/m
    .exec(stderr)?.[1];
}

/** Returns the cause of a trial's failure, or undefined if the script responds. */
export function judge(shown: Judged): Finding | undefined {
  const { find, late, seconds, success, status, error, stdout } = shown;
  if (late === "child") return find("left-open");
  if (late === undefined && status !== undefined && status < 500) return undefined;
  const cause = judgeLog(shown);
  if (cause !== undefined) return cause;
  if (waitsForTelemetry(shown)) return find("telemetry", {}, limitTelemetry(shown));
  if (late !== undefined) return find("slow", { seconds: String(seconds) });
  if (status !== undefined) return find("status", { status: String(status) });
  if (error === undefined) return undefined;
  if (stdout === "") return success ? judgeSilence(shown) : judgeError(shown);
  const [first] = stdout.split(/\r?\n/);
  // The response of serve() begins with its status.
  if (/\nStatus: \d{3}/.test(stdout) && !/^Status: /.test(stdout)) {
    return find("printed", { text: JSON.stringify(first) }, redirectPrints(shown));
  }
  return success ? find("invalid", { error }) : judgeError(shown);
}

/** Finds faults by the log that apply whatever the script printed. */
function judgeLog(shown: Judged): Finding | undefined {
  const { find, first, file, stderr, source } = shown;
  const memory = stderr.split("\n").find((line) => OUT_OF_MEMORY.test(line));
  if (memory !== undefined) {
    return find("memory", { error: memory.replace(/^#\s*/, "") }, raiseLimit(shown));
  }
  if (stderr.includes("add --allow-env to the first line")) {
    return find("allow-env", {}, addFlag(shown, "--allow-env"));
  }
  if (listens(stderr)) {
    return find("listens", { module: MODULE }, replaceServe(source, file));
  }
  const denied = findDenied(shown);
  if (denied !== undefined) return denied;
  const [, error, value, name] =
    /(Requires \w+ access(?: to "([^"]*)")?).*--allow-(\w+)/.exec(stderr) ?? [];
  if (name === undefined || first === undefined) return undefined;
  // A comma separates the values: the folder of such a path has none.
  const granted = value?.replace(/\/[^/]*,.*$/, "");
  const flag = `--allow-${name}${granted ? `=${granted}` : ""}`;
  return find("permission", { error, flag }, addFlag(shown, flag));
}

/** Returns whether a script listened on a port, or may not. */
function listens(stderr: string): boolean {
  return /^Listening on https?:/m.test(stderr) ||
    /(?:Requires net access|Address already in use)[^]*^ +at .*\blisten\b/m.test(stderr);
}

/** Finds out why a script printed nothing. */
function judgeSilence({ find, first, source, file }: Judged): Finding {
  if (denoArguments(first) === undefined) return find("silent");
  return find("no-serve", { module: MODULE }, callServe(source, file));
}

/** Finds out why a script ended with an error. */
function judgeError(shown: Judged): Finding {
  const { find, script, stderr, source, first } = shown;
  const error = /^error: (?:Uncaught (?:\(in promise\) )?)?(.*)$/m.exec(stderr)?.[1] ??
    /^\w*Error\b.*$/m.exec(stderr)?.[0] ?? stderr.split("\n")[0];
  const version = /^Node\.js v((\d+)\S*)$/m.exec(stderr);
  if (Number(version?.[2]) < NODE && (source + stderr).includes("@gatehouse/cgi")) {
    return find("node-version", { version: version![1], error });
  }
  // V8 throws if Deno parses TypeScript as JavaScript.
  if (/^error: Uncaught SyntaxError:[^]*^ +at <anonymous> \(file:/m.test(stderr)) {
    return hasLanguage(script, source)
      ? find("syntax", { error })
      : find("extension", { error }, addFlag(shown, "--ext=ts"));
  }
  if (/^error: (?:SyntaxError:|The module's source code could not be parsed)/m.test(stderr)) {
    return find("syntax", { error });
  }
  if (
    denoArguments(first) === undefined ||
    !/^error: (?!Uncaught)/m.test(stderr)
  ) {
    return find("throws", { error });
  }
  const isLocal = /^error: (?:Module not found "file:|Relative import path|Import ".*" not a dep)/m;
  return isLocal.test(stderr) ? find("module", { error }) : judgeDownload(shown, error);
}

/** Finds out why an import could not be downloaded. */
function judgeDownload(shown: Judged, error: string): Finding {
  const { find, first, file, user, env } = shown;
  const configured = configuredCache(shown);
  const cache = configured ?? defaultCache(user);
  const deno = denoOf(first!, env.PATH);
  // What the web server's configuration sets may say where packages come from.
  const variables = Object.entries({ ...env, ...first!.variables })
    .filter(([name]) => name !== "PATH" && name !== "DENO_DIR")
    .map(([name, value]) => `${name}=${value}`);
  const fill = (directory: string) =>
    asUser(user.uid, [
      "env",
      ...variables,
      `DENO_DIR=${directory}`,
      deno,
      "cache",
      ...languageOf(first!),
      file,
    ]);
  const name = shellQuote(basename(file));
  if (user.canWrite(cache)) return find("import", { error, name }, [fill(cache)]);
  const folders = configured === undefined ? [CACHE] : [configured, CACHE];
  const directory = folders.find((folder) => mayBeMade(folder, user)) ?? `${CACHE}-${user.name}`;
  const commands = [
    ...(user.canWrite(directory) ? [] : [asUser(0, ["install", "-d", "-o", user.name, directory])]),
    fill(directory),
    ...(directory === configured
      ? []
      : [change(file, setFirstLine(file, withVariable(first!, "DENO_DIR", directory)))]),
  ];
  return find("deno-dir", { path: cache, error, name }, commands);
}

/** Returns the folder that is configured for Deno's cache. A script that others may change does not choose what root makes. */
export function configuredCache({ first, file, env }: Judged): string | undefined {
  const isTrusted = changeableAt(file) === undefined;
  return (isTrusted ? first?.variables.DENO_DIR : undefined) ?? env.DENO_DIR;
}

function defaultCache(user: User): string {
  return `${user.home}/.cache/deno`;
}

/** Returns the folder of Deno's cache as a script's user has it. */
export function cacheOf({ first, env, user }: Judged): string {
  return first?.variables.DENO_DIR ?? env.DENO_DIR ?? defaultCache(user);
}

/** Returns whether a folder is the user's, or root can make it for the user. */
export function mayBeMade(folder: string, user: User): boolean {
  if (user.canWrite(folder)) return true;
  return stat(folder) === undefined && stat(dirname(folder))?.isDirectory === true &&
    user.blockedAt(folder) === undefined;
}

/** Returns the flags of `deno cache` that say what language a script is written in. */
function languageOf(first: FirstLine): string[] {
  return denoArguments(first)!.filter((argument) => argument.startsWith("--ext="));
}

/** Returns whether a script's name or first line states its language. */
function hasLanguage(script: string, source: string): boolean {
  return /\.(?:[cm]?[jt]s|[jt]sx)$/.test(script) || source.split("\n", 1)[0].includes("--ext");
}

function addFlag({ file, first }: Judged, flag: string): (Command | undefined)[] {
  const line = first && withFlag(first, flag);
  return line === undefined || line === first?.text ? [] : [change(file, setFirstLine(file, line))];
}

/** Returns whether a script has responded and does not end, as one that exports telemetry to a silent receiver. */
function waitsForTelemetry({ late, stdout, first }: Judged): boolean {
  const { OTEL_DENO, OTEL_EXPORTER_OTLP_TIMEOUT } = first?.variables ?? {};
  return late === "script" && /\n\r?\n/.test(stdout) && OTEL_DENO !== undefined &&
    OTEL_EXPORTER_OTLP_TIMEOUT === undefined;
}

function limitTelemetry({ file, first }: Judged): (Command | undefined)[] {
  const line = withVariable(first!, "OTEL_EXPORTER_OTLP_TIMEOUT", "300");
  return [change(file, setFirstLine(file, line))];
}

/** Returns the command that makes a script raise its limit of memory, as far as it may. */
function raiseLimit({ file, first }: Judged): (Command | undefined)[] {
  if (first === undefined || denoArguments(first) === undefined) return [];
  const line = withProgram(first, `/usr/bin/prlimit --as=unlimited: ${first.command[0]}`);
  return [change(file, setFirstLine(file, line))];
}

/** Returns the command that redirects the prints of a script to its log. */
function redirectPrints({ source, file }: Judged): (Command | undefined)[] {
  return source.includes("console.log(")
    ? [change(file, ["sed", "-i", "s/console\\.log(/console.error(/g", file])]
    : [];
}

/** Returns the command that makes a script pass its app to serve(). */
function callServe(source: string, file: string): (Command | undefined)[] {
  const exported = /^export default (\w+);?\s*$/m.exec(source)?.[1];
  const app = [exported, "app", "handler"].find((name) =>
    name !== undefined &&
    new RegExp(`^(?:export )?(?:const|let|var|(?:async )?function|class) ${name}\\b`, "m")
      .test(source)
  );
  if (app === undefined) return [];
  const sed = ["sed", "-i", ...importServe(source), "-e", `$a await serve(${app});`, file];
  return [change(file, sed)];
}

/** Returns the command that makes a script call serve() in place of Deno.serve(). */
function replaceServe(source: string, file: string): (Command | undefined)[] {
  // At the top level, with a handler alone or after options without braces of their own.
  const call = String.raw`^((const|let) \w+ = )?(await )?Deno\.serve\((\{[^{}]*\}, *)?`;
  const calls = [...source.matchAll(new RegExp(call, "gm"))];
  const [argument] = calls.map(({ 0: text, index }) => source.slice(index + text.length));
  // Options without a handler, or in a variable.
  if (calls.length !== 1 || /^(?:\{|[\w.]+,)/.test(argument)) return [];
  const replace = `s/${call}/\\1await serve(/`;
  return [change(file, ["sed", "-i", "-E", ...importServe(source), "-e", replace, file])];
}

/** Returns the arguments of sed that import serve(), if a script does not. */
function importServe(source: string): string[] {
  const has = /\bimport\s*\{[^}]{0,500}\bserve\b(?!\s+as\b)[^}]{0,500}\}/.test(source);
  return has ? [] : ["-e", `1a import { serve } from "${MODULE}";`];
}
