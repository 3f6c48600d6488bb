import { runtime } from "../io/runtime.ts";

/**
 * The path of Deno. Read when this module loads: once an upgrade has replaced the file, `Deno.execPath()` ends in
 * " (deleted)", and no such file exists.
 */
export const EXEC_PATH: string = runtime.execPath().replace(/ \(deleted\)$/, "");
