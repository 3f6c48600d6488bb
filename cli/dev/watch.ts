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
 * @param changed Called with the path of one of the files; the next call waits for it.
 * @returns A watch, which ends when it is disposed of.
 */
export function watchSources(
  folder: string,
  changed: (path: string) => Promise<void>,
): Disposable {
  const watcher = Deno.watchFs(folder);
  let path: string | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let calling: Promise<void> = Promise.resolve();

  async function call(): Promise<void> {
    if (path === undefined) return;
    const last = path;
    path = undefined;
    await changed(last);
  }

  (async () => {
    for await (const { kind, paths } of watcher) {
      const source = paths.find((path) => isSource(path.slice(folder.length)));
      if (kind === "access" || source === undefined) continue;
      path = source;
      clearTimeout(timer);
      timer = setTimeout(() => calling = calling.then(call), PAUSE);
    }
  })();
  return {
    [Symbol.dispose]() {
      clearTimeout(timer);
      watcher.close();
    },
  };
}
