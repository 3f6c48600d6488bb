import { runtime, type RuntimeFileInfo } from "../io/runtime.ts";

/** A script that may run. */
export interface ScriptFile {
  /** The path of the file, with symbolic links unresolved. */
  file: string;
  /** The number of path segments that name the file. */
  taken: number;
  /** Whether the file is the index of a folder and the path lacks its final slash. */
  needsSlash: boolean;
}

/** The reason why no script may run. */
export interface ScriptRefusal {
  /** The HTTP status of the response. */
  status: 403 | 404;
  /** The reason, for the log. */
  reason: string;
  /** Whether to log it: the file exists and may not run. Requests for files that do not exist are too common to log. */
  logged: boolean;
}

/** Rules for files that may run. */
export interface ScriptRules {
  /** Names of a folder's index script, in order of preference. */
  index: string[];
  /** Extensions of files that may run; undefined for any. */
  extensions: string[] | undefined;
  /** Whether a file must be executable. */
  needsExecutableBit(file: string): boolean;
}

const WORLD_WRITABLE = 0o002;
const EXECUTABLE = 0o111;
/** The length of a first line that the system reads, in bytes. */
const MAX_FIRST_LINE = 256;

/** Resolves a path against the working directory. */
export function absolutePath(path: string): string {
  return path.startsWith("/") ? path : `${runtime.cwd()}/${path}`;
}

/** Returns the folder of a file with an absolute path. */
export function folderOf(file: string): string {
  return file.slice(0, file.lastIndexOf("/")) || "/";
}

// Synchronous calls take a fraction of the time, and starting the process blocks for longer.

/**
 * Finds the script that a path names: its first segments up to a file, or the index of the folder that all of them
 * name. Checks whether it may be run.
 */
export function findScript(
  root: string,
  names: Iterable<string>,
  rules: ScriptRules,
): ScriptFile | ScriptRefusal {
  let path = root.replace(/\/+$/, "");
  let taken = 0;
  let folder = false;
  const rootInfo = stat(path || "/");
  if (rootInfo !== null && isWorldWritable(rootInfo)) {
    return refusal(`${path} is a folder that all users may write to`);
  }
  for (const name of names) {
    taken++;
    if (folder) return missing(`${path}/ has an empty name`);
    folder = name === "";
    if (folder) continue;
    if (name.startsWith(".")) return missing(`${path}/${name} begins with a dot`);
    path += `/${name}`;
    const info = stat(path);
    if (info === null) return missing(`${path} does not exist`);
    if (isForeignLink(path, info)) return refusal(foreign(path), 404);
    if (!info.isDirectory) return checkScript(path, taken, rules);
    if (isWorldWritable(info)) return refusal(`${path} is a folder that all users may write to`);
  }
  for (const name of rules.index) {
    const file = `${path}/${name}`;
    const info = stat(file);
    if (info !== null) {
      if (isForeignLink(file, info)) return refusal(foreign(file), 404);
      const found = checkScript(file, taken, rules);
      return "file" in found ? { ...found, needsSlash: !folder } : found;
    }
  }
  return missing(`${path} is a folder`);
}

/**
 * Returns whether a path is a symbolic link that must not be followed: otherwise users who may write to a folder could
 * run any file of another user. Same as Apache's `SymLinksIfOwnerMatch`.
 *
 * @param target The target of the link.
 */
function isForeignLink(path: string, target: RuntimeFileInfo): boolean {
  const link = runtime.lstatSync(path);
  return link.isSymlink && link.uid !== target.uid;
}

function isWorldWritable({ mode }: RuntimeFileInfo): boolean {
  return ((mode ?? 0) & WORLD_WRITABLE) !== 0;
}

function foreign(path: string): string {
  return `${path} is a link to another user's file`;
}

/** Checks that a file may run: it must be a regular file that, like its folder, is not writable by all users. */
export function checkScript(
  file: string,
  taken: number,
  rules: ScriptRules,
): ScriptFile | ScriptRefusal {
  const info = stat(file);
  if (info === null) return refusal(`${file} does not exist`, 404);
  if (!info.isFile) return refusal(`${file} is not a regular file`);
  if (rules.extensions !== undefined && !rules.extensions.some((end) => file.endsWith(end))) {
    return refusal(`${file} must end in ${rules.extensions.join(", ")}`);
  }
  const real = runtime.realPathSync(file);
  const folder = runtime.statSync(folderOf(real));
  if (isWorldWritable(info)) return refusal(`${file} is writable by all users`);
  if (isWorldWritable(folder)) return refusal(`the folder of ${file} is writable by all users`);
  if (info.mode !== null && !(info.mode & EXECUTABLE) && rules.needsExecutableBit(file)) {
    return refusal(`${file} is not executable`);
  }
  return { file, taken, needsSlash: false };
}

function stat(path: string): RuntimeFileInfo | null {
  try {
    return runtime.statSync(path);
  } catch (error) {
    if (error instanceof runtime.errors.NotCapable) throw error;
    return null;
  }
}

function missing(reason: string): ScriptRefusal {
  return { status: 404, reason, logged: false };
}

function refusal(reason: string, status: 403 | 404 = 403): ScriptRefusal {
  return { status, reason, logged: true };
}

function findFirstLineFault(file: string): string | undefined {
  const bytes = new Uint8Array(MAX_FIRST_LINE);
  let length: number | null;
  try {
    using script = runtime.openSync(file);
    length = script.readSync(bytes);
  } catch {
    // An executable file need not be readable.
    return undefined;
  }
  const start = new TextDecoder().decode(bytes.subarray(0, length ?? 0));
  const [_, line, interpreter] = /^#!([ \t]*(\S+)[^\n]*)\n/.exec(start) ?? [];
  if (line === undefined) return undefined;
  if (line.endsWith("\r")) return "its first line ends in CR LF";
  try {
    runtime.statSync(interpreter);
  } catch (error) {
    // Otherwise this process lacks the permission to stat it.
    if (error instanceof runtime.errors.NotFound) return `${interpreter} does not exist`;
  }
  return undefined;
}

/** How long a lookup is cached, in milliseconds. */
const LOOKUP_LIFETIME = 1000;
/** The maximum number of cached lookups: clients choose the names. */
const MAX_LOOKUPS = 1000;

/** Caches lookups of files. All of them expire together. */
class LookupCache<T> {
  #found = new Map<string, T>();
  #since = 0;

  get(file: string): T | undefined {
    const now = performance.now();
    if (now - this.#since > LOOKUP_LIFETIME || this.#found.size >= MAX_LOOKUPS) {
      this.#found.clear();
      this.#since = now;
    }
    return this.#found.get(file);
  }

  set(file: string, found: T): void {
    this.#found.set(file, found);
  }
}

/** Checks the first lines of scripts. A valid one is not read again for a second. */
export class ShebangChecker {
  #valid = new LookupCache<true>();

  /**
   * Returns why a script's first line cannot start it, as text for the log, or undefined if it can. The system reports
   * "No such file or directory", though the script is there.
   */
  findFault(file: string): string | undefined {
    if (this.#valid.get(file)) return undefined;
    const fault = findFirstLineFault(file);
    if (fault === undefined) this.#valid.set(file, true);
    return fault;
  }
}

/** The kind of a file. */
export type FileKind = "file" | "folder" | "foreign" | "none";

/** Looks up files and folders below a root. Caches those that exist. */
export class FileKinds {
  /** The root, an absolute path without a slash at its end. */
  readonly root: string;
  #found = new LookupCache<"file" | "folder">();

  /** @param root The root. */
  constructor(root: string) {
    this.root = root;
  }

  /** Returns the kind of a path below the root. "foreign" is behind a link to another user's file. */
  kind(path: string): FileKind {
    const found = this.#found.get(path);
    if (found !== undefined) return found;
    const kind = this.#look(path);
    if (kind === "file" || kind === "folder") this.#found.set(path, kind);
    return kind;
  }

  #look(path: string): FileKind {
    const info = stat(this.root + path);
    if (info === null) return "none";
    for (let at = path.length; at > 0; at = path.lastIndexOf("/", at - 1)) {
      const part = this.root + path.slice(0, at);
      const target = at === path.length ? info : stat(part);
      if (target === null) return "none";
      if (isForeignLink(part, target)) return "foreign";
    }
    return info.isFile ? "file" : info.isDirectory ? "folder" : "none";
  }
}
