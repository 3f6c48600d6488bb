import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { App } from "../bridge/app.ts";
import { describeError } from "../io/describe.ts";
import { shellQuote } from "../debug/shell_command.ts";
import { logLine } from "../io/log.ts";
import { isURL } from "./app_config.ts";
import { Failure, UsageError } from "./errors.ts";
import type { Exports } from "./exports.ts";
import { OwnServers } from "./own_servers.ts";

/** Where `serve()` of any version of this package looks for a command line that loads its module: see mod.ts. */
const LOADER: unique symbol = Symbol.for("@gatehouse/cgi loader");

/**
 * Imports the app of a module.
 *
 * @param module A path or a URL.
 * @param addresses The addresses that it is to be served on.
 * @throws {UsageError} If it exports no app. The message says what to write.
 * @throws The error that the module throws.
 */
export async function loadApp(module: string, addresses: string[]): Promise<App> {
  const isPath = !isURL(module);
  if (isPath) await checkFile(module);
  const url = isPath ? pathToFileURL(module).href : module;
  using servers = new OwnServers();
  using served = refuseServe(module);
  let exports: Exports | undefined;
  try {
    const loading: Promise<Exports> = import(url);
    if (await servers.hasLoaded(loading)) exports = await loading;
  } catch (error) {
    if (servers.failedWith(error)) exports = {};
    else throw await explainFailure(error, module, addresses);
  }
  const { appOf, explainExports } = await import("./exports.ts");
  const app = exports && appOf(exports, servers.started);
  if (app === undefined) {
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
  const global = globalThis as { [LOADER]?: (app: App) => Promise<void> };
  const state: Disposable & { refusal?: UsageError } = {
    [Symbol.dispose]() {
      global[LOADER] = () => {
        logLine(`${module} calls serve() itself, which has no effect under this command`);
        return new Promise(() => {});
      };
    },
  };
  global[LOADER] = (app) => {
    // With an object as default, Deno writes a hint about "deno serve" to the log of each CGI request.
    const exported = Object.hasOwn(app, "fetch") ? "app.fetch" : "app";
    throw state.refusal ??= new UsageError(
      `${module} calls serve() itself, so this command cannot serve its app. Instead of serve(app), write:

  export default ${exported};
  if (import.meta.main) await serve(app);`,
    );
  };
  // The event may come when the module is loaded.
  globalThis.addEventListener("unhandledrejection", (event) => {
    if (event.reason === state.refusal) event.preventDefault();
  });
  return state;
}

/** Returns what to throw for an error of `import()`. */
async function explainFailure(
  error: unknown,
  module: string,
  addresses: string[],
): Promise<unknown> {
  const { explainUnresolved } = await import("./load_failure.ts");
  const { explainDeniedImport } = await import("./denied.ts");
  const explained = explainDeniedImport(error, module) ??
    await explainUnresolved(error, module, addresses);
  // If Deno denies access to the app itself, the stack shows where.
  const isDenied = error instanceof Deno.errors.NotCapable;
  return explained ?? (isDenied ? new Failure(describeError(error), { cause: error }) : error);
}

/** @throws {UsageError} If the path is not that of a file. */
async function checkFile(path: string): Promise<void> {
  let info: Deno.FileInfo;
  try {
    info = await Deno.stat(path);
  } catch (error) {
    // Without --allow-read, import() fails.
    if (!(error instanceof Deno.errors.NotFound)) return;
    throw new UsageError(`${path} does not exist. Name the app's module, as in: serve app.ts`);
  }
  if (!info.isDirectory) return;
  throw new UsageError(
    `${path} is a folder. Name the app's module in it, as in: serve ${
      shellQuote(join(path, "app.ts"))
    }. For a folder of CGI scripts: dev ${shellQuote(path)}`,
  );
}
