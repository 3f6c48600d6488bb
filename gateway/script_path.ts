/**
 * The path of a URL -> SCRIPT_NAME and PATH_INFO. Rules are those of docs/protocols.md.
 *
 * @module
 */

import { isASCII, toByteString, toText } from "../wire/byte_string.ts";
import { ProtocolError } from "../wire/protocol_error.ts";
import { decodePercent } from "../bridge/request.ts";
import { DEFAULTS, type GatewayOptions } from "./options.ts";

/** A path, split where the script's name ends. Both parts are decoded byte strings. */
export interface ScriptPath {
  /** SCRIPT_NAME. */
  scriptName: string;
  /** PATH_INFO. */
  pathInfo: string;
}

/** Options of {@linkcode splitScript} (A16). */
export interface SplitOptions {
  /** Endings of scripts' names. */
  split: string[];
  /** The name of a folder's index script, or "" for none. */
  index: string;
}

/**
 * Decodes a path, once.
 *
 * @param pathname The path of a URL.
 * @throws {ProtocolError} If the path has a NUL, which would end a C string or an SCGI header, or a ".." segment (F14).
 */
export function decodeTarget(pathname: string): string {
  const path = decodePercent(pathname);
  if (path.includes("\0")) throw badPath("no NUL", pathname);
  if (/(?:^|[/\\])\.\.(?:[/\\]|$)/.test(path)) throw badPath('no ".." segment', pathname);
  return path;
}

/** The path that a gateway is mounted at. */
export interface BasePath {
  /** How SCRIPT_NAME begins: a decoded byte string. */
  name: string;
  /** How the paths of URLs begin. The same path in another encoding does not match, as in the program around the gateway. */
  path: string;
}

/**
 * Reads the option `basePath`, or `prefix`, which is its former name. A slash at its end does not count.
 *
 * @throws {TypeError} If it is not a path, or both are set.
 */
export function readBasePath(options: Pick<GatewayOptions, "basePath" | "prefix">): BasePath {
  if (options.basePath !== undefined && options.prefix !== undefined) {
    throw new TypeError(
      "Cannot create a gateway as prefix is the former name of basePath: both are set",
    );
  }
  const given = options.basePath ?? options.prefix ?? DEFAULTS.basePath;
  const text = given.replace(/\/$/, "");
  if (!/^(?:\/(?!\.\.?(?:\/|$))[^/\p{Cc}]+)*$/u.test(text)) {
    throw new TypeError(
      `Cannot create a gateway as its basePath must be a path such as "/cgi-bin": current value is ${
        JSON.stringify(given)
      }`,
    );
  }
  const { pathname } = new URL(
    "http://localhost" + text.replace(/[%?#\\]/g, encodeURIComponent),
  );
  return { name: toByteString(text), path: text === "" ? "" : pathname };
}

/**
 * Removes the base path from the path of a URL. It must end where a segment ends.
 *
 * @returns The rest, which is encoded, or undefined if the path is not below the base path.
 * @throws {ProtocolError} If the path has a NUL or a ".." segment (F14).
 */
export function pathBelow(pathname: string, base: BasePath): string | undefined {
  decodeTarget(pathname);
  if (!pathname.startsWith(base.path)) return undefined;
  const rest = pathname.slice(base.path.length);
  return rest === "" || rest.startsWith("/") ? rest : undefined;
}

/**
 * Merges the doubled slashes before and in a script's name, and leaves those of PATH_INFO.
 *
 * @param pathname The path of a URL.
 * @param script The script that the path names if all of its slashes are merged.
 */
export function mergeSlashes(pathname: string, { scriptName, pathInfo }: ScriptPath): string {
  // All of it names the script, or the folder of an index.
  if (pathInfo === "") return pathname.replace(/\/{2,}/g, "/");
  let end = 0;
  for (let left = scriptName.split("/").length - 1; left > 0; left--) {
    while (pathname[end] === "/") end++;
    end = pathname.indexOf("/", end);
  }
  return pathname.slice(0, end).replace(/\/{2,}/g, "/") + pathname.slice(end);
}

/**
 * Yields the decoded segments of a URL's path, which are names of files (F14).
 *
 * @throws {ProtocolError} If a segment has a slash, backslash or NUL, or is not UTF-8.
 */
export function* fileNames(pathname: string): Generator<string> {
  for (const segment of pathname.split("/").slice(1)) {
    const name = decodePercent(segment);
    if (/[/\\\0]/.test(name)) throw badPath("no encoded slash, backslash or NUL", pathname);
    if (!isUTF8(name)) throw badPath("UTF-8", pathname);
    yield toText(name);
  }
}

/** Returns whether a byte string is UTF-8. */
export function isUTF8(byteString: string): boolean {
  // toText() returns a byte string that is not UTF-8 unchanged.
  return isASCII(byteString) || toText(byteString) !== byteString;
}

/**
 * Splits a decoded path after the first segment that has the ending of a script's name.
 *
 * @returns The parts, or undefined if the path names no script.
 */
export function splitScript(path: string, options: SplitOptions): ScriptPath | undefined {
  const { split, index } = options;
  let at = 0;
  while (at < path.length) {
    const slash = path.indexOf("/", at + 1);
    at = slash < 0 ? path.length : slash;
    const scriptName = path.slice(0, at);
    if (split.some((end) => scriptName.endsWith(end))) {
      return { scriptName, pathInfo: path.slice(at) };
    }
  }
  if (path.endsWith("/") && index !== "") return { scriptName: path + index, pathInfo: "" };
  return undefined;
}

/** Returns whether a decoded path has a segment that cannot name a script or folder: one that is empty or begins with a dot. */
export function hasBadName(path: string): boolean {
  return /(?:^|\/)\.|\/\//.test(path);
}

function badPath(wanted: string, pathname: string): ProtocolError {
  return new ProtocolError(
    `Cannot look up path as it must have ${wanted}: current value is ${JSON.stringify(pathname)}`,
  );
}
