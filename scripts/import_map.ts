/**
 * Prints the import map of a task: the `imports` of deno.json, in which `scripts/stand_ins` replaces `@std/*` if JSR
 * cannot be reached.
 */
import config from "../deno.json" with { type: "json" };

const PROBE_TIMEOUT = 10_000;

const STAND_INS = {
  "@std/assert": "scripts/stand_ins/assert.ts",
  "@std/cli/parse-args": "scripts/stand_ins/cli.ts",
  "@std/io/buffer": "scripts/stand_ins/io.ts",
};

/** Returns whether the `jsr:` imports of deno.json can be loaded. */
export async function isJSRReachable(): Promise<boolean> {
  const specifiers = Object.values(config.imports).filter((specifier) =>
    specifier.startsWith("jsr:")
  );
  const { promise: timeout, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(reject, PROBE_TIMEOUT);
  try {
    await Promise.race([timeout, Promise.all(specifiers.map((specifier) => import(specifier)))]);
    return true;
  } catch {
    return false;
  } finally {
    clearTimeout(timer);
  }
}

/** Returns the `imports` of deno.json with every `jsr:` entry replaced by a stand-in below `root`. */
export function standInImports(root: string): Record<string, string> {
  const imports = Object.entries(config.imports).filter(([_, to]) => !to.startsWith("jsr:"));
  const standIns = Object.entries(STAND_INS).map(([from, to]) => [from, root + to]);
  return Object.fromEntries([...imports, ...standIns]);
}

/** Encodes an import map as a `data:` URL. Unlike deno.json, an import map must name subpaths itself. */
export function toImportMapUrl(imports: Record<string, string>): string {
  const entries = Object.entries(imports).flatMap(([from, to]) => {
    const subpaths = /^(jsr|npm):(.+)$/.exec(to);
    return subpaths ? [[from, to], [`${from}/`, `${subpaths[1]}:/${subpaths[2]}/`]] : [[from, to]];
  });
  const json = JSON.stringify({ imports: Object.fromEntries(entries) });
  return `data:application/json,${encodeURIComponent(json)}`;
}

if (import.meta.main) {
  let url = Deno.env.get("GATEHOUSE_IMPORT_MAP");
  if (!url) {
    const reachable = await isJSRReachable();
    if (!reachable) console.error("Cannot reach JSR: using scripts/stand_ins for @std/*");
    url = toImportMapUrl(
      reachable ? config.imports : standInImports(new URL("..", import.meta.url).href),
    );
  }
  console.log(url);
  // A probe that timed out would keep the process alive.
  Deno.exit();
}
