/**
 * The path of Deno. Read when this module loads: once a package upgrade replaces the file, `Deno.execPath()` ends in
 * " (deleted)" and names nothing.
 */
export const EXEC_PATH: string = Deno.execPath().replace(/ \(deleted\)$/, "");
