/**
 * Reads nginx's configuration from its files: nginx itself is not run, as its modules are programs.
 *
 * @module
 */

import { dirname, resolve } from "node:path";
import { Failure } from "../errors.ts";
import { expand, hasWildcard } from "./glob.ts";

/** A directive of nginx. */
export interface Directive {
  name: string;
  args: string[];
  /** The directives in its braces, if it has them. */
  block?: Directive[];
}

/** How deep files may include each other. */
const MAX_DEPTH = 20;
/** Matches spaces and comments, or one token. */
const TOKEN =
  /\s+|#[^\n]*|([;{}])|"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|((?:\$\{|[^\s;{}\\"'#]|\\.)(?:\$\{[^}]*\}|[^\s;{\\]|\\.)*)/gsy;

/**
 * Reads a configuration with the files that it includes. An `include` whose wildcards match no file stays as it is.
 *
 * @throws {Failure} If a file cannot be read or is no configuration.
 */
export function readNginxConfig(file: string): Directive[] {
  return readFile(file, dirname(file), 0);
}

function readFile(file: string, root: string, depth: number): Directive[] {
  if (depth > MAX_DEPTH) {
    throw new Failure(`Cannot read ${file}: files include each other more than ${MAX_DEPTH} times`);
  }
  const tokens = tokenize(read(file), file);
  let at = 0;
  const readBlock = (isInner: boolean): Directive[] => {
    const directives: Directive[] = [];
    let words: string[] = [];
    while (at < tokens.length) {
      const { text, isMark } = tokens[at++];
      if (!isMark) {
        words.push(text);
        continue;
      }
      if (text === "}") {
        if (!isInner) throw invalid(file, '"}" without "{"');
        if (words.length > 0) break;
        return directives;
      }
      const [name, ...args] = words;
      words = [];
      if (name === undefined) throw invalid(file, `"${text}" without a directive`);
      if (text === "{") {
        directives.push({ name, args, block: readBlock(true) });
      } else if (name === "include" && args.length === 1) {
        const pattern = resolve(root, args[0]);
        const files = hasWildcard(pattern) ? expand(pattern) : [pattern];
        for (const path of files) directives.push(...readFile(path, root, depth + 1));
        if (files.length === 0) directives.push({ name, args });
      } else {
        directives.push({ name, args });
      }
    }
    if (isInner || words.length > 0) throw invalid(file, "a directive does not end");
    return directives;
  };
  return readBlock(false);
}

function tokenize(text: string, file: string): { text: string; isMark: boolean }[] {
  const tokens = [];
  let at = 0;
  for (const match of text.matchAll(TOKEN)) {
    at = match.index + match[0].length;
    const [, mark, double, single, word] = match;
    if (mark !== undefined) tokens.push({ text: mark, isMark: true });
    const quoted = (double ?? single ?? word)?.replaceAll(/\\([\s\S])/g, "$1");
    if (quoted !== undefined) tokens.push({ text: quoted, isMark: false });
  }
  if (at < text.length) {
    throw invalid(file, `line ${text.slice(0, at).split("\n").length} has a quote without an end`);
  }
  return tokens;
}

function invalid(file: string, why: string): Failure {
  return new Failure(`Cannot read ${file} as nginx's configuration: ${why}. See: nginx -t`);
}

function read(file: string): string {
  try {
    return Deno.readTextFileSync(file);
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    throw new Failure(`Cannot read ${file}: ${(error as Error).message}`, { cause: error });
  }
}
