/**
 * The path of Deno. Read when this module loads: once an upgrade has replaced the file, `Deno.execPath()` ends in
 * " (deleted)", and no such file exists.
 */
export const EXEC_PATH: string = Deno.execPath().replace(/ \(deleted\)$/, "");
