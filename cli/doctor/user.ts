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
    const line = readTable("/etc/passwd").find(([other, , uid]) =>
      name === undefined ? Number(uid) === Deno.uid() : other === name
    );
    if (line === undefined) {
      throw new UsageError(`There is no user ${name ?? Deno.uid()} in /etc/passwd.`);
    }
    const groups = readTable("/etc/group").filter((group) =>
      group[3]?.split(",").includes(line[0])
    );
    return new User(line, new Set([Number(line[3]), ...groups.map((group) => Number(group[2]))]));
  }

  /** Returns whether the user may read a file and search its folders. */
  canRead(path: string): boolean {
    return this.blockedAt(path) === undefined && this.#may(path, READ);
  }

  /** Returns whether the user may execute a file. */
  canRun(path: string): boolean {
    return this.blockedAt(path) === undefined && this.#may(path, EXECUTE);
  }

  /** Returns whether the user may write to a folder, or create it. */
  canWrite(path: string): boolean {
    if (this.blockedAt(path) !== undefined) return false;
    const existing = stat(path);
    if (existing !== undefined) return this.#may(path, WRITE);
    return path !== "/" && this.canWrite(parentOf(path));
  }

  /** Returns the first folder on the way to a file that the user may not enter, if there is one. */
  blockedAt(path: string): string | undefined {
    const names = path.split("/").slice(1, -1);
    const folders = names.map((_, i) => `/${names.slice(0, i + 1).join("/")}`);
    return folders.find((folder) => stat(folder) !== undefined && !this.#may(folder, EXECUTE));
  }

  #may(path: string, bit: number): boolean {
    const info = stat(path);
    if (info === undefined) return false;
    const mode = info.mode ?? 0;
    // Root may execute a file if any executable bit is set.
    if (this.uid === 0) return bit !== EXECUTE || info.isDirectory || (mode & 0o111) !== 0;
    if (info.uid === this.uid) return (mode & bit << 6) !== 0;
    if (this.#groups.has(info.gid ?? -1)) return (mode & bit << 3) !== 0;
    return (mode & bit) !== 0;
  }
}

function readTable(file: string): string[][] {
  return Deno.readTextFileSync(file).split("\n").map((line) => line.split(":"));
}

function stat(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.statSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

function parentOf(path: string): string {
  return path.slice(0, path.lastIndexOf("/")) || "/";
}
