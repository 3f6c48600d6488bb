/**
 * The command with which this one starts itself as a child: a worker of `serve`, or the app of `dev`.
 *
 * What it needs to know is in files that this process may not read, so it runs itself for that with all permissions, as
 * `--allow-run` of Deno permits.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { homedir } from "node:os";
import { logLine } from "../io/log.ts";
import { type AppConfig, findConfig } from "./app_config.ts";
import { MODULE } from "./version.ts";

/** Flags that only one process can have, so that children do not inherit them. */
const OWN = /^--(?:watch|inspect|coverage|cpu-prof|trace-leaks)/;
/** Matches the config that `deno install` writes beside a command: each command has one, even an empty one. */
const INSTALLED = /\/bin\/\.[^/]+\/deno\.json$/;

/** What decides on the flags of a child. */
interface Question {
  /** The process whose flags the child has, and the number of its own arguments. */
  parent: { pid: number; args: number };
  module: string;
  /** The flags that replace those of the parent. */
  flags?: string[];
  /** The flags where the system does not show those of the parent. */
  fallback: string[];
}

/** The configs that a child may have. */
export interface Configs {
  /** The config of the app. */
  app?: AppConfig;
  /** The config of the working folder. */
  own?: AppConfig;
}

/**
 * Returns the arguments with which Deno runs `serve MODULE` in a child. The child has the config nearest to the app, as
 * `deno run MODULE` does.
 *
 * Needs `--allow-run` of Deno.
 *
 * @param args The options of `serve`.
 * @param text The flags of the child's `deno run`. Default: those of this process.
 */
export async function childCommand(
  module: string,
  args: string[],
  text?: string,
): Promise<string[]> {
  const flags = text?.split(/\s+/).filter(Boolean);
  const parent = { pid: Deno.pid, args: Deno.args.length };
  const fallback = flags ?? wholePermissions();
  const chosen = await askWithAllPermissions({ parent, module, flags, fallback }) ?? fallback;
  return ["run", "--no-prompt", ...chosen, MODULE, "serve", module, ...args];
}

async function askWithAllPermissions(question: Question): Promise<string[] | undefined> {
  const { success, stdout } = await new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "--allow-all", "--quiet", "--no-config", "--no-lock"],
      ...[import.meta.url, JSON.stringify(question)],
    ],
    stderr: "inherit",
  }).output();
  return success ? JSON.parse(new TextDecoder().decode(stdout)) : undefined;
}

/** Returns the flags of the permissions that are granted as a whole: those granted in part cannot be listed. */
function wholePermissions(): string[] {
  const names = ["read", "write", "net", "env", "run", "sys", "ffi", "import"] as const;
  return names.filter((name) => Deno.permissions.querySync({ name }).state === "granted")
    .map((name) => `--allow-${name}`);
}

/**
 * Adds a config to flags of `deno run`, unless they name one: that of the app, or with a permission set that of this
 * process, which has the set. The config that an installed command has of its own does not count.
 *
 * @param copy Copies a lock file, and returns the path of the copy.
 */
export function withConfig(
  flags: string[],
  { app, own }: Configs,
  copy: (lock: string) => string | undefined,
): string[] {
  const { named, others } = splitConfig(flags);
  if (named !== undefined && !INSTALLED.test(named)) return flags;
  const hasSet = others.some((flag) => /^(?:-[A-Za-z]*P|--permission-set)/.test(flag));
  if (hasSet && named !== undefined) return flags;
  const config = hasSet ? own : app;
  if (config === undefined) return flags;
  const has = (name: string) => others.some((flag) => flag.startsWith(name));
  const added = config.flags.filter((flag) => !has(flag.replace(/=.*/s, "")));
  if (!["--lock", "--no-lock", "--frozen"].some(has)) added.push(...lockFlags(config, copy));
  return [...others, ...added];
}

/**
 * Returns flags for the lock file of a config. Deno adds this package to the lock file of a child, and ends it if it
 * cannot. The file is the project's, and may be frozen or read-only, so the child has a copy.
 */
function lockFlags(
  { lock }: AppConfig,
  copy: (lock: string) => string | undefined,
): string[] {
  const copied = lock === undefined ? undefined : copy(lock);
  return copied === undefined ? ["--no-lock"] : [`--lock=${copied}`, "--frozen=false"];
}

/** Separates `--config PATH` from other flags. `named` is "" for `--no-config`. */
function splitConfig(flags: string[]): { named?: string; others: string[] } {
  const at = flags.findIndex((flag) => /^(?:-c|--config\b|--no-config$)/.test(flag));
  if (at < 0) return { others: flags };
  if (flags[at] === "--no-config") return { named: "", others: flags };
  const [, attached] = /^(?:-c=?|--config=)(.+)$/.exec(flags[at]) ?? [];
  return {
    named: attached ?? flags[at + 1] ?? "",
    others: flags.toSpliced(at, attached === undefined ? 2 : 1),
  };
}

function answer({ parent, module, flags, fallback }: Question): string[] {
  const given = flags ?? flagsOf(parent) ?? fallback;
  return withConfig(given, { app: findConfig(module), own: findConfig("jsr:") }, copyLock);
}

/** Reads the flags of a process from /proc, which Deno permits with --allow-all only. */
function flagsOf({ pid, args }: Question["parent"]): string[] | undefined {
  let words: string[];
  try {
    words = Deno.readTextFileSync(`/proc/${pid}/cmdline`).split("\0").slice(1, -1);
  } catch {
    return undefined;
  }
  // The module and its own arguments follow the flags.
  return words.slice(0, -1 - args)
    .filter((word) => word !== "run" && word !== "--no-prompt" && !OWN.test(word));
}

/** Copies a lock file into the cache of Deno. */
function copyLock(lock: string): string | undefined {
  const folder = `${cacheFolder()}/gatehouse`;
  const copy = `${folder}/${createHash("sha256").update(lock).digest("hex")}.lock`;
  try {
    Deno.mkdirSync(folder, { recursive: true });
    Deno.copyFileSync(lock, copy);
    return copy;
  } catch (error) {
    logLine(`Cannot use ${lock}: ${(error as Error).message}`);
    return undefined;
  }
}

function cacheFolder(): string {
  const caches = Deno.build.os === "darwin" ? "Library/Caches" : ".cache";
  return Deno.env.get("DENO_DIR") ??
    `${Deno.env.get("XDG_CACHE_HOME") ?? `${homedir()}/${caches}`}/deno`;
}

if (import.meta.main) console.log(JSON.stringify(answer(JSON.parse(Deno.args[0]))));
