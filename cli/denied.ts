import { dirname } from "node:path";
import { shellQuote } from "../debug/shell_command.ts";
import type { Usage } from "./arguments.ts";
import { Failure } from "./errors.ts";

/** The message of an error of Deno's permissions: the kind of access, what it is to, and the flag. */
const DENIED =
  /^Requires (\w+) access(?: to (?:"(.*?)"|[^,]*))?, run again with the (--allow-\w+) flag/s;

/**
 * Explains that a command lacks a permission.
 *
 * @returns undefined for other errors.
 */
export function explainDenied(error: unknown, { example }: Usage): Failure | undefined {
  if (!(error instanceof Deno.errors.NotCapable)) return undefined;
  const denied = parse(error.message);
  if (denied === undefined) return undefined;
  const { access, what, flag } = denied;
  const value = what === undefined ? flag : `${flag}=${what}`;
  return new Failure(
    `Deno denies ${access} access${what === undefined ? "" : ` to ${JSON.stringify(what)}`}. Type ${
      shellQuote(value)
    } after "deno run", as in:\n\n${example.replaceAll(/^/gm, "  ")}`,
    { cause: error },
  );
}

/**
 * Explains that an app may not be imported.
 *
 * @returns undefined for other errors.
 */
export function explainDeniedImport(error: unknown, module: string): Failure | undefined {
  // Deno throws this TypeError, and NotCapable for what the app itself does.
  const denied = error instanceof TypeError ? parse(error.message) : undefined;
  if (denied?.what === undefined) return undefined;
  const { access, what, flag } = denied;
  const value = access === "read" ? dirname(what) : what;
  return new Failure(
    `Cannot load ${module} as Deno denies ${access} access to ${JSON.stringify(what)}. Type ${
      shellQuote(`${flag}=${value}`)
    } after "deno run"`,
    { cause: error },
  );
}

function parse(message: string): { access: string; what?: string; flag: string } | undefined {
  const [, access, what, flag] = DENIED.exec(message) ?? [];
  return access === undefined ? undefined : { access, what, flag };
}
