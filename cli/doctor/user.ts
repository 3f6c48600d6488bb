import { dirname } from "node:path";
import { UsageError } from "../errors.ts";

const READ = 4;
const WRITE = 2;
const EXECUTE = 1;

/** A user of this machine, with checks of its file permissions. */
export class User {
  /** Its name. */
  readonly name: string;
  /** Its number. */
  readonly uid: number;
  /** The number of its group. */
  readonly gid: number;
  /** Its home directory. */
  readonly home: string;
  #groups: Set<number>;

  private constructor(line: string[], groups: Set<number>) {
    this.name = line[0];
    this.uid = Number(line[2]);
    this.gid = Number(line[3]);
    this.home = line[5];
    this.#groups = groups;
  }

  /**
   * Finds a user.
   *
   * @param name Its name, or undefined for the user of this process.
   * @throws {UsageError} If the user does not exist.
   */
  static find(name: string | undefined): User {
    const uid = String(Deno.uid());
    const line = readTable("/etc/passwd").find((line) =>
      name === undefined ? line[2] === uid : line[0] === name
    );
    if (line !== undefined) return new User(line, groupsOf(line));
    if (name !== undefined) throw new UsageError(`There is no user ${name} in /etc/passwd.`);
    // A container may run with any number.
    const gid = String(Deno.gid());
    return new User([uid, "", uid, gid, "", Deno.env.get("HOME") ?? "/"], new Set([Number(gid)]));
  }

  /** Returns the name of the user with a number, or undefined if there is none. */
  static nameOf(uid: number | null): string | undefined {
    return readTable("/etc/passwd").find((line) => line[2] === String(uid))?.[0];
  }

  /** The name of its group, or the number of one without a name. */
  get groupName(): string {
    const gid = String(this.gid);
    return readTable("/etc/group").find((line) => line[2] === gid)?.[0] ?? gid;
  }

  /** Returns whether the user may read a file and search its folders. */
  canRead(path: string): boolean {
    return this.blockedAt(path) === undefined && this.#may(path, READ);
  }

  /** Returns whether the user may execute a file. */
  canRun(path: string): boolean {
    return this.blockedAt(path) === undefined && this.#may(path, EXECUTE);
  }

  /** Returns whether the user may write to a file or folder, or create it. */
  canWrite(path: string): boolean {
    if (this.blockedAt(path) !== undefined) return false;
    if (stat(path) !== undefined) return this.#may(path, WRITE);
    return path !== "/" && this.canWrite(dirname(path));
  }

  /** Returns whether the user may create files in a folder. */
  canFill(folder: string): boolean {
    return stat(folder)?.isDirectory === true && this.canRun(folder) && this.#may(folder, WRITE);
  }

  /** Returns the first folder on the way to a file that the user may not enter, if there is one. */
  blockedAt(path: string): string | undefined {
    return foldersOf(path).find((folder) => this.#isBarred(folder));
  }

  /** Returns the folders on the way to a file that the user may not enter, and the file if the user may not run it. */
  barriers(path: string): string[] {
    return [...foldersOf(path), path].filter((part) => this.#isBarred(part));
  }

  #isBarred(path: string): boolean {
    return stat(path) !== undefined && !this.#may(path, EXECUTE);
  }

  /** Returns the class of the permissions that apply to the user, as chmod names it. */
  classOf(path: string): "u" | "g" | "o" {
    const info = stat(path);
    if (info?.uid === this.uid) return "u";
    return this.#groups.has(info?.gid ?? -1) ? "g" : "o";
  }

  #may(path: string, bit: number): boolean {
    const info = stat(path);
    if (info === undefined) return false;
    const mode = info.mode ?? 0;
    // Root may execute a file if any executable bit is set.
    if (this.uid === 0) return bit !== EXECUTE || info.isDirectory || (mode & 0o111) !== 0;
    return (mode & bit << { u: 6, g: 3, o: 0 }[this.classOf(path)]) !== 0;
  }
}

/** Returns all folders on the way to a file, the root first. */
export function foldersOf(path: string): string[] {
  return path === "/" ? [] : [...foldersOf(dirname(path)), dirname(path)];
}

/** Returns what is known of a file, or undefined if it does not exist or cannot be seen. */
export function stat(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.statSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    return undefined;
  }
}

function groupsOf([name, , , gid]: string[]): Set<number> {
  const others = readTable("/etc/group").filter((group) => group[3]?.split(",").includes(name));
  return new Set([gid, ...others.map((group) => group[2])].map(Number));
}

function readTable(file: string): string[][] {
  return Deno.readTextFileSync(file).split("\n").map((line) => line.split(":"));
}
