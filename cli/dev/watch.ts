/** Files that a program is made of, not those that it may write. */
const SOURCE = /\.(?:[cm]?[jt]s|[jt]sx|html|css|wasm)$|(?:^|\/)deno\.jsonc?$/;
/** Folders of other programs' files. */
const FOREIGN = /\/(?:\.[^/]*|node_modules)\//;
/** How long to wait for further changes: editors write a file in several steps. In milliseconds. */
const PAUSE = 100;

/** Whether a program must be loaded again when a file of this path has changed. */
export function isSource(path: string): boolean {
  return SOURCE.test(path) && !FOREIGN.test(path);
}

/**
 * Calls back when source files in a folder have changed, once for changes that come together.
 *
 * @param changed Called with the path of one of the files; the next call waits for it.
 * @returns Ends the watch when it is disposed of.
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
