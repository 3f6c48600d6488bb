/**
 * Writes into docs/servers.md what `config` of the command line prints: a block of code that begins with
 * "```nginx config nginx --protocol scgi" has what `config nginx --protocol scgi` prints.
 *
 * @module
 */

import { Arguments } from "../cli/arguments.ts";
import { createConfiguration, usage } from "../cli/config.ts";

const BLOCK = /^(```\w+ config (.+)\n)[^]*?^```$/gm;

/** The page with the configurations. */
export const PAGE: URL = new URL("../docs/servers.md", import.meta.url);

/** Returns a page with its configurations as they are now. */
export function writeConfigurations(page: string): string {
  return page.replaceAll(BLOCK, (_, head: string, args: string) => {
    const text = createConfiguration(Arguments.parse(usage, args.split(" ")));
    return `${head}${text.replaceAll(Deno.execPath(), "/usr/bin/deno").trimEnd()}\n\`\`\``;
  });
}

if (import.meta.main) {
  await Deno.writeTextFile(PAGE, writeConfigurations(await Deno.readTextFile(PAGE)));
}
