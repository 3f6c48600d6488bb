/**
 * Reads lighttpd's configuration from its files: lighttpd itself is not run, as its modules are programs.
 *
 * @module
 */

import { dirname, resolve } from "node:path";
import { Failure } from "../errors.ts";
import { expand, hasWildcard } from "./glob.ts";

/** A value: a text, a number, or a list whose members may have keys. */
export type Value = string | number | [key: string | undefined, value: Value][];

/** A condition, such as `$HTTP["url"] =~ "^/app"`. */
export interface Condition {
  /** What is compared, such as `HTTP.url`. */
  what: string;
  operator: string;
  value: string;
}

/** A setting, and the conditions of the blocks that it is in. */
export interface Setting {
  name: string;
  value: Value;
  conditions: Condition[];
}

/** How deep files may include each other. */
const MAX_DEPTH = 20;
/** Matches spaces and comments, or one token. */
const TOKEN =
  /\s+|#[^\n]*|"((?:[^"\\]|\\.)*)"|'([^']*)'|(\+=|:=|=>|==|!=|=~|!~|=\^|=\$|[={}(),+])|(\$[\w]+)\["([^"]*)"\]|([\w.\-:]+)/gsy;

interface Token {
  kind: "text" | "mark" | "field" | "word";
  text: string;
}

/**
 * Reads a configuration with the files that it includes, but without those that programs print. What is added to a
 * setting in a block is added to the setting outside of it.
 *
 * @throws {Failure} If a file cannot be read or is no configuration.
 */
export function readLighttpdConfig(file: string): Setting[] {
  const reader = new Reader(dirname(file));
  reader.readFile(file, [], 0);
  return reader.settings;
}

class Reader {
  settings: Setting[] = [];
  #folder: string;
  #variables = new Map<string, Value>();
  #file = "";
  #tokens: Token[] = [];
  #at = 0;

  constructor(folder: string) {
    this.#folder = folder;
    this.#variables.set("var.CWD", Deno.cwd());
    // Patches of distributions and its own examples use it for this folder.
    this.#variables.set("var.conf_dir", folder);
  }

  readFile(file: string, conditions: Condition[], depth: number): void {
    if (depth > MAX_DEPTH) {
      throw new Failure(
        `Cannot read ${file}: files include each other more than ${MAX_DEPTH} times`,
      );
    }
    const outer = [this.#file, this.#tokens, this.#at] as const;
    [this.#file, this.#tokens, this.#at] = [file, tokenize(read(file), file), 0];
    this.#readBlock(conditions, depth, false);
    [this.#file, this.#tokens, this.#at] = outer;
  }

  #readBlock(conditions: Condition[], depth: number, isInner: boolean): void {
    while (this.#at < this.#tokens.length) {
      const token = this.#tokens[this.#at++];
      if (token.text === "}" && token.kind === "mark") {
        if (isInner) return;
        throw this.#invalid('"}" without "{"');
      }
      if (token.kind === "field" || token.text === "else") {
        const condition = token.kind === "field" ? this.#readCondition(token) : this.#readElse();
        this.#expect("{");
        // That the condition before an else is false is not considered.
        this.#readBlock(condition ? [...conditions, condition] : conditions, depth, true);
      } else if (token.text === "global") {
        this.#expect("{");
        this.#readBlock([], depth, true);
      } else if (token.text === "include") {
        const pattern = resolve(this.#folder, String(this.#readValue()));
        const files = hasWildcard(pattern) ? expand(pattern) : [pattern];
        for (const file of files) this.readFile(file, conditions, depth + 1);
      } else if (token.text === "include_shell") this.#readValue();
      else if (token.kind === "word") this.#readSetting(token.text, conditions);
      else throw this.#invalid(`"${token.text}" without a name`);
    }
    if (isInner) throw this.#invalid("a block does not end");
  }

  #readElse(): Condition | undefined {
    const next = this.#tokens[this.#at];
    // "else if" is another spelling.
    if (next?.text === "if") this.#at++;
    if (this.#tokens[this.#at]?.kind !== "field") return undefined;
    return this.#readCondition(this.#tokens[this.#at++]);
  }

  #readCondition({ text }: Token): Condition {
    const operator = this.#tokens[this.#at++]?.text ?? "";
    return { what: text, operator, value: String(this.#readValue()) };
  }

  #readSetting(name: string, conditions: Condition[]): void {
    const operator = this.#tokens[this.#at++]?.text;
    if (!["=", "+=", ":="].includes(operator ?? "")) throw this.#invalid(`${name} without "="`);
    const value = this.#readValue();
    const key = name.includes(".") ? name : `var.${name}`;
    const before = this.settings.findLast((setting) => setting.name === key)?.value;
    const all = operator === "+=" && before !== undefined ? add(before, value) : value;
    this.#variables.set(key, all);
    this.settings.push({ name: key, value: all, conditions });
  }

  #readValue(): Value {
    let value = this.#readTerm();
    while (this.#isMark("+")) {
      this.#at++;
      value = add(value, this.#readTerm());
    }
    return value;
  }

  #readTerm(): Value {
    const token = this.#tokens[this.#at++];
    if (token === undefined) throw this.#invalid("a value is missing");
    if (token.kind === "text") return token.text;
    if (token.kind === "word") {
      if (/^\d+$/.test(token.text)) return Number(token.text);
      if (token.text.startsWith("env.")) return Deno.env.get(token.text.slice(4)) ?? "";
      const name = token.text.includes(".") ? token.text : `var.${token.text}`;
      return this.#variables.get(name) ?? token.text;
    }
    if (token.text !== "(") throw this.#invalid(`"${token.text}" in place of a value`);
    const members: [string | undefined, Value][] = [];
    while (!this.#isMark(")")) {
      const first = this.#readValue();
      if (this.#isMark("=>")) {
        this.#at++;
        members.push([String(first), this.#readValue()]);
      } else members.push([undefined, first]);
      if (!this.#isMark(",")) break;
      this.#at++;
    }
    this.#expect(")");
    return members;
  }

  #isMark(text: string): boolean {
    const token = this.#tokens[this.#at];
    return token?.kind === "mark" && token.text === text;
  }

  #expect(mark: string): void {
    if (!this.#isMark(mark)) throw this.#invalid(`"${mark}" is missing`);
    this.#at++;
  }

  #invalid(why: string): Failure {
    return invalid(this.#file, why);
  }
}

function add(before: Value, value: Value): Value {
  if (Array.isArray(before)) {
    return [
      ...before,
      ...Array.isArray(value) ? value : [[undefined, value] as [undefined, Value]],
    ];
  }
  if (Array.isArray(value)) return value;
  return typeof before === "number" && typeof value === "number"
    ? before + value
    : `${before}${value}`;
}

function tokenize(text: string, file: string): Token[] {
  const tokens: Token[] = [];
  let at = 0;
  for (const match of text.matchAll(TOKEN)) {
    at = match.index + match[0].length;
    const [, double, single, mark, object, field, word] = match;
    if (mark !== undefined) tokens.push({ kind: "mark", text: mark });
    else if (object !== undefined) {
      tokens.push({ kind: "field", text: `${object.slice(1)}.${field}` });
    } else if (word !== undefined) tokens.push({ kind: "word", text: word });
    const quoted = double?.replaceAll(/\\(["\\])/g, "$1") ?? single;
    if (quoted !== undefined) tokens.push({ kind: "text", text: quoted });
  }
  if (at < text.length) {
    throw invalid(file, `line ${text.slice(0, at).split("\n").length} cannot be read`);
  }
  return tokens;
}

function invalid(file: string, why: string): Failure {
  return new Failure(
    `Cannot read ${file} as lighttpd's configuration: ${why}. See: lighttpd -tt -f`,
  );
}

function read(file: string): string {
  try {
    return Deno.readTextFileSync(file);
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    throw new Failure(`Cannot read ${file}: ${(error as Error).message}`, { cause: error });
  }
}
