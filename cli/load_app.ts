import { pathToFileURL } from "node:url";
import type { App } from "../bridge/app.ts";
import { isURL } from "./app_config.ts";
import { UsageError } from "./errors.ts";

/**
 * Imports the app of a module.
 *
 * @param module A path or a URL.
 * @param addresses The addresses that it is to be served on.
 * @throws {UsageError} If its default export is not an app.
 * @throws The error that the module throws.
 */
export async function loadApp(module: string, addresses: string[]): Promise<App> {
  const isPath = !isURL(module);
  if (isPath && await isMissing(module)) {
    throw new UsageError(`${module} does not exist. Name the app's module, as in: serve app.ts`);
  }
  const url = isPath ? pathToFileURL(module).href : module;
  const { default: app } = await import(url).catch(async (error) => {
    const { explainUnresolved } = await import("./load_failure.ts");
    throw await explainUnresolved(error, module, addresses) ?? error;
  });
  if (typeof app === "function" || typeof app?.fetch === "function") return app;
  throw new UsageError(
    `${module} must export an app as its default: a function of a Request, or an object with a fetch method. ` +
      `Its default export is ${app === undefined ? "missing" : `of type ${typeof app}`}.`,
  );
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
