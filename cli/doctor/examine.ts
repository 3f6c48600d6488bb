import { basename, dirname } from "node:path";
import { change, changeableAt, type Command } from "./commands.ts";
import type { Find, Finding } from "./findings.ts";
import {
  denoArguments,
  type FirstLine,
  firstLineOf,
  insertFirstLine,
  isOfNode,
  joinsArguments,
  parseFirstLine,
  setFirstLine,
  splitArguments,
  withFlag,
} from "./first_line.ts";
import { denoFor, programOf, realPath, replaceProgram } from "./programs.ts";
import { foldersOf, stat, type User } from "./user.ts";

const WORLD_WRITABLE = 0o002;
const STICKY = 0o1000;
const BOM = "\u{feff}";
/** How much of a script is read, in bytes. */
const MAX_SOURCE = 1_048_576;
/** How many links the system follows at most. */
const MAX_LINKS = 40;
/** The ends of names that Node knows. */
const NODE_END = /^\.[cm]?[jt]s$/;
/** Matches a statement that only modules have. */
const MODULE = /^(?:import|export)\b(?!\()/m;
/** The maximum number of names shown of a folder. */
const MAX_NAMES = 5;
/** The program of scripts by the end of their name. Others have no obvious one. */
const PROGRAMS: [end: RegExp, program: string][] = [
  [/\.(?:[cm]?[jt]s|[jt]sx)$/, "deno"],
  [/\.py$/, "python3"],
  [/\.pl$/, "perl"],
  [/\.rb$/, "ruby"],
  [/\.sh$/, "sh"],
  [/\.php$/, "php-cgi"],
];

/** The script, and the user and environment that it runs with. */
export interface Examined {
  /** The absolute path of the script. */
  script: string;
  /** The user that the web server runs it as. */
  user: User;
  /** The environment of scripts, with PATH. */
  env: Record<string, string>;
}

/** What is known of a script without running it. */
export interface Examination {
  findings: Finding[];
  /** The script's file, without symbolic links; undefined if there is nothing to run. */
  file?: string;
  /** Its beginning. */
  source: string;
  first?: FirstLine;
}

/** Finds faults of a script without running it. */
export async function examine({ script, user, env }: Examined, find: Find): Promise<Examination> {
  const info = stat(script);
  if (info?.isFile !== true) {
    const id = info?.isDirectory ? "folder" : "missing";
    const folder = id === "folder" ? script : dirname(script);
    return { findings: [find(id, { folder, names: listNames(folder) })], source: "" };
  }
  const link = foreignLink(script);
  const file = realPath(script);
  if (link !== undefined) {
    return { findings: [find("foreign-link", { path: link, target: file })], source: "" };
  }
  const findings = examineModes(script, file, user, find);
  const text = await readStart(file);
  // A compiled program needs no first line. What this user may not read has its finding.
  if (text === undefined || text.startsWith("\x7fELF")) return { findings, file, source: "" };
  if (text.startsWith(BOM)) {
    findings.push(find("bom", {}, [change(file, ["sed", "-i", "1s/^\\xef\\xbb\\xbf//", file])]));
  }
  const source = text.replace(BOM, "");
  const [line] = source.split("\n", 1);
  const first = parseFirstLine(line);
  if (first === undefined || first.command.length === 0) {
    findings.push(find("first-line", {}, addFirstLine(script, file, user, env.PATH)));
    return { findings, file, source };
  }
  if (line.endsWith("\r")) {
    const program = line.trim().split(/\s+/).at(-1)!.replace(/^#!/, "");
    findings.push(find("crlf", { program }, [change(file, ["sed", "-i", "s/\\r$//", file])]));
  }
  if (joinsArguments(first)) {
    const line = splitArguments(first.text);
    findings.push(find("env-s", {}, [change(file, setFirstLine(file, line))]));
  }
  const needs = { file, first, user, path: env.PATH };
  const program = programOf(first, env.PATH);
  const [name] = first.command;
  if (program === undefined) {
    const where = /^[~$]/.test(name)
      ? "there, as only a shell replaces ~ and $HOME"
      : first.searched
      ? `on the web server's PATH, ${env.PATH}`
      : "there";
    findings.push(find("interpreter", { program: name, where }, replaceProgram(needs)));
  } else if (!user.canRun(realPath(program))) {
    const values = { program: name, file: realPath(program) };
    findings.push(find("interpreter-denied", values, replaceProgram(needs)));
  }
  const args = denoArguments(first);
  if (args?.some((arg) => /^(?:--allow-env|--allow-all|-[a-zA-Z]*[AE])/.test(arg)) === false) {
    const line = withFlag(first, "--allow-env");
    findings.push(find("allow-env", {}, [change(file, setFirstLine(file, line))]));
  }
  const [end] = /\.[^./]*$/.exec(file) ?? [];
  if (isOfNode(first) && end !== undefined && !NODE_END.test(end) && MODULE.test(source)) {
    const module = file.slice(0, -end.length) + ".mjs";
    const commands = [["mv", file, module], ["ln", "-s", basename(module), file]];
    findings.push(find("node-name", { end }, commands.map((command) => change(file, command))));
  }
  return { findings, file, source, first };
}

/** Finds out why a user may not run a file, and who else may change it. */
function examineModes(script: string, file: string, user: User, find: Find): Finding[] {
  const findings: Finding[] = [];
  const open = (path: string, rights: string) =>
    // Root's home is not for scripts.
    /^\/root(?:\/|$)/.test(path)
      ? undefined
      : change(path, ["chmod", `${user.classOf(path)}+${rights}`, path]);
  const blocked = user.barriers(file).filter((path) => path !== file);
  if (blocked.length > 0) {
    const [path] = blocked;
    findings.push(find("unreadable", { path }, blocked.map((path) => open(path, "x"))));
  } else if (!user.canRead(file)) {
    findings.push(find("unreadable", { path: script }, [open(file, "r")]));
  }
  if (blocked.length === 0 && !user.canRun(file)) {
    const mode = (stat(file)?.mode ?? 0) & 0o777;
    const shift = { u: 6, g: 3, o: 0 }[user.classOf(file)];
    // A user who may read it may run it.
    const right = mode | (mode & 0o444) >> 2 | 0o1 << shift;
    findings.push(find("run-bit", {}, [change(file, ["chmod", right.toString(8), file])]));
  }
  for (const path of [file, dirname(file)]) {
    const mode = stat(path)?.mode ?? 0;
    if ((mode & WORLD_WRITABLE) === 0) continue;
    // A sticky folder, such as /tmp, is meant for all users.
    const commands = mode & STICKY ? [] : [change(path, ["chmod", "o-w", path])];
    findings.push(find("writable", { path }, commands));
  }
  return findings;
}

/** Returns a symbolic link on the way to a file that neither root nor the owner of its target has made. */
function foreignLink(path: string): string | undefined {
  let rest = path.split("/").filter((name) => name !== "");
  let at = "";
  for (let links = 0; links <= MAX_LINKS && rest.length > 0;) {
    const [name, ...others] = rest;
    const part = name === ".." ? dirname(at || "/") : `${at}/${name}`;
    const link = Deno.lstatSync(part);
    if (!link.isSymlink) {
      [at, rest] = [part === "/" ? "" : part, others];
      continue;
    }
    if (link.uid !== 0 && link.uid !== stat(part)?.uid) return part;
    const target = Deno.readLinkSync(part);
    links++;
    if (target.startsWith("/")) at = "";
    rest = [...target.split("/").filter((name) => !["", "."].includes(name)), ...others];
  }
  return undefined;
}

/** Returns the command that inserts a first line, if it is known what runs scripts of this name. */
function addFirstLine(
  script: string,
  file: string,
  user: User,
  path: string,
): (Command | undefined)[] {
  const [, program] = PROGRAMS.find(([end]) => end.test(script)) ?? [];
  if (program === undefined) return [];
  const line = program === "deno"
    ? firstLineOf(denoFor({ file, user, path }), "run", "--no-prompt", "--allow-env")
    : firstLineOf(program);
  return [change(file, insertFirstLine(file, line))];
}

/** Reads the beginning of a script, as a sparse file may be larger than the memory; undefined if this user may not. */
export async function readStart(file: string): Promise<string | undefined> {
  const bytes = new Uint8Array(MAX_SOURCE);
  let length = 0;
  try {
    using opened = await Deno.open(file);
    while (length < bytes.length) {
      const read = await opened.read(bytes.subarray(length));
      if (read === null) break;
      length += read;
    }
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    return undefined;
  }
  // TextDecoder removes a byte order mark by itself.
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes.subarray(0, length));
}

function listNames(folder: string): string {
  try {
    const entries = [...Deno.readDirSync(folder)].filter(({ isFile }) => isFile);
    const names = entries.map(({ name }) => name).sort();
    if (names.length === 0) return "no files";
    return names.slice(0, MAX_NAMES).join(", ") + (names.length > MAX_NAMES ? ", …" : "");
  } catch {
    return "no files that you may see";
  }
}

/** Returns the file or folder that others may change, so that root must not run the script, if there is one. */
export function unsafeFor(user: User, file: string): string | undefined {
  if (user.uid === 0) return changeableAt(file);
  return [...foldersOf(file), file].find((path) => {
    const mode = stat(path)?.mode ?? 0;
    return (mode & WORLD_WRITABLE) !== 0 && (mode & STICKY) === 0;
  });
}
