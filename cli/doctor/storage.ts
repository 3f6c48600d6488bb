/**
 * Finds the file that a script could not write.
 *
 * @module
 */

import { basename, dirname, join, resolve } from "node:path";
import { asUser, changeableAt, type Command, isReplaceable } from "./commands.ts";
import type { Find, Finding } from "./findings.ts";
import { denoArguments, type FirstLine } from "./first_line.ts";
import { realPath } from "./programs.ts";
import { stat, type User } from "./user.ts";

/** What is known of a script. */
interface Shown {
  /** The script's file, without symbolic links. */
  file: string;
  source: string;
  first?: FirstLine;
  user: User;
  env: Record<string, string>;
  stderr: string;
  find: Find;
}

/** Messages of Deno, SQLite, Python, Perl and shells. */
const DENIED =
  /Permission denied|Read-only file system|readonly database|unable to open database file|No such file or directory.*: (?:writefile|mkdir|copy|rename) /;
const DATABASE = /\.(?:db|sqlite3?)$/;
const DATABASE_START = "SQLite format 3\0";
/** The maximum number of texts in a source that are looked up as files. */
const MAX_LITERALS = 1000;

/** Returns the finding of a file that the script may not read or write, if its log shows one. */
export function findDenied(shown: Shown): Finding | undefined {
  const { stderr, user, file, find } = shown;
  const message = stderr.split("\n").find((line) => DENIED.test(line));
  if (message === undefined) return undefined;
  const error = message.replace(/^error: (?:Uncaught (?:\(in promise\) )?)?/, "");
  const isDatabase = /database/.test(message);
  const paths = pathsIn(message);
  for (const path of isDatabase ? [...paths, ...databases(shown)] : paths) {
    const full = resolveFrom(file, path);
    const folder = dirname(full);
    const exists = stat(full) !== undefined;
    const rights = exists
      ? [...user.canRead(full) ? [] : ["read"], ...user.canWrite(full) ? [] : ["write"]]
      : [];
    // SQLite writes a journal beside its file.
    const folderFails = (isDatabase || !exists) && !user.canFill(folder);
    if (!folderFails && rights.length === 0) continue;
    const commands = [
      ...folderFails ? [grantFolder(folder, full, shown)] : [],
      ...rights.length > 0 ? [giveTo(shown, full)] : [],
    ];
    const values = rights.length > 0
      ? { path: full, right: rights.join(" or ") }
      : { path: folder, right: "write" };
    return find("storage", { ...values, error }, commands);
  }
  return undefined;
}

/** Returns the command that gives a folder to the user, or undefined if more than the data would be given. */
function grantFolder(folder: string, data: string, shown: Shown): Command | undefined {
  const { user, file } = shown;
  // A user who may write to the folder of a script may replace it.
  if (file.startsWith(`${folder}/`)) return undefined;
  if (stat(folder) !== undefined) {
    return holdsOnly(folder, data) ? giveTo(shown, folder) : undefined;
  }
  const hasParent = stat(dirname(folder))?.isDirectory === true;
  return hasParent && isSafe(folder, file)
    ? asUser(0, ["install", "-d", "-o", user.name, folder])
    : undefined;
}

function giveTo({ user, file }: Shown, path: string): Command | undefined {
  return isSafe(path, file) ? asUser(0, ["chown", user.name, path]) : undefined;
}

/** Returns whether root may change the owner of a file: otherwise a script, or a user who may replace the file, would choose the file. */
function isSafe(path: string, script: string): boolean {
  return changeableAt(script) === undefined && !isReplaceable(path);
}

/** Returns whether a folder has nothing but a file and those of the same name with a suffix. */
function holdsOnly(folder: string, data: string): boolean {
  if (folder.split("/").length < 3) return false;
  return [...Deno.readDirSync(folder)].every(({ name, isFile }) =>
    isFile && `${folder}/${name}`.startsWith(data)
  );
}

/** Returns the paths in a message. */
function pathsIn(message: string): string[] {
  const quoted = [...message.matchAll(/(['"])([^'"]+)\1/g)].map(([, , path]) => path);
  const plain = [...message.matchAll(/(?<=[\s:])\/[^\s:'",]+/g)].map(([path]) => path);
  return [...quoted, ...plain];
}

/** Returns the files of databases that a script may mean: SQLite's messages may lack the name. */
function databases({ source, env, first, file }: Shown): string[] {
  const literals = [...source.matchAll(/(["'`])([^"'`\n]+)\1/g)].map(([, , text]) => text);
  const flags = (denoArguments(first) ?? [])
    .flatMap((flag) => /^--allow-write=(.*)/.exec(flag)?.[1].split(",") ?? []);
  return [...literals.slice(0, MAX_LITERALS), ...Object.values(env), ...flags]
    .filter((path) => DATABASE.test(path) || isDatabase(resolveFrom(file, path)));
}

/** Resolves a path against the folder of a script, where scripts run. */
function resolveFrom(script: string, path: string): string {
  const full = resolve(dirname(script), path);
  return join(realPath(dirname(full)), basename(full));
}

function isDatabase(path: string): boolean {
  if (stat(path)?.isFile !== true) return false;
  try {
    using file = Deno.openSync(path);
    const bytes = new Uint8Array(DATABASE_START.length);
    file.readSync(bytes);
    return new TextDecoder().decode(bytes) === DATABASE_START;
  } catch {
    return false;
  }
}
