/** The version of the package, as in deno.json. */
export const VERSION = "0.3.0";
/** The package, as a lock file names it. */
export const PACKAGE: string = `@gatehouse/cgi@${VERSION}`;
/** The specifier of the command line, for `deno run`. */
export const SPECIFIER: string = `jsr:@gatehouse/cgi@${VERSION.split(".", 2).join(".")}/cli`;
/** The URL of the module of the command line. */
export const MODULE: string = new URL("../cli.ts", import.meta.url).href;
