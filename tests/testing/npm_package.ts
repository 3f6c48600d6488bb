/**
 * Writes the JavaScript that JSR's npm side has of a package, as Node strips no types below node_modules. Runs on Node:
 * `node npm_package.ts ROOT FOLDER FILE...`, with the files that are written together with all that they import.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import * as nodeModule from "node:module";
import { dirname, join } from "node:path";
import { argv } from "node:process";

const { stripTypeScriptTypes } = nodeModule as unknown as {
  stripTypeScriptTypes(code: string, options: { mode: "strip" }): string;
};
const SPECIFIER = /((?:\bfrom\s|\bimport\s|\bimport\()\s*")(\.{1,2}\/[^"]+)\.ts"/g;

const [root, folder, ...files] = argv.slice(2);
const seen = new Set(files);
for (const file of seen) {
  const code = stripTypeScriptTypes(readFileSync(join(root, file), "utf8"), { mode: "strip" });
  for (const [, , path] of code.matchAll(SPECIFIER)) seen.add(join(dirname(file), `${path}.ts`));
  const target = join(folder, file.replace(/ts$/, "js"));
  mkdirSync(dirname(target), { recursive: true });
  writeFileSync(target, code.replace(SPECIFIER, '$1$2.js"'));
}
