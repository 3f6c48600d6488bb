/**
 * Why an app cannot be imported: Deno does not use its config.
 *
 * @module
 */

import { resolve } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { shellQuote } from "../debug/shell_command.ts";
import { type AppConfig, findConfig, pathOf } from "./app_config.ts";
import {
  lookAround,
  splitConfig,
  type Surroundings,
  wholePermissions,
  withConfig,
} from "./child_command.ts";
import { Failure } from "./errors.ts";
import { MODULE, SPECIFIER } from "./version.ts";

/** The messages of Deno for an import that it cannot resolve. */
const UNRESOLVED =
  /not a dependency|Could not find a matching package|Relative import path|Cannot find (?:module|package)/;
/** What a CommonJS module throws if Deno does not know the package.json that says so. */
const COMMONJS = /^(?:require|module|exports) is not defined/;

/**
 * Explains an import that Deno cannot resolve, perhaps because it does not use the config of the app.
 *
 * @param addresses The addresses that the app is to be served on.
 * @returns undefined if the error is another one.
 */
export async function explainUnresolved(
  error: unknown,
  module: string,
  addresses: string[],
): Promise<Failure | undefined> {
  if (!(error instanceof Error)) return undefined;
  const isUnresolved = UNRESOLVED.test(error.message);
  if (!isUnresolved && !COMMONJS.test(error.message)) return undefined;
  const surroundings = await look(module);
  const { app } = surroundings;
  const cannot = `Cannot load ${module}: ${error.message}`;
  if (app === undefined || isUsed(app, surroundings)) {
    return isUnresolved ? new Failure(cannot, { cause: error }) : undefined;
  }
  // Deno's hint is to add what the config has already.
  const reason = cannot.replaceAll(/\n *hint:.*/g, "");
  const text = advice(module, app, surroundings, addresses);
  return new Failure(`${reason}\n${text}`, { cause: error });
}

/** Finds the configs, if this process may. */
async function look(module: string): Promise<Surroundings> {
  const run = { name: "run", command: Deno.execPath() } as const;
  try {
    if (Deno.permissions.querySync(run).state === "granted") return await lookAround(module);
    return { app: findConfig(module), own: findConfig("jsr:") };
  } catch {
    return {};
  }
}

/** Returns whether this process has a config. */
function isUsed(app: AppConfig, { flags = [], own }: Surroundings): boolean {
  const { named } = splitConfig(flags);
  // The members of a workspace share that of its root.
  if (named !== undefined) return [app.path, `${app.folder}/deno.json`].includes(resolve(named));
  if (app.flags.every((flag) => flags.includes(flag))) return true;
  return !Deno.mainModule.startsWith("file:") && own?.folder === app.folder;
}

function advice(
  module: string,
  app: AppConfig,
  surroundings: Surroundings,
  addresses: string[],
): string {
  const [flag] = app.flags;
  const unused = `Deno does not use ${app.path} here`;
  // A worker, or the app of dev.
  if (process.send !== undefined) return `${unused}. Add ${flag} to the flags of its "deno run"`;
  const given = surroundings.flags ?? likelyFlags(module, app, addresses);
  const { flags, config } = withConfig(given, surroundings);
  if (config === undefined) return `${unused}. Type ${flag} instead of the other config`;
  const main = MODULE.startsWith("file:") ? fileURLToPath(MODULE) : SPECIFIER;
  const words = ["deno", "run", ...flags, main, ...Deno.args];
  const more = surroundings.flags === undefined ? ", with the other permissions of the app" : "";
  return `${unused}: it looks in the working folder, and nowhere for an installed command. Type${more}:\n\n  ${
    words.map(shellQuote).join(" ")
  }`;
}

/** Returns flags for the permissions that this process has, as far as it can learn them. */
function likelyFlags(module: string, { folder }: AppConfig, addresses: string[]): string[] {
  const whole = wholePermissions();
  const path = pathOf(module);
  const hosts = addresses.filter((address) => /:\d+$/.test(address)).filter((host) =>
    Deno.permissions.querySync({ name: "net", host }).state === "granted"
  );
  const parts = [
    path === undefined ? "" : `--allow-read=${folder}`,
    hosts.length === 0 ? "" : `--allow-net=${hosts.join()}`,
  ];
  return [
    ...whole,
    ...parts.filter((part) => part !== "" && !whole.includes(part.replace(/=.*/s, ""))),
  ];
}
