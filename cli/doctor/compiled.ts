/**
 * Whether each start of a script compiles it again, and what a cache of compiled code would save.
 *
 * @module
 */

import { pathToFileURL } from "node:url";
import { asUser, change, changeableAt, type Command } from "./commands.ts";
import type { Finding } from "./findings.ts";
import { denoArguments, setFirstLine, withVariable } from "./first_line.ts";
import { CACHE, cacheOf, configuredCache, type Judged, mayBeMade } from "./judge.ts";
import { realPath } from "./programs.ts";
import { type TrialOptions, tryScript } from "./trial.ts";
import { stat, User } from "./user.ts";

/** How often a start is timed with each cache. */
const TIMED = 3;
const ROOT = 0;
/**
 * What the owner of a script runs, with the script as an argument and DENO_DIR set. Deno fills a cache that it has made in
 * the run before. At its end it may delete the files beside the databases, without which users who may not write cannot
 * read them; empty ones do. Seen on Deno 2.9.6.
 */
const FILL = [
  'for run in 1 2; do "$0" > /dev/null || exit; done',
  'for file in "$DENO_DIR"/*_v?; do : >> "$file-shm"; : >> "$file-wal"; done',
].join("; ");
/** Matches an import of a local file, which the script's own mode does not protect. */
const LOCAL_IMPORT = /(?:\bfrom|\bimport)\s*\(?\s*["'](?:\.{0,2}\/|file:)/;

/**
 * Returns a finding if each start of a script that responds compiles it again. Runs it again, and if it is compiled
 * again, some more times to see what a cache would save.
 */
export async function findCompiling(shown: Judged & TrialOptions): Promise<Finding | undefined> {
  if (denoArguments(shown.first) === undefined || !await compiles(shown)) return undefined;
  const path = cacheOf(shown);
  if (shown.user.canWrite(`${path}/v8_code_cache_v2`)) return undefined;
  const gain = await measureGain(shown);
  return shown.find("compiles", { path, gain }, fillCache(shown));
}

/**
 * Returns whether a script that has run before is compiled at its start. Deno says so in its log only. Seen on Deno 2.9.6:
 * a version that words it otherwise has no finding.
 */
async function compiles(shown: Judged & TrialOptions): Promise<boolean> {
  const env = { ...shown.env, DENO_LOG: "deno::module_loader=debug" };
  const { stderr } = await tryScript({ ...shown, env });
  return [shown.script, shown.file].some((path) =>
    stderr.includes(`Updating V8 code cache for ES module: ${pathToFileURL(path)},`)
  );
}

/** Times starts with the script's cache, and with one that has the compiled code. Returns what they say. */
async function measureGain(shown: Judged & TrialOptions): Promise<string> {
  const { user, env, first } = shown;
  // What the first line sets would hide the other cache; and env's quotes and variables are not parsed here.
  if (first!.variables.DENO_DIR !== undefined && /["'\\$]/.test(first!.text)) return "";
  const command = [...first!.command, shown.script];
  const options = { ...shown, command, env: { ...env, ...first!.variables } };
  const folder = Deno.makeTempDirSync({ prefix: "gatehouse-doctor" });
  try {
    if (user.uid !== Deno.uid()) Deno.chownSync(folder, user.uid, user.gid);
    const cached = { ...options, env: { ...options.env, DENO_DIR: folder } };
    for (let run = 0; run < 2; run++) {
      // Its imports may be in the other cache only.
      if ((await tryScript(cached)).status !== shown.status) return "";
    }
    let before = Infinity;
    let after = Infinity;
    for (let run = 0; run < TIMED; run++) {
      before = Math.min(before, await time(options));
      after = Math.min(after, await time(cached));
    }
    return ` A start takes ${Math.round(before)} ms, and with compiled code ${
      Math.round(after)
    } ms.`;
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

async function time(options: TrialOptions): Promise<number> {
  const start = performance.now();
  await tryScript(options);
  return performance.now() - start;
}

/** Returns the commands by which the script's owner fills a cache that the web server's user reads, if they are safe. */
function fillCache(shown: Judged): (Command | undefined)[] {
  const { file, source, first, env, user } = shown;
  const owner = stat(file)?.uid ?? ROOT;
  // A user who may change the program has all rights of its owner, who compiles it.
  if (changeableAt(file, owner) !== undefined) return [];
  if (owner === ROOT && LOCAL_IMPORT.test(source)) return [];
  const programs = first!.searched ? env.PATH.split(":") : first!.command.slice(0, 1);
  if (programs.some((path) => stat(path) && changeableAt(realPath(path), owner))) return [];
  const name = User.nameOf(owner);
  if (name === undefined) return [];
  const configured = configuredCache(shown);
  const isFillable = (folder: string) =>
    stat(folder)?.uid === owner && user.canRun(folder) && !user.canWrite(folder);
  const folder =
    [...configured === undefined ? [] : [configured], CACHE].find((folder) =>
      isFillable(folder) || stat(folder) === undefined && mayBeMade(folder, user)
    ) ?? `${CACHE}-${name}`;
  // What the first line sets would hide another folder.
  if (![undefined, folder].includes(first!.variables.DENO_DIR)) return [];
  const variables = Object.entries({ ...env, ...first!.variables, DENO_DIR: folder })
    .filter(([name]) => name !== "PATH" || first!.searched)
    .map(([name, value]) => `${name}=${value}`);
  const request = ["GATEWAY_INTERFACE=CGI/1.1", "REQUEST_METHOD=GET"];
  const made = asUser(ROOT, ["install", "-d", ...owner === ROOT ? [] : ["-o", name], folder]);
  return [
    ...isFillable(folder) ? [] : [made],
    ...folder === configured
      ? []
      : [change(file, setFirstLine(file, withVariable(first!, "DENO_DIR", folder)))],
    asUser(owner, ["env", ...variables, ...request, "/bin/sh", "-c", FILL, file]),
  ];
}
