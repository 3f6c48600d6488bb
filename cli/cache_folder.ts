import { resolve } from "node:path";
import { grantedVariable } from "../io/environment.ts";

/** Returns the path of the folder in which Deno caches modules. Requests no permission. */
export function cacheFolder(home: string): string {
  const caches = Deno.build.os === "darwin" ? "Library/Caches" : ".cache";
  return resolve(
    grantedVariable("DENO_DIR") ??
      `${grantedVariable("XDG_CACHE_HOME") ?? `${home}/${caches}`}/deno`,
  );
}
