import { logLine } from "../../io/log.ts";

/** Extensions of source files, rather than of files that a program writes. */
const SOURCE = /\.(?:[cm]?[jt]s|[jt]sx|html|css|wasm)$|(?:^|\/)deno\.jsonc?$/;
/** Folders whose files are not the app's own. */
const FOREIGN = /\/(?:\.[^/]*|node_modules)\//;
/** How long to wait for further changes: editors write a file in several steps. In milliseconds. */
const PAUSE = 100;
/** How often to try while folders are removed. */
const ATTEMPTS = 20;

/** Returns whether a change of this file requires a reload. */
export function isSource(path: string): boolean {
  return SOURCE.test(path) && !FOREIGN.test(path);
}

/**
 * Calls back when source files in a folder change, once for changes in quick succession.
 *
 * @param changed Called with the path of one of the files.
 * @param cache The folder in which Deno caches modules.
 * @returns A watch, which ends when it is disposed of.
 */
export function watchSources(
  root: string,
  changed: (path: string) => void,
  cache = "",
): Disposable {
  return new SourceWatch(root, changed, realPath(cache));
}

/**
 * Watches each folder by itself rather than the root recursively, so as to leave out the cache of Deno: `Deno.watchFs()`
 * opens and closes each file that changes, by which this process loses its locks on that file. The next process that
 * opens the cache then truncates a file that this one has mapped, and this one ends with SIGBUS.
 */
class SourceWatch implements Disposable {
  #root: string;
  #changed: (path: string) => void;
  #cache: string;
  /** The watchers of the root and of folders created since, each with the folders below it. */
  #watchers = new Map<string, Deno.FsWatcher>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(root: string, changed: (path: string) => void, cache: string) {
    this.#root = root;
    this.#changed = changed;
    this.#cache = cache;
    this.#watch(root);
  }

  /** Watches a folder and those below it. @returns Its source files. */
  #watch(folder: string): string[] {
    for (let attempt = 1;; attempt++) {
      const { folders, sources } = this.#survey(folder);
      try {
        const watcher = Deno.watchFs(folders, { recursive: false });
        // The old watcher is of a folder that was removed.
        this.#watchers.get(folder)?.close();
        this.#watchers.set(folder, watcher);
        this.#follow(watcher);
        return sources;
      } catch (error) {
        const isRemoved = error instanceof Deno.errors.NotFound;
        if (!isRemoved || attempt === ATTEMPTS || !isFolder(folder)) throw error;
      }
    }
  }

  async #follow(watcher: Deno.FsWatcher): Promise<void> {
    for await (const { kind, paths } of watcher) {
      if (kind === "access") continue;
      const source = paths.find((path) => isSource(path.slice(this.#root.length)));
      if (source !== undefined) this.#report(source);
      if (kind === "modify") continue;
      for (const path of paths) {
        if (kind !== "remove" && isFolder(path)) {
          if (this.#isOwn(path)) this.#add(path);
        } else this.#forget(path);
      }
    }
  }

  #report(source: string): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#changed(source), PAUSE);
  }

  /** Watches a folder that was created. What it has already has changed, too. */
  #add(folder: string): void {
    try {
      const [source] = this.#watch(folder);
      if (source !== undefined) this.#report(source);
    } catch (error) {
      if (isFolder(folder)) logLine(`Cannot watch ${folder}: ${(error as Error).message}`);
    }
  }

  #forget(folder: string): void {
    for (const [path, watcher] of this.#watchers) {
      if (path !== folder && !path.startsWith(`${folder}/`)) continue;
      this.#watchers.delete(path);
      watcher.close();
    }
  }

  #isOwn(folder: string): boolean {
    return folder !== this.#cache && !FOREIGN.test(`${folder.slice(this.#root.length)}/`);
  }

  /** Returns a folder with the app's own folders below it that can be read, and their source files. */
  #survey(top: string): { folders: string[]; sources: string[] } {
    const folders = [top];
    const sources: string[] = [];
    const visit = (entries: Deno.DirEntry[] = [], folder: string) => {
      for (const { name, isDirectory } of entries) {
        const path = `${folder}/${name}`;
        if (isDirectory && this.#isOwn(path)) {
          const below = entriesOf(path);
          if (below === undefined) continue;
          folders.push(path);
          visit(below, path);
        } else if (!isDirectory && isSource(path.slice(this.#root.length))) sources.push(path);
      }
    };
    visit(entriesOf(top), top);
    return { folders, sources };
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    for (const watcher of this.#watchers.values()) watcher.close();
  }
}

/** Returns what a folder has; undefined if it cannot be read, or is removed meanwhile. */
function entriesOf(folder: string): Deno.DirEntry[] | undefined {
  try {
    return [...Deno.readDirSync(folder)];
  } catch {
    return undefined;
  }
}

function isFolder(path: string): boolean {
  try {
    return Deno.lstatSync(path).isDirectory;
  } catch {
    return false;
  }
}

function realPath(path: string): string {
  try {
    return Deno.realPathSync(path);
  } catch {
    return path;
  }
}
