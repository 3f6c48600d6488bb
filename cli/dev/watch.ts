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
 * @returns A watch, which ends when it is disposed of.
 */
export function watchSources(
  folder: string,
  changed: (path: string) => void,
): Disposable {
  const watcher = Deno.watchFs(folder);
  let timer: ReturnType<typeof setTimeout> | undefined;

  (async () => {
    for await (const { kind, paths } of watcher) {
      const source = paths.find((path) => isSource(path.slice(folder.length)));
      if (kind === "access" || source === undefined) continue;
      clearTimeout(timer);
      timer = setTimeout(() => changed(source), PAUSE);
    }
  })();
  return {
    [Symbol.dispose]() {
      clearTimeout(timer);
      watcher.close();
    },
  };
}
