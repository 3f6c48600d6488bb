/**
 * Reads Apache's configuration from its files: Apache itself is not run, as its modules are programs.
 *
 * @module
 */

import { basename, dirname, join, resolve } from "node:path";
import { Failure } from "../errors.ts";
import { expand, hasWildcard } from "./glob.ts";
import { stat } from "./user.ts";

/** A directive or a section of Apache. */
export interface Directive {
  /** Its name in lower case. */
  name: string;
  args: string[];
  /** The directives of a section. */
  block?: Directive[];
}

/** A configuration, without the sections whose conditions are false. */
export interface ApacheConfig {
  directives: Directive[];
  /** The folder that relative paths begin at. */
  root: string;
  /** The loaded modules, such as `cgid_module`. */
  modules: Set<string>;
  /** The lines that would load a module, but are comments. */
  comments: Map<string, { file: string; line: number }>;
}

/** How deep files may include each other. */
const MAX_DEPTH = 20;
/** Sections with directives for some requests. Other sections are not read. */
const SECTIONS = new Set(
  "virtualhost directory directorymatch files filesmatch location locationmatch proxy proxymatch requireall requireany requirenone limit limitexcept"
    .split(" "),
);
/** A file of a module by its name, where that is not the module's. */
const MODULE_FILES: Record<string, string> = {
  "event.c": "mpm_event_module",
  "worker.c": "mpm_worker_module",
  "prefork.c": "mpm_prefork_module",
};
/** Sections that are read if a condition is true. */
const CONDITIONS = ["ifmodule", "ifdefine", "iffile", "ifversion", "ifdirective", "ifsection"];

/**
 * Reads a configuration with the files that it includes.
 *
 * @throws {Failure} If a file cannot be read or is no configuration.
 */
export function readApacheConfig(file: string): ApacheConfig {
  const reader = new Reader(dirname(file));
  reader.readFile(file, 0);
  const { directives, root, modules, comments } = reader;
  return { directives, root, modules, comments };
}

/** Reads what a folder's `.htaccess` adds; undefined if there is none. */
export function readHtaccess(file: string, config: ApacheConfig): Directive[] | undefined {
  if (stat(file)?.isFile !== true) return undefined;
  const reader = new Reader(config.root, config.modules);
  reader.readFile(file, 0);
  return reader.directives;
}

/** Returns whether a configuration is that of Debian's packages, which have commands of their own. */
export function isOfDebian({ root }: ApacheConfig): boolean {
  return stat(join(root, "mods-available"))?.isDirectory === true;
}

class Reader {
  directives: Directive[] = [];
  modules: Set<string>;
  comments = new Map<string, { file: string; line: number }>();
  root: string;
  #defines: Map<string, string>;
  /** The sections that are open, from the outermost. */
  #open: { name: string; directives: Directive[]; isRead: boolean }[] = [];

  constructor(root: string, modules = new Set<string>()) {
    this.root = root;
    this.modules = modules;
    this.#defines = readVariables(join(root, "envvars"));
  }

  readFile(file: string, depth: number): void {
    if (depth > MAX_DEPTH) {
      throw new Failure(
        `Cannot read ${file}: files include each other more than ${MAX_DEPTH} times`,
      );
    }
    const above = this.#open.length;
    for (const [number, line] of linesOf(read(file))) {
      const comment = /^#+\s*LoadModule\s+(\S+)/i.exec(line);
      if (comment !== null) this.comments.set(comment[1], { file, line: number });
      else if (!/^(?:#|$)/.test(line)) this.#readLine(line, file, depth);
    }
    if (this.#open.length !== above) {
      throw invalid(file, `<${this.#open.at(-1)?.name ?? ""}> does not end where it began`);
    }
  }

  #readLine(line: string, file: string, depth: number): void {
    const end = /^<\/([^\s>]+)\s*>?$/.exec(line);
    if (end !== null) {
      const name = end[1].toLowerCase();
      if (this.#open.pop()?.name !== name) throw invalid(file, `</${name}> without <${name}>`);
      return;
    }
    const isRead = this.#open.every(({ isRead }) => isRead);
    const section = /^<(.*?)>?$/s.exec(line);
    const [first, ...args] = splitWords(this.#expand(section?.[1] ?? line));
    const name = first?.toLowerCase() ?? "";
    const here = this.#open.at(-1)?.directives ?? this.directives;
    if (section !== null) {
      const directives: Directive[] = [];
      const isCondition = CONDITIONS.includes(name);
      this.#open.push({
        name,
        directives: isCondition ? here : directives,
        isRead: isCondition ? isRead && this.#isTrue(name, args[0] ?? "") : SECTIONS.has(name),
      });
      if (!isCondition && isRead) here.push({ name, args, block: directives });
      return;
    }
    if (!isRead) return;
    if (name === "include" || name === "includeoptional") {
      return this.#include(args[0] ?? "", name === "includeoptional", depth);
    }
    if (name === "loadmodule") this.modules.add(args[0]);
    else if (name === "serverroot") this.root = args[0];
    else if (name === "define") this.#defines.set(args[0], args[1] ?? "");
    else if (name === "undefine") this.#defines.delete(args[0]);
    here.push({ name, args });
  }

  #include(path: string, isOptional: boolean, depth: number): void {
    const pattern = resolve(this.root, path);
    const files = hasWildcard(pattern) ? expand(pattern) : [pattern];
    for (const file of files.flatMap(filesIn)) {
      if (!isOptional || stat(file) !== undefined) this.readFile(file, depth + 1);
    }
  }

  #isTrue(name: string, arg: string): boolean {
    const [, not, value] = /^(!?)(.*)$/s.exec(arg)!;
    const isTrue = name === "ifmodule"
      ? this.modules.has(moduleOf(value))
      : name === "ifdefine"
      ? this.#defines.has(value)
      : name === "iffile"
      ? stat(resolve(this.root, value)) !== undefined
      // Which version it is, only Apache knows.
      : true;
    return name === "ifversion" || isTrue !== (not === "!");
  }

  #expand(text: string): string {
    return text.replaceAll(/\$\{(\w+)\}/g, (text, name) => this.#defines.get(name) ?? text);
  }
}

/** Returns the name of a module that `<IfModule>` names, perhaps by its source file. */
function moduleOf(name: string): string {
  return MODULE_FILES[name] ?? name.replace(/^mod_(.*)\.c$/, "$1_module");
}

/** Returns all files in a folder and its folders, or the file itself. */
function filesIn(path: string): string[] {
  if (stat(path)?.isDirectory !== true) return [path];
  return [...Deno.readDirSync(path)].map(({ name }) => join(path, name)).sort().flatMap(filesIn);
}

/** Reads the variables that Debian's apachectl sets. */
function readVariables(file: string): Map<string, string> {
  if (stat(file)?.isFile !== true) return new Map();
  const lines = read(file).matchAll(/^\s*export\s+(\w+)=(["']?)(.*?)\2\s*$/gm);
  return new Map(
    [...lines].map(([, name, , value]) => [name, value.replaceAll(/\$\{?SUFFIX\}?/g, "")]),
  );
}

/** Returns the lines with their numbers. One that ends in a backslash continues in the next. */
function* linesOf(text: string): Generator<[number, string]> {
  let [number, joined] = [0, ""];
  for (const [i, line] of text.split(/\r?\n/).entries()) {
    if (joined === "") number = i + 1;
    if (line.endsWith("\\")) {
      joined += `${line.slice(0, -1)} `;
      continue;
    }
    yield [number, (joined + line).trim()];
    joined = "";
  }
}

function splitWords(text: string): string[] {
  const words = text.matchAll(/"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|(\S+)/gs);
  return [...words].map(([, double, single, word]) =>
    word ?? (double ?? single).replaceAll(/\\(["'\\])/g, "$1")
  );
}

function invalid(file: string, why: string): Failure {
  const command = basename(file) === ".htaccess" ? "" : ". See: apachectl -t";
  return new Failure(`Cannot read ${file} as Apache's configuration: ${why}${command}`);
}

function read(file: string): string {
  try {
    return Deno.readTextFileSync(file);
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    throw new Failure(`Cannot read ${file}: ${(error as Error).message}`, { cause: error });
  }
}
