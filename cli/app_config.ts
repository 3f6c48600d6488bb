/**
 * Finds the config of an app. Deno itself looks for it beside a main module that is a file only, and the main module
 * of `deno run jsr:@gatehouse/cgi@0.3/cli serve app.ts` is not one.
 *
 * @module
 */

import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { grantedVariable } from "../io/environment.ts";

/** The file that says what the imports of an app mean. */
export interface AppConfig {
  /** Its path: a deno.json, deno.jsonc or package.json. */
  path: string;
  /** The flags with which `deno run` uses it, from whichever folder. */
  flags: string[];
  /** The folder of its project: its own, or that of the workspace that it belongs to. */
  folder: string;
  /** The lock file of its project, if there is one. */
  lock?: string;
}

const DENO = ["deno.json", "deno.jsonc"];
const NODE = "package.json";
/** How a config says that it is the root of a workspace. */
const WORKSPACE = /"workspaces?"\s*:/;
/** Matches the strings and comments of JSON with comments. */
const STRING_OR_COMMENT = /("(?:\\.|[^"\\])*")|\/\/[^\n]*|\/\*[^]*?\*\//g;
/** Matches the strings of JSON, and a comma at the end of a list. */
const STRING_OR_LAST_COMMA = /("(?:\\.|[^"\\])*")|,(?=\s*[\]}])/g;

/**
 * Finds the config that `deno run MODULE` uses: for a file the nearest one above it, for a package the nearest one of
 * the working folder.
 *
 * @param module A path or a URL.
 * @returns undefined if there is none.
 * @throws {Deno.errors.NotCapable} If this process may not look for it. Does not prompt.
 */
export function findConfig(module: string): AppConfig | undefined {
  const file = /^(?:jsr|npm):/.test(module) ? resolve("main.ts") : pathOf(module);
  if (file === undefined) return undefined;
  const names = isPackageJSONIgnored() ? DENO : [...DENO, NODE];
  for (const folder of foldersOf(file)) {
    const path = names.map((name) => join(folder, name)).find(isFile);
    if (path === undefined) continue;
    const roots = workspacesOf(path);
    return {
      path,
      flags: flagsOf(path),
      folder: dirname(roots.at(-1) ?? path),
      lock: lockOf([path, ...roots]),
    };
  }
  return undefined;
}

/** Returns the path of a module that is a file. */
export function pathOf(module: string): string | undefined {
  if (module.startsWith("file:")) return fileURLToPath(module);
  return isURL(module) ? undefined : resolve(module);
}

/** Returns whether a module is named by a URL rather than a path. */
export function isURL(module: string): boolean {
  return /^[a-z][a-z0-9+.-]+:/i.test(module);
}

/** Parses JSON with comments, as in deno.jsonc. Returns null if it is invalid: Deno reports that. */
export function parseConfig(text: string): Record<string, unknown> | null {
  try {
    const json = text.replaceAll(STRING_OR_COMMENT, (_, string = " ") => string)
      .replaceAll(STRING_OR_LAST_COMMA, (_, string = "") => string);
    return JSON.parse(json);
  } catch {
    return null;
  }
}

/** Returns the folders above a file, from the nearest to the root. */
function foldersOf(file: string): string[] {
  const folder = dirname(file);
  return folder === file ? [] : [folder, ...foldersOf(folder)];
}

function flagsOf(config: string): string[] {
  if (basename(config) !== NODE) return [`--config=${config}`];
  // Deno takes no package.json by a flag. With these it resolves what one beside a main module would.
  const isCommonJS = parseConfig(read(config))?.type === "commonjs";
  return ["--node-modules-dir=manual", ...(isCommonJS ? ["--unstable-detect-cjs"] : [])];
}

/** Returns the configs above one that are the root of a workspace, as far as this process may look. */
function workspacesOf(config: string): string[] {
  return foldersOf(dirname(config))
    .flatMap((folder) => [...DENO, NODE].map((name) => join(folder, name)))
    .filter((path) => WORKSPACE.test(read(path)));
}

/** Returns the lock file that the first of some configs has, as far as this process may look. */
function lockOf(configs: string[]): string | undefined {
  for (const config of configs) {
    const lock = parseConfig(read(config))?.lock as
      | boolean
      | string
      | { path?: string }
      | undefined;
    if (lock === false) return undefined;
    const name = typeof lock === "object" ? lock.path : lock;
    const file = resolve(dirname(config), typeof name === "string" ? name : "deno.lock");
    if (mayRead(file) && isFile(file)) return file;
  }
  return undefined;
}

function isPackageJSONIgnored(): boolean {
  return grantedVariable("DENO_NO_PACKAGE_JSON") !== undefined;
}

function isFile(path: string): boolean {
  if (!mayRead(path)) throw new Deno.errors.NotCapable(`Requires read access to "${path}"`);
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

/** Returns the text of a file, or "" if it cannot be read. */
function read(path: string): string {
  try {
    return mayRead(path) ? Deno.readTextFileSync(path) : "";
  } catch {
    return "";
  }
}

/** Returns whether reading a file would neither fail nor prompt. */
function mayRead(path: string): boolean {
  return Deno.permissions.querySync({ name: "read", path }).state === "granted";
}
