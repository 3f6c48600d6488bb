import { dirname, join } from "node:path";
import { logLine } from "../../io/log.ts";

/** Extensions of source files, rather than of files that a program writes. */
const SOURCE = /\.(?:[cm]?[jt]s|[jt]sx|html|css|wasm)$|(?:^|\/)deno\.jsonc?$/;
/** Folders whose files are not the app's own. */
const FOREIGN = /\/(?:\.[^/]*|node_modules)\//;
/** How long to wait for further changes: editors write a file in several steps. In milliseconds. */
const PAUSE = 100;

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

/** A watcher of a folder. */
interface FolderWatch {
  watcher: Deno.FsWatcher;
  /** Resolves when it has been closed. */
  ended: Promise<void>;
}

/**
 * Watches a folder without the cache of Deno: `Deno.watchFs()` opens and closes each file that changes, by which this
 * process loses its locks on that file. The next process that opens the cache then truncates a file that this one has
 * mapped, and this one ends with SIGBUS. So a folder with the cache in it is not watched recursively, but the folders in it
 * are, each by itself.
 */
class SourceWatch implements Disposable {
  #root: string;
  #changed: (path: string) => void;
  #cache: string;
  #watches = new Map<string, FolderWatch>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(root: string, changed: (path: string) => void, cache: string) {
    this.#root = root;
    this.#changed = changed;
    this.#cache = cache;
    this.#watch(root);
  }

  #watch(folder: string): void {
    const hasCache = this.#cache.startsWith(join(folder, "/"));
    const watcher = Deno.watchFs(folder, { recursive: !hasCache });
    const ended = this.#follow(watcher, hasCache ? folder : undefined);
    this.#watches.set(folder, { watcher, ended });
    if (!hasCache) return;
    for (const { name, isDirectory } of Deno.readDirSync(folder)) {
      if (isDirectory) this.#watchBelow(join(folder, name));
    }
  }

  /** Watches a folder in one with the cache, unless its files are not the app's own. */
  #watchBelow(folder: string): void {
    const isForeign = folder === this.#cache || FOREIGN.test(`${folder.slice(this.#root.length)}/`);
    if (isForeign || !isFolder(folder)) return;
    try {
      this.#watch(folder);
    } catch (error) {
      if (isFolder(folder)) logLine(`Cannot watch ${folder}: ${(error as Error).message}`);
    }
  }

  /** @param parent The folder that is watched if the folders in it are watched by themselves. */
  async #follow(watcher: Deno.FsWatcher, parent?: string): Promise<void> {
    for await (const { kind, paths } of watcher) {
      if (kind === "access") continue;
      const source = paths.find((path) => isSource(path.slice(this.#root.length)));
      if (source !== undefined) this.#report(source);
      if (kind === "modify") continue;
      for (const path of paths) {
        if (dirname(path) !== parent) continue;
        await this.#close(path);
        this.#watchBelow(path);
      }
    }
  }

  #report(source: string): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#changed(source), PAUSE);
  }

  /** Stops watching a folder that was removed or renamed. Until that has ended, Deno does not watch a new one of its name. */
  async #close(folder: string): Promise<void> {
    const watch = this.#watches.get(folder);
    if (watch === undefined) return;
    this.#watches.delete(folder);
    watch.watcher.close();
    await watch.ended;
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    for (const { watcher } of this.#watches.values()) watcher.close();
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
