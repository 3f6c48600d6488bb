/**
 * The command with which this one starts itself as a child: a worker of `serve`, or the app of `dev`.
 *
 * What it needs to know is in files that this process may not read, so another process looks, with all permissions, as
 * `--allow-run` of Deno permits.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { homedir } from "node:os";
import { EXEC_PATH } from "../process/exec_path.ts";
import { logLine } from "../io/log.ts";
import { type AppConfig, findConfig } from "./app_config.ts";
import { cacheFolder } from "./cache_folder.ts";
import { MODULE, PACKAGE } from "./version.ts";

/** Flags that only one process can have, so that children do not inherit them. */
const OWN = /^--(?:watch|inspect|coverage|cpu-prof|trace-leaks)/;
/** Matches the config that `deno install` writes beside a command: each command has one, even an empty one. */
const INSTALLED = /\/bin\/\.[^/]+\/deno\.json$/;

/** What decides on the flags of a child. */
export interface Surroundings {
  /** The flags that this process was started with; absent where the system does not show them. */
  flags?: string[];
  /** The config of the app. */
  app?: ChildConfig;
  /** The config of the working folder. */
  own?: ChildConfig;
}

/** A config, and how a child uses the lock file of its project. */
export interface ChildConfig extends AppConfig {
  /** Its flags. @default none */
  lockFlags?: string[];
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
  const surroundings = await lookAround(module);
  const given = text?.split(/\s+/).filter(Boolean) ?? surroundings.flags ?? wholePermissions();
  const { flags, config } = withConfig(given, surroundings);
  const all = config === undefined ? flags : withLock(flags, config);
  return ["run", "--no-prompt", ...all, MODULE, "serve", module, ...args];
}

/** Looks around in a process with all permissions. Needs `--allow-run` of Deno. */
export async function lookAround(module: string): Promise<Surroundings> {
  try {
    const { success, stdout } = await new Deno.Command(EXEC_PATH, {
      args: [
        ...["run", "--allow-all", "--quiet", "--no-config", "--no-lock", import.meta.url],
        ...[String(Deno.pid), String(Deno.args.length), module],
      ],
      stderr: "inherit",
    }).output();
    return success ? JSON.parse(new TextDecoder().decode(stdout)) : {};
  } catch {
    // Deno is not there, for instance while its package is upgraded: so the child will not start either.
    return {};
  }
}

/** Returns the flags of the permissions that are granted as a whole: those granted in part cannot be listed. */
export function wholePermissions(): string[] {
  const names = ["read", "write", "net", "env", "run", "sys", "ffi", "import"] as const;
  return names.filter((name) => Deno.permissions.querySync({ name }).state === "granted")
    .map((name) => `--allow-${name}`);
}

/**
 * Adds a config to flags of `deno run`, unless they name one: that of the app, or with a permission set that of this
 * process, which has the set. The config that an installed command has of its own does not count.
 *
 * @returns The flags, and the config that was added.
 */
export function withConfig(
  flags: string[],
  { app, own }: Surroundings,
): { flags: string[]; config?: ChildConfig } {
  const { named, others } = splitConfig(flags);
  if (named !== undefined && !INSTALLED.test(named)) return { flags };
  const hasSet = others.some((flag) => /^(?:-[A-Za-z]*P|--permission-set)/.test(flag));
  if (hasSet && named !== undefined) return { flags };
  const config = hasSet ? own : app;
  if (config === undefined) return { flags };
  const added = config.flags.filter((flag) => !has(others, flag.replace(/=.*/s, "")));
  return { flags: [...others, ...added], config };
}

/** Adds the lock file of a config, unless flags name one. */
export function withLock(flags: string[], { lockFlags = [] }: ChildConfig): string[] {
  const isNamed = ["--lock", "--no-lock", "--frozen"].some((name) => has(flags, name));
  return isNamed ? flags : [...flags, ...lockFlags];
}

function has(flags: string[], name: string): boolean {
  return flags.some((flag) => flag.startsWith(name));
}

/** Separates `--config PATH` from other flags. `named` is "" for `--no-config`. */
export function splitConfig(flags: string[]): { named?: string; others: string[] } {
  const at = flags.findIndex((flag) => /^(?:-c|--config\b|--no-config$)/.test(flag));
  if (at < 0) return { others: flags };
  if (flags[at] === "--no-config") return { named: "", others: flags };
  const [, attached] = /^(?:-c=?|--config=)(.+)$/.exec(flags[at]) ?? [];
  return {
    named: attached ?? flags[at + 1] ?? "",
    others: flags.toSpliced(at, attached === undefined ? 2 : 1),
  };
}

function forChild(config: AppConfig | undefined): ChildConfig | undefined {
  return config && { ...config, lockFlags: lockFlags(config) };
}

/**
 * Returns how a child uses a lock file. Deno adds this package to it, and ends the child if it cannot. The file is the
 * project's, and may be frozen or read-only, so the child has a copy, unless the package is there already.
 */
function lockFlags({ lock }: AppConfig): string[] {
  if (lock === undefined) return ["--no-lock"];
  if (Deno.readTextFileSync(lock).includes(`"${PACKAGE}"`)) return [`--lock=${lock}`];
  const copy = copyLock(lock);
  return copy === undefined ? ["--no-lock"] : [`--lock=${copy}`, "--frozen=false"];
}

/** Reads the flags of a process from /proc, which Deno permits with --allow-all only. */
function flagsOf(pid: string, args: number): string[] | undefined {
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
  const folder = `${cacheFolder(homedir())}/gatehouse`;
  const copy = `${folder}/${createHash("sha256").update(lock).digest("hex")}.lock`;
  try {
    Deno.mkdirSync(folder, { recursive: true });
    // Another child may read the copy at this time.
    Deno.copyFileSync(lock, `${copy}.${Deno.pid}`);
    Deno.renameSync(`${copy}.${Deno.pid}`, copy);
    return copy;
  } catch (error) {
    logLine(`Cannot use ${lock}: ${(error as Error).message}`);
    return undefined;
  }
}

if (import.meta.main) {
  const [pid, args, module] = Deno.args;
  const found: Surroundings = {
    flags: flagsOf(pid, Number(args)),
    app: forChild(findConfig(module)),
    own: forChild(findConfig("jsr:")),
  };
  console.log(JSON.stringify(found));
}
