/**
 * The commands that fix a finding: each is run by a user who harms nobody else with it.
 *
 * @module
 */

import { dirname } from "node:path";
import { shellQuote } from "../../debug/shell_command.ts";
import { foldersOf, stat, User } from "./user.ts";

/** A command, as a program and its arguments. */
export type Command = string[];

const ROOT = 0;
const WRITABLE_BY_GROUP = 0o020;
const WRITABLE_BY_OTHERS = 0o002;
const STICKY = 0o1000;

/**
 * Returns what changes a file when it is pasted into this user's shell. Where others may replace the file, they could
 * make it a link to any file: the command is then run by the one whom the folder belongs to.
 *
 * @param path The file or folder, without symbolic links.
 * @returns Undefined if nobody can run the command safely.
 */
export function change(path: string, command: Command): Command | undefined {
  const owner = stat(path)?.uid;
  if (!isReplaceable(path)) return owner === Deno.uid() ? command : asUser(ROOT, command);
  const folder = dirname(path);
  return isSticky(folder) || stat(folder)?.uid === owner ? asUser(owner, command) : undefined;
}

/** Returns whether others than root and this user may replace a file or a folder on its way. */
export function isReplaceable(path: string): boolean {
  if (!foldersOf(path).every((folder) => isTrusted(folder))) return true;
  // Only its owner can replace a file in a sticky folder.
  return isSticky(dirname(path)) && !isTrustedUser(stat(path)?.uid);
}

/** Returns what runs a command as a user when it is pasted into this user's shell. */
export function asUser(uid: number | null | undefined, command: Command): Command | undefined {
  if (uid === Deno.uid()) return command;
  if (uid === ROOT) return ["sudo", ...command];
  const name = User.nameOf(uid ?? null);
  if (name === undefined) return undefined;
  return Deno.uid() === ROOT
    ? ["runuser", "-u", name, "--", ...command]
    : ["sudo", "-u", name, ...command];
}

/**
 * Returns whether nobody may change a file or replace it but root, this user and perhaps another one.
 *
 * @param other The other user.
 */
function isTrusted(path: string, other?: number | null): boolean {
  const info = stat(path);
  if (info === undefined || !isTrustedUser(info.uid) && info.uid !== other) return false;
  const mode = info.mode ?? 0;
  if (info.isDirectory && (mode & STICKY) !== 0) return true;
  const isShared = (mode & WRITABLE_BY_GROUP) !== 0 && ![ROOT, Deno.gid()].includes(info.gid ?? -1);
  return !isShared && (mode & WRITABLE_BY_OTHERS) === 0;
}

/**
 * Returns the file or the first folder on its way that others may change, or undefined if there is none.
 *
 * @param other One besides root and this user who may.
 */
export function changeableAt(path: string, other?: number | null): string | undefined {
  return [...foldersOf(path), path].find((part) => !isTrusted(part, other));
}

/** Formats commands as one line of shell. */
export function formatLine(commands: Command[]): string {
  return commands.map((command) => command.map(shellQuote).join(" ")).join(" && ");
}

function isSticky(folder: string): boolean {
  return ((stat(folder)?.mode ?? 0) & STICKY) !== 0;
}

function isTrustedUser(uid: number | null | undefined): boolean {
  return uid === ROOT || uid === Deno.uid();
}
