import { pathToFileURL } from "node:url";
import type { App } from "../bridge/app.ts";
import { UsageError } from "./errors.ts";

/**
 * Imports the app of a module.
 *
 * @param module A path or a URL.
 * @throws {UsageError} If its default export is not an app.
 * @throws The error that the module throws.
 */
export async function loadApp(module: string): Promise<App> {
  const isPath = !/^[a-z][a-z0-9+.-]+:/i.test(module);
  if (isPath && await isMissing(module)) {
    throw new UsageError(`${module} does not exist. Name the app's module, as in: serve app.ts`);
  }
  const app = (await import(isPath ? pathToFileURL(module).href : module)).default;
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
