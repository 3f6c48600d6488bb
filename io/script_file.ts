/** A script that may be run. */
export interface ScriptFile {
  /** The path of the file, with symbolic links unresolved. */
  file: string;
  /** The number of path segments that name the file. */
  taken: number;
  /** Whether the file is the index of a folder and the path lacks its final slash. */
  needsSlash: boolean;
}

/** The reason why no script may be run. */
export interface ScriptRefusal {
  /** The HTTP status of the response. */
  status: 403 | 404;
  /** The reason, for the log. */
  reason: string;
}

/** Rules for files that may be run. */
export interface ScriptRules {
  /** Names of a folder's index script, in order of preference. */
  index: string[];
  /** Endings of the names of files that may be run; undefined for any. */
  extensions: string[] | undefined;
  /** Whether a file needs its executable bit. */
  needsRunBit(file: string): boolean;
}

const WORLD_WRITABLE = 0o002;
const EXECUTABLE = 0o111;

/** Resolves a path against the working directory. */
export function absolutePath(path: string): string {
  return path.startsWith("/") ? path : `${Deno.cwd()}/${path}`;
}

/**
 * Finds the script that a path names: its first segments up to a file, or the index of the folder that all of them
 * name. Checks whether it may be run.
 */
export async function findScript(
  root: string,
  names: Iterable<string>,
  rules: ScriptRules,
): Promise<ScriptFile | ScriptRefusal> {
  let path = root.replace(/\/+$/, "");
  let taken = 0;
  let folder = false;
  for (const name of names) {
    taken++;
    if (folder) return missing(`${path}/ has an empty name`);
    folder = name === "";
    if (folder) continue;
    if (name.startsWith(".")) return missing(`${path}/${name} begins with a dot`);
    path += `/${name}`;
    const info = await stat(path);
    if (info === null) return missing(`${path} does not exist`);
    if (!info.isDirectory) return await checkScript(root, path, taken, rules);
  }
  for (const name of rules.index) {
    if (await stat(`${path}/${name}`) !== null) {
      const found = await checkScript(root, `${path}/${name}`, taken, rules);
      return "file" in found ? { ...found, needsSlash: !folder } : found;
    }
  }
  return missing(`${path} is a folder`);
}

/**
 * Checks that a file may be run: a regular file inside the root that, like its folder, is not writable by all users.
 */
export async function checkScript(
  root: string,
  file: string,
  taken: number,
  rules: ScriptRules,
): Promise<ScriptFile | ScriptRefusal> {
  const info = await stat(file);
  if (info === null) return missing(`${file} does not exist`);
  const real = await Deno.realPath(file);
  if (!real.startsWith((await Deno.realPath(root)).replace(/\/*$/, "/"))) {
    return missing(`${file} is outside ${root}`);
  }
  if (!info.isFile) return refused(`${file} is not a regular file`);
  if (rules.extensions !== undefined && !rules.extensions.some((end) => file.endsWith(end))) {
    return refused(`${file} must end in ${rules.extensions.join(", ")}`);
  }
  const folder = await Deno.stat(real.slice(0, real.lastIndexOf("/")) || "/");
  if ((info.mode ?? 0) & WORLD_WRITABLE) return refused(`${file} is writable by all users`);
  if ((folder.mode ?? 0) & WORLD_WRITABLE) {
    return refused(`the folder of ${file} is writable by all users`);
  }
  if (info.mode !== null && !(info.mode & EXECUTABLE) && rules.needsRunBit(file)) {
    return refused(`${file} is not executable`);
  }
  return { file, taken, needsSlash: false };
}

async function stat(path: string): Promise<Deno.FileInfo | null> {
  try {
    return await Deno.stat(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    return null;
  }
}

function missing(reason: string): ScriptRefusal {
  return { status: 404, reason };
}

function refused(reason: string): ScriptRefusal {
  return { status: 403, reason };
}

/** How long a file that was found is taken to be there, in milliseconds. */
const FRESH = 1000;
/** The number of files that are remembered. */
const MAX_REMEMBERED = 1000;

/** Tells whether paths are regular files or folders inside a root. Remembers those that are, for a second. */
export class FileKinds {
  /** The root, an absolute path without a slash at its end. */
  readonly root: string;
  #found = new Map<string, "file" | "folder">();
  #since = 0;

  /** @param root The root. */
  constructor(root: string) {
    this.root = root;
  }

  /** Returns whether a path is a regular file or a folder inside the root. */
  kind(path: string): "file" | "folder" | Promise<"file" | "folder" | "none"> {
    const now = performance.now();
    if (now - this.#since > FRESH || this.#found.size >= MAX_REMEMBERED) {
      this.#found.clear();
      this.#since = now;
    }
    return this.#found.get(path) ?? this.#look(path);
  }

  async #look(path: string): Promise<"file" | "folder" | "none"> {
    const info = await stat(path);
    if (info === null || !info.isFile && !info.isDirectory) return "none";
    const real = await Deno.realPath(path) + "/";
    if (!real.startsWith((await Deno.realPath(this.root || "/")).replace(/\/*$/, "/"))) {
      return "none";
    }
    const kind = info.isFile ? "file" : "folder";
    this.#found.set(path, kind);
    return kind;
  }
}
