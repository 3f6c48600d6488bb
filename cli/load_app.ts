import { pathToFileURL } from "node:url";
import type { App } from "../bridge/app.ts";
import { logLine } from "../io/log.ts";
import { isURL } from "./app_config.ts";
import { UsageError } from "./errors.ts";
import { OwnServers } from "./own_servers.ts";

/** What a module exports. */
export type Exports = Record<string, unknown>;

/** Where `serve()` of any version of this package looks for a command line that loads its module: see mod.ts. */
const LOADER: unique symbol = Symbol.for("@gatehouse/cgi loader");

/**
 * Imports the app of a module.
 *
 * @param module A path or a URL.
 * @param addresses The addresses that it is to be served on.
 * @throws {UsageError} If its default export is not an app. The message says what to write.
 * @throws The error that the module throws.
 */
export async function loadApp(module: string, addresses: string[]): Promise<App> {
  const isPath = !isURL(module);
  if (isPath && await isMissing(module)) {
    throw new UsageError(`${module} does not exist. Name the app's module, as in: serve app.ts`);
  }
  const url = isPath ? pathToFileURL(module).href : module;
  using servers = new OwnServers();
  using served = refuseServe(module);
  let exports: Exports | undefined;
  try {
    const loading: Promise<Exports> = import(url);
    if (await servers.hasLoaded(loading)) exports = await loading;
  } catch (error) {
    if (servers.failedWith(error)) exports = {};
    else {
      const { explainUnresolved } = await import("./load_failure.ts");
      throw await explainUnresolved(error, module, addresses) ?? error;
    }
  }
  const { isApp, explainExports } = await import("./exports.ts");
  const app = exports?.default;
  if (!isApp(app, servers.started)) {
    if (served.refusal !== undefined) throw served.refusal;
    await servers.settle();
    throw new UsageError(explainExports(module, exports, servers.started));
  }
  const { started } = servers;
  if (started.length > 0) logLine(`${module} also listens by itself, with ${started.join(", ")}`);
  return app;
}

/**
 * Has `serve()` throw while a module is loaded, and afterwards do nothing: in this process the module's app is served as
 * the command line says.
 */
function refuseServe(module: string): Disposable & { refusal?: UsageError } {
  const refusal = new UsageError(
    `${module} calls serve() itself, so this command cannot serve its app. Instead of serve(app), write:

  export default app;
  if (import.meta.main) await serve(app);`,
  );
  const global = globalThis as { [LOADER]?: () => Promise<void> };
  // The event may come when the module is loaded.
  globalThis.addEventListener("unhandledrejection", (event) => {
    if (event.reason === refusal) event.preventDefault();
  });
  const state: Disposable & { refusal?: UsageError } = {
    [Symbol.dispose]() {
      global[LOADER] = () => {
        logLine(`${module} calls serve() itself, which has no effect under this command`);
        return new Promise(() => {});
      };
    },
  };
  global[LOADER] = () => {
    state.refusal = refusal;
    throw refusal;
  };
  return state;
}

async function isMissing(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return false;
  } catch (error) {
    // Without --allow-read, import() reports a missing file.
    return error instanceof Deno.errors.NotFound;
  }
}
