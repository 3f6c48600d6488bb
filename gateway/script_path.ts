/**
 * The path of a URL -> the script that it names and the rest. Rules are those of docs/protocols.md.
 *
 * @module
 */

import { toByteString, toText } from "../wire/byte_string.ts";
import { ProtocolError } from "../wire/protocol_error.ts";
import { decodePercent } from "../bridge/request.ts";

/** A path, split where its script's name ends; both parts decoded, byte strings. */
export interface ScriptPath {
  /** SCRIPT_NAME. */
  scriptName: string;
  /** PATH_INFO. */
  pathInfo: string;
}

/** How paths name scripts (rule A16). */
export interface SplitOptions {
  /** The ends of scripts' names. */
  split: string[];
  /** The script of a folder. */
  index: string;
}

/**
 * Decodes a path, once.
 *
 * @param pathname The path as it stands in a URL.
 * @throws {ProtocolError} If it holds a NUL, which would end a C string or an SCGI header, or leaves its folder (F14).
 */
export function decodeTarget(pathname: string): string {
  const path = decodePercent(pathname);
  if (path.includes("\0")) throw badPath("no NUL", pathname);
  if (/(?:^|[/\\])\.\.(?:[/\\]|$)/.test(path)) throw badPath('no ".." segment', pathname);
  return path;
}

/** Decodes a request's path and takes the prefix off. Returns undefined if the path is not below the prefix. */
export function pathBelow(request: Request, prefix: string): string | undefined {
  return stripPrefix(decodeTarget(new URL(request.url).pathname), toByteString(prefix));
}

/**
 * Takes the prefix off a decoded path, at a segment's boundary.
 *
 * @returns The rest, or undefined if the path does not begin with it.
 */
export function stripPrefix(path: string, prefix: string): string | undefined {
  if (!path.startsWith(prefix)) return undefined;
  const rest = path.slice(prefix.length);
  return rest === "" || rest.startsWith("/") ? rest : undefined;
}

/**
 * Takes the names of files out of the encoded path of a URL, one after the other, as texts (F14).
 *
 * @throws {ProtocolError} At a name that could be read as something else.
 */
export function* fileNames(pathname: string): Generator<string> {
  for (const segment of pathname.split("/").slice(1)) {
    const name = decodePercent(segment);
    if (/[/\\\0]/.test(name)) throw badPath("no encoded slash, backslash or NUL", pathname);
    if (!isUTF8(name)) throw badPath("UTF-8", pathname);
    yield toText(name);
  }
}

/** Whether a byte string is a text. */
export function isUTF8(byteString: string): boolean {
  // What is not is read byte for byte, and stays as it is.
  // deno-lint-ignore no-control-regex
  return !/[^\x00-\x7f]/.test(byteString) || toText(byteString) !== byteString;
}

/**
 * Splits a decoded path after the first name that ends as scripts' names do.
 *
 * @returns The parts, or undefined if it names no script.
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

/** Whether a decoded path has a segment that begins with a dot. */
export function hasDotName(path: string): boolean {
  return /(?:^|\/)\./.test(path);
}

function badPath(wanted: string, pathname: string): ProtocolError {
  return new ProtocolError(
    `Cannot look up path as it must have ${wanted}: current value is ${JSON.stringify(pathname)}`,
  );
}
