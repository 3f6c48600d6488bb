/**
 * Checks format, lint, types, docs and the package. If JSR cannot be reached, types and docs are checked against the
 * stand-ins, and the package is packed from a copy whose deno.json names them.
 */
import { cpSync, globSync } from "node:fs";
import config from "../deno.json" with { type: "json" };
import { isJSRReachable, standInImports, toImportMapUrl } from "./import_map.ts";

const root = new URL("..", import.meta.url);
const reachable = await isJSRReachable();
const failures: string[] = [];

function deno(name: string, args: string[], cwd: string | URL = root): void {
  console.log(`\n# ${name}`);
  const { success } = new Deno.Command(Deno.execPath(), {
    args,
    cwd,
    stdin: "null",
    stdout: "inherit",
    stderr: "inherit",
  }).outputSync();
  if (!success) failures.push(name);
}

/** Packs a copy that uses the stand-ins for `@std/*`. This checks for slow types too. */
function publishWithStandIns(): void {
  const copy = Deno.makeTempDirSync();
  try {
    for (const { name } of Deno.readDirSync(root)) {
      if (name.startsWith(".") || name === "node_modules") continue;
      cpSync(new URL(name, root), `${copy}/${name}`, { recursive: true });
    }
    const include = [...config.publish.include, "scripts/stand_ins/"];
    const copied = { ...config, imports: standInImports("./"), publish: { include } };
    Deno.writeTextFileSync(`${copy}/deno.json`, JSON.stringify(copied));
    deno("publish --dry-run (stand-ins)", ["publish", "--dry-run", "--allow-dirty"], copy);
  } finally {
    Deno.removeSync(copy, { recursive: true });
  }
}

const imports = reachable ? config.imports : standInImports(root.href);
const importMap = `--import-map=${toImportMapUrl(imports)}`;
const pages = globSync(["*.md", "docs/**/*.md"], { cwd: root });
const suffix = reachable ? "" : " (stand-ins)";

deno("fmt --check", ["fmt", "--check"]);
// no-slow-types loads the module graph, so it needs JSR.
deno("lint", reachable ? ["lint"] : ["lint", "--rules-exclude=no-slow-types"]);
deno(`check${suffix}`, ["check", "--doc", importMap, ".", ...pages]);
deno(`doc --lint${suffix}`, ["doc", "--lint", importMap, ...Object.values(config.exports)]);
if (reachable) deno("publish --dry-run", ["publish", "--dry-run", "--allow-dirty"]);
else publishWithStandIns();

console.log();
if (!reachable) console.log("Cannot reach JSR: used scripts/stand_ins for @std/*");
if (failures.length > 0) console.log(`Failed: ${failures.join(", ")}`);
Deno.exit(failures.length > 0 ? 1 : 0);
