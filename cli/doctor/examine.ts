import { createFinding, type Finding, type FindingId } from "./findings.ts";
import { type FirstLine, joinsArguments, parseFirstLine } from "./first_line.ts";
import type { User } from "./user.ts";

const WORLD_WRITABLE = 0o002;
const BOM = "\u{feff}";

/** The script, and the user and environment that it runs with. */
export interface Examined {
  /** The absolute path of the script. */
  script: string;
  /** The user that the web server runs it as. */
  user: User;
  /** The environment of scripts, with PATH. */
  env: Record<string, string>;
}

/** Finds faults of a script without running it. */
export async function examine({ script, user, env }: Examined): Promise<Finding[]> {
  const find = (id: FindingId, values: Record<string, string> = {}) =>
    createFinding(id, { script, user: user.name, ...values });
  const folder = script.slice(0, script.lastIndexOf("/")) || "/";
  const info = await Deno.stat(script).catch(() => undefined);
  if (info?.isFile !== true) return [find("missing", { folder })];
  const findings: Finding[] = [];
  const blocked = user.blockedAt(script);
  if (blocked !== undefined) findings.push(find("unreadable", { path: blocked }));
  else if (!user.canRead(script)) findings.push(find("unreadable", { path: script }));
  if (blocked === undefined && !user.canRun(script)) findings.push(find("run-bit"));
  for (const path of [script, folder]) {
    const mode = (await Deno.stat(path)).mode ?? 0;
    if (mode & WORLD_WRITABLE) findings.push(find("writable", { path }));
  }
  // TextDecoder and readTextFile remove a byte order mark.
  const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(await Deno.readFile(script));
  if (text.startsWith(BOM)) findings.push(find("bom"));
  const [line] = text.replace(BOM, "").split("\n", 1);
  const first = parseFirstLine(line);
  if (first === undefined) return [...findings, find("first-line")];
  if (line.endsWith("\r")) {
    const words = line.trim().split(/\s+/);
    findings.push(find("crlf", { program: words.at(-1)!.replace(/^#!/, "") }));
  }
  const command = first.command.join(" ");
  if (joinsArguments(first)) findings.push(find("env-s", { command }));
  findings.push(...examineProgram(first, script, user, env, find));
  return findings;
}

/** Finds faults of the program that runs a script. */
function examineProgram(
  first: FirstLine,
  script: string,
  user: User,
  env: Record<string, string>,
  find: (id: FindingId, values?: Record<string, string>) => Finding,
): Finding[] {
  const findings: Finding[] = [];
  const [name, ...args] = first.command;
  if (name === undefined) return [find("first-line")];
  const program = name.slice(name.lastIndexOf("/") + 1);
  const candidates = first.searched ? env.PATH.split(":").map((dir) => `${dir}/${name}`) : [name];
  const file = candidates.find(isFile);
  if (file === undefined) {
    const searchPath = first.searched ? env.PATH : `in ${name}`;
    findings.push(find("interpreter", { program, searchPath }));
  } else if (!user.canRun(realPath(file))) {
    findings.push(find("interpreter-denied", { program, file: realPath(file) }));
  }
  if (program !== "deno") return findings;
  if (!args.some((arg) => /^(?:--allow-env|--allow-all|-[a-zA-Z]*[AE])/.test(arg))) {
    findings.push(find("allow-env"));
  }
  // A bundle needs no cache: the trial shows a missing import of JavaScript.
  if (/\.[cm]?js$/.test(script) || args.includes("--ext=js")) return findings;
  const cache = first.variables.DENO_DIR ?? env.DENO_DIR ?? `${user.home}/.cache/deno`;
  // A cache that another user filled is enough.
  const isFilled = user.canRead(cache) && user.canRun(cache);
  if (!isFilled && !user.canWrite(cache)) findings.push(find("deno-dir", { path: cache }));
  return findings;
}

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

function realPath(path: string): string {
  try {
    return Deno.realPathSync(path);
  } catch {
    return path;
  }
}
