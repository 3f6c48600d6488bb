/** The version of the package, as in deno.json. */
export const VERSION = "0.2.0";
/** The command line, as `deno run` takes it. */
export const SPECIFIER: string = `jsr:@gatehouse/cgi@${VERSION.split(".", 2).join(".")}/cli`;
/** The address of the command line's own module. */
export const MODULE: string = new URL("../cli.ts", import.meta.url).href;
