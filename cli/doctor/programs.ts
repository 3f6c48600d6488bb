/**
 * The programs that run scripts, and how to make one available.
 *
 * @module
 */

import { basename } from "node:path";
import { closest } from "../closest.ts";
import { asUser, change, changeableAt, type Command } from "./commands.ts";
import { denoArguments, type FirstLine, setFirstLine, withProgram } from "./first_line.ts";
import { stat, type User } from "./user.ts";

/** Programs that run scripts. Another name may be a misspelling of one of them. */
const KNOWN = "bash bun deno env lua node perl php php-cgi python python3 ruby sh tclsh".split(" ");
/** The folder that is on the PATH of most web servers. */
const LOCAL = "/usr/local/bin";

/** A script and who runs it. */
interface Needs {
  /** The script's file, without symbolic links. */
  file: string;
  first: FirstLine;
  user: User;
  /** The PATH of scripts. */
  path: string;
}

/** Returns the file of the program that a first line names, or undefined if there is none. */
export function programOf(first: FirstLine, path: string): string | undefined {
  const [name] = first.command;
  return first.searched ? search(name, path) : isFile(name) ? name : undefined;
}

/** Returns Deno as its first line names it, or this one. */
export function denoOf(first: FirstLine, path: string): string {
  const named = denoArguments(first) && first.command.find((word) => /(?:^|\/)deno$/.test(word));
  return (named?.startsWith("/") ? named : search("deno", path)) ?? Deno.execPath();
}

/** Returns the commands that provide a program that is missing or that the user may not run. */
export function replaceProgram(needs: Needs): (Command | undefined)[] {
  const { file, first, user, path } = needs;
  const [given] = first.command;
  const name = basename(given);
  const use = (program: string) => [change(file, setFirstLine(file, withProgram(first, program)))];
  const usable = candidates(name, path).find((program) => mayUse(program, needs));
  if (usable !== undefined) return use(usable);
  const others = KNOWN.includes(name) ? [] : KNOWN.filter((known) => search(known, path));
  const similar = closest(name, others);
  if (similar !== undefined) {
    const program = search(similar, path)!;
    if (user.canRun(realPath(program))) return use(first.searched ? similar : program);
  }
  const installed = programOf(first, path) ?? (name === "deno" ? Deno.execPath() : undefined);
  if (installed === undefined) return [];
  const real = realPath(installed);
  const barriers = user.barriers(real);
  if (barriers.every((barrier) => isOwn(barrier, file))) {
    const open = barriers.map((barrier) =>
      change(barrier, [
        "chmod",
        // A program may be a script, which needs to be read.
        `${user.classOf(barrier)}+${barrier === real ? "rx" : "x"}`,
        barrier,
      ])
    );
    return installed === programOf(first, path) ? open : [...open, ...use(installed)];
  }
  // If others may change the file, they choose what is copied.
  if (name !== "deno" || changeableAt(real) !== undefined) return [];
  const copy = `${LOCAL}/${name}`;
  const install = asUser(0, ["install", "-m", "755", real, copy]);
  const isFound = first.searched ? path.split(":").includes(LOCAL) : given === copy;
  return isFound ? [install] : [install, ...use(copy)];
}

/** Returns whether a script's owner may open a file or folder to others: not root's home. */
function isOwn(path: string, script: string): boolean {
  return stat(path)?.uid === stat(script)?.uid && !/^\/root(?:\/|$)/.test(path);
}

/** Returns the program that a new first line names: Deno on the PATH, or by its path if the user may run it. */
export function denoFor(needs: Omit<Needs, "first">): string {
  const { user, path } = needs;
  const found = search("deno", path);
  if (found !== undefined && user.canRun(realPath(found))) return "deno";
  return candidates("deno", path).find((program) => mayUse(program, needs)) ?? "deno";
}

/** Files with a program's name that the first line may mean. */
function candidates(name: string, path: string): string[] {
  const folders = [...path.split(":"), LOCAL, "/usr/bin", "/bin"];
  const files = folders.filter((folder) => folder.startsWith("/")).map((dir) => `${dir}/${name}`);
  return (name === "deno" ? [...files, Deno.execPath()] : files).filter(isFile);
}

/** Returns whether a user may run a program, and only root, this user and the script's owner may change it. */
function mayUse(program: string, { file, user }: Pick<Needs, "file" | "user">): boolean {
  const real = realPath(program);
  if (!user.canRun(real)) return false;
  return changeableAt(real, stat(file)?.uid) === undefined;
}

function search(name: string, path: string): string | undefined {
  return path.split(":").map((folder) => `${folder}/${name}`).find(isFile);
}

function isFile(path: string): boolean {
  return stat(path)?.isFile === true;
}

/** Returns a path without symbolic links. */
export function realPath(path: string): string {
  try {
    return Deno.realPathSync(path);
  } catch {
    return path;
  }
}
