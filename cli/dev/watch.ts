import { logLine } from "../../io/log.ts";

/** Extensions of source files, rather than of files that a program writes. */
const SOURCE = /\.(?:[cm]?[jt]s|[jt]sx|html|css|wasm)$|(?:^|\/)deno\.jsonc?$/;
/** Folders whose files are not the app's own. */
const FOREIGN = /\/(?:\.[^/]*|node_modules)\//;
/** How long to wait for further changes: editors write a file in several steps. In milliseconds. */
const PAUSE = 100;
/** How often to look at a new folder while folders in it are removed. */
const ATTEMPTS = 5;

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
  /** The watchers of the root and of folders that were created since, each by the path of the topmost folder. */
  #watchers = new Map<string, Deno.FsWatcher>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(root: string, changed: (path: string) => void, cache: string) {
    this.#root = root;
    this.#changed = changed;
    this.#cache = cache;
    this.#open(this.#survey(root).folders);
  }

  /** Watches folders, of which the first contains the others. */
  #open(folders: string[]): void {
    const watcher = Deno.watchFs(folders, { recursive: false });
    // The old watcher is of a folder that was removed.
    this.#watchers.get(folders[0])?.close();
    this.#watchers.set(folders[0], watcher);
    this.#follow(watcher);
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
    for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
      const { folders, sources } = this.#survey(folder);
      try {
        this.#open(folders);
        if (sources.length > 0) this.#report(sources[0]);
        return;
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) {
          return logLine(`Cannot watch ${folder}: ${(error as Error).message}`);
        }
      }
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
