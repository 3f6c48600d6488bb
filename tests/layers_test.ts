import { assert, assertEquals } from "@std/assert";
import config from "../deno.json" with { type: "json" };

const root = new URL("..", import.meta.url);

/** Which layers a file of each layer may import. */
const LAYERS: Record<string, string[]> = {
  wire: ["wire"],
  bridge: ["bridge", "wire"],
  io: ["io"],
  process: ["process", "io"],
  debug: ["debug", "bridge", "wire", "io"],
  server: ["server", "bridge", "wire", "io"],
  gateway: ["gateway", "bridge", "wire", "io", "process"],
  face: ["face", "server", "gateway", "debug", "process", "bridge", "wire", "io"],
  cli: ["cli", "face", "server", "gateway", "debug", "process", "bridge", "wire", "io"],
};
/** The layers that may import modules of node:. */
const NODE = ["io", "process"];
/** The types of addresses, which every layer may import. */
const TYPES = "io/addr.ts";

function layerOf(path: string): string {
  return path.includes("/") ? path.slice(0, path.indexOf("/")) : "face";
}

/** Removes the comments of formatted code that are alone on their lines. */
function withoutComments(source: string): string {
  return source.replace(/^\s*(?:\/\/|\/?\*).*$/gm, "");
}

/** Returns the specifiers that a module imports and exports from; null for a computed one. */
function specifiersOf(source: string): Array<string | null> {
  // Formatted code has a static import at the start of a line, and a comment alone on its own.
  const code = withoutComments(source);
  const statics = code.matchAll(
    /^(?:import|export)\s(?:[^;"'=]*?\sfrom\s+)?(?:"([^"]*)"|'([^']*)')/gm,
  );
  const dynamics = code.matchAll(
    /\bimport(?:\.defer|\.source)?\(\s*(?:"([^"]*)"|'([^']*)'|`([^`$]*)`)?/g,
  );
  return [...statics, ...dynamics].map(([_, ...quoted]) =>
    quoted.find((text) => text !== undefined) ?? null
  );
}

function faultOf(path: string, specifier: string | null): string | undefined {
  const isCli = path === "cli.ts" || layerOf(path) === "cli";
  if (specifier === null) return isCli ? undefined : "a computed specifier";
  if (/^\.\.?\//.test(specifier)) {
    const { href } = new URL(specifier, `file:///outside/package/${path}`);
    const target = href.replace("file:///outside/package/", "");
    if (target === "mod.ts" || target === "cli.ts") return target;
    if (path === "cli.ts" && layerOf(target) === "cli") return undefined;
    if (target === TYPES) return undefined;
    return LAYERS[layerOf(path)]?.includes(layerOf(target)) ? undefined : specifier;
  }
  if (isCli) return undefined;
  const isNode = specifier.startsWith("node:");
  return isNode && NODE.includes(layerOf(path)) ? undefined : specifier;
}

function faultsOf(path: string, source: string): string[] {
  return specifiersOf(source).map((specifier) => faultOf(path, specifier))
    .filter((fault) => fault !== undefined)
    .map((fault) => `${path} imports ${fault}`);
}

function sourcesIn(directory = ""): string[] {
  return [...Deno.readDirSync(new URL(directory, root))].flatMap(({ name, isDirectory }) => {
    const path = directory + name;
    if (isDirectory) {
      return directory || Object.hasOwn(LAYERS, name) ? sourcesIn(`${path}/`) : [];
    }
    return name.endsWith(".ts") ? [path] : [];
  });
}

Deno.test("each source file imports only what its layer may import", () => {
  const paths = sourcesIn();
  for (const layer of Object.keys(LAYERS)) {
    assert(paths.some((path) => layerOf(path) === layer), `no source files in ${layer}`);
  }
  const faults = paths.flatMap((path) =>
    faultsOf(path, Deno.readTextFileSync(new URL(path, root)))
  );
  assertEquals(faults, []);
});

/** Returns the files that a source file imports. */
function importsOf(path: string): string[] {
  return specifiersOf(Deno.readTextFileSync(new URL(path, root)))
    .filter((specifier) => specifier !== null && /^\.\.?\//.test(specifier))
    .map((specifier) => new URL(specifier!, `file:///${path}`).pathname.slice(1));
}

/** Returns the files of import circles: those that are left when files whose imports are all done are taken away. */
function circlesAmong(imports: Map<string, string[]>): string[] {
  const left = new Map(imports);
  for (let before = Infinity; left.size < before;) {
    before = left.size;
    for (const [path, targets] of left) {
      if (!targets.some((target) => left.has(target))) left.delete(path);
    }
  }
  return [...left.keys()];
}

Deno.test("no file imports itself by way of others, not even a type", () => {
  assertEquals(circlesAmong(new Map([["a", ["b"]], ["b", ["c"]], ["c", []]])), []);
  assertEquals(circlesAmong(new Map([["a", ["b"]], ["b", ["c"]], ["c", ["b"]]])), ["a", "b", "c"]);
  assertEquals(circlesAmong(new Map(sourcesIn().map((path) => [path, importsOf(path)]))), []);
});

/** The methods of the console that a file may call: anything else of it may throw, and end a daemon. */
function mayCall(path: string): RegExp {
  if (path === "io/log.ts" || path === "cgi.ts") return /./;
  // A command prints its result, and fails if it cannot.
  return path === "cli.ts" || layerOf(path) === "cli" ? /^console\.log$/ : /^$/;
}

Deno.test("each line of a log is written by io/log.ts", () => {
  const faults = sourcesIn().flatMap((path) => {
    const code = withoutComments(Deno.readTextFileSync(new URL(path, root)))
      .replace(/"[^"\n]*"|`[^`]*`/g, "");
    const calls = code.match(/\bconsole\.\w+|\bDeno\.std(?:out|err)\.write\w*/g) ?? [];
    return calls.filter((call) => !mayCall(path).test(call)).map((call) => `${path} calls ${call}`);
  });
  assertEquals(faults, []);
});

Deno.test("io/private_fields.ts alone reads private fields of the runtime", () => {
  const READS =
    /getOwnPropertySymbols|Deno\.internal|\.binding\b|\b_(?:handle|create)|Deno\.private/;
  const paths = sourcesIn().filter((path) =>
    READS.test(withoutComments(Deno.readTextFileSync(new URL(path, root))))
  );
  assertEquals(paths, ["io/private_fields.ts"]);
});

/** Removes comments, texts and patterns. What is left of a template is what it inserts. */
function codeOf(source: string): string {
  const inserted = (template: string) => (template.match(/\$\{[^}]*\}/g) ?? []).join(" ");
  return withoutComments(source)
    .replace(/"(?:[^"\\\n]|\\.)*"/g, '""')
    .replace(/\/(?![*/])(?:[^/\\\n[]|\\.|\[(?:[^\]\\\n]|\\.)*\])+\/[a-z]*(?=[.,;)\s?:]|$)/gm, "//")
    .replace(/`(?:[^`\\]|\\.)*`/gs, inserted);
}

/** Returns the globals of a runtime that a source file names, in code or types. */
function runtimeGlobalsIn(source: string): string[] {
  const code = codeOf(source);
  // A property, a member and a variable of one's own may have the name, too.
  const isOwn = !/\{ process \} = globalThis/.test(code) &&
    /\b(?:const|let|of|using) process\b|\{ (?:default: )?process \}|[(,]\s*process[,:)]/
      .test(code);
  const names = code.match(/(?<![.#\w$])(?:Deno|Bun|process|NodeJS)\b(?!\??:|\()/g) ?? [];
  return [...new Set(names)].filter((name) => name !== "process" || !isOwn);
}

/** The files that may name a global of the runtime: each says why. */
const SEAM: Record<string, string[]> = {
  // Chooses the adapter.
  "io/runtime.ts": ["Deno"],
  // The adapter for node: modules.
  "io/node.ts": ["process"],
  // Reads what is private.
  "io/private_fields.ts": ["Deno"],
  // Nothing else has Deno.telemetry.
  "io/telemetry.ts": ["Deno"],
  // The channel to the process that has started this one.
  "process/node_process.ts": ["process"],
  // Has programs that another process of Deno runs.
  "process/process_tree.ts": ["Deno"],
};

Deno.test("only io/ and process/ use the runtime, behind one seam", () => {
  const found = sourcesIn().filter((path) => path !== "cli.ts" && layerOf(path) !== "cli")
    .map((path) => [path, runtimeGlobalsIn(Deno.readTextFileSync(new URL(path, root)))] as const)
    .filter(([, names]) => names.length > 0);
  assertEquals(Object.fromEntries(found), SEAM);
});

Deno.test("runtimeGlobalsIn() finds globals in code and types", () => {
  const found: Record<string, string[]> = {
    "Deno.exit();": ["Deno"],
    "type A = Deno.Addr;": ["Deno"],
    "f(typeof Deno === `x`);": ["Deno"],
    "throw new Error(`${Deno.pid}`);": ["Deno"],
    "process.exit();": ["process"],
    "const { process } = globalThis;": ["process"],
    "type B = NodeJS.Process;": ["NodeJS"],
    "await Bun.file(a);": ["Bun"],
    'const a = "Deno.exit()";': [],
    "  // Deno.exit()\n": [],
    "a.Deno = this.#process.kill();": [],
    "for (const process of all) process.kill();": [],
  };
  for (const [source, names] of Object.entries(found)) {
    assertEquals(runtimeGlobalsIn(source), names, source);
  }
});

Deno.test("the adapter for node: modules imports nothing that runs", () => {
  const source = withoutComments(Deno.readTextFileSync(new URL("io/node.ts", root)));
  assertEquals(source.match(/^(?:import|export)\s(?!type\b).*from.*$/gm) ?? [], []);
  assertEquals(source.match(/\bimport\(/g), null);
});

Deno.test("only what Deno alone runs imports node:process", () => {
  const paths = sourcesIn().filter((path) =>
    layerOf(path) !== "cli" &&
    /^import (?!type).*"node:process"|import\("node:process"\)/m.test(
      withoutComments(Deno.readTextFileSync(new URL(path, root))),
    )
  );
  // Node reads process.stdin on such an import, which makes standard input non-blocking: a script could not read it.
  assertEquals(paths, ["io/private_fields.ts"]);
});

Deno.test("io/telemetry.ts alone uses Deno.telemetry", () => {
  const paths = sourcesIn().filter((path) =>
    withoutComments(Deno.readTextFileSync(new URL(path, root))).includes("Deno.telemetry")
  );
  assertEquals(paths, ["io/telemetry.ts"]);
});

Deno.test("each entry of exports is one top-level file", () => {
  const faces = sourcesIn().filter((path) => layerOf(path) === "face").map((path) => `./${path}`);
  assertEquals(Object.values(config.exports).toSorted(), faces.toSorted());
});

Deno.test("specifiersOf() finds each kind of import", () => {
  const source = `
/**
 * import { a } from "./comment.ts";
 */
// import("./comment.ts")
import "./side_effect.ts";
import a, { b } from "./static.ts";
import {
  c,
  type D,
} from "./lines.ts";
import type { E } from './type.ts';
import data from "./data.json" with { type: "json" };
export * from "./star.ts";
export { f } from "./named.ts";
export type { G } from "./named_type.ts";
export const h = "from";
export function i(from = "./default.ts") {
  return import("./dynamic.ts");
}
type J = import("./type_query.ts").J;
const k = await import(
  \`./template.ts\`
);
await import(name);
await import(\`./\${name}.ts\`);
const { url } = import.meta;
`;
  assertEquals(specifiersOf(source), [
    "./side_effect.ts",
    "./static.ts",
    "./lines.ts",
    "./type.ts",
    "./data.json",
    "./star.ts",
    "./named.ts",
    "./named_type.ts",
    "./dynamic.ts",
    "./type_query.ts",
    "./template.ts",
    null,
    null,
  ]);
});

Deno.test("faultsOf() enforces the table", () => {
  const allowed: Record<string, string[]> = {
    "wire/a.ts": ["./b.ts", "./deep/b.ts"],
    "bridge/a.ts": ["./b.ts", "../wire/a.ts", "../io/addr.ts"],
    "io/a.ts": ["./b.ts", "node:net"],
    "process/a.ts": ["./b.ts", "../io/a.ts", "node:net"],
    "debug/a.ts": ["./b.ts", "../bridge/a.ts", "../io/a.ts"],
    "server/a.ts": ["./b.ts", "../bridge/a.ts", "../wire/a.ts", "../io/a.ts"],
    "gateway/a.ts": ["./b.ts", "../bridge/a.ts", "../wire/a.ts", "../io/a.ts", "../process/a.ts"],
    "cgi.ts": ["./http.ts", "./wire/a.ts", "./server/a.ts", "./gateway/a.ts", "./debug/a.ts"],
    "cli.ts": ["./http.ts", "./cli/a.ts", "@std/cli/parse-args", "node:util"],
    "cli/a.ts": ["./b.ts", "../http.ts", "../io/a.ts", "@std/cli/parse-args", "node:util"],
  };
  const rejected: Record<string, string[]> = {
    "wire/a.ts": ["../bridge/a.ts", "../io/a.ts", "../cgi.ts", "../mod.ts", "node:net", "@std/io"],
    "wire/deep/a.ts": ["../../bridge/a.ts"],
    "bridge/a.ts": [
      ...["../io/a.ts", "../server/a.ts", "../gateway/a.ts", "../cgi.ts"],
      ...["node:util", "npm:hono", "jsr:@std/io"],
    ],
    "process/a.ts": ["../wire/a.ts", "../bridge/a.ts", "../server/a.ts"],
    "debug/a.ts": ["../server/a.ts", "../gateway/a.ts", "../process/a.ts"],
    "server/a.ts": ["../gateway/a.ts", "../process/a.ts", "../debug/a.ts", "../cgi.ts", "node:net"],
    "gateway/a.ts": ["../server/a.ts", "../debug/a.ts", "../cgi.ts", "node:net"],
    "gateway/deep/cgi.ts": ["../../server/a.ts"],
    "io/a.ts": [
      ...["../wire/a.ts", "../bridge/a.ts", "../process/a.ts", "../gateway/a.ts", "../cgi.ts"],
      ...["https://localhost/a.ts", "fs"],
    ],
    "cgi.ts": ["./mod.ts", "./cli.ts", "./tests/a.ts", "../a.ts", "node:net", "@std/assert"],
    "http.ts": ["./cli/a.ts"],
    "cli.ts": ["./mod.ts", "./scripts/a.ts"],
    "cli/a.ts": ["../mod.ts", "../cli.ts", "../scripts/a.ts"],
    "mod.ts": ["./cli.ts", "data:text/javascript,"],
  };
  for (const [path, specifiers] of Object.entries(allowed)) {
    for (const specifier of specifiers) {
      assertEquals(faultsOf(path, `import "${specifier}";`), []);
    }
  }
  for (const [path, specifiers] of Object.entries(rejected)) {
    for (const specifier of specifiers) {
      assertEquals(faultsOf(path, `import type { A } from "${specifier}";`).length, 1, specifier);
      assertEquals(faultsOf(path, `  await import("${specifier}");`).length, 1, specifier);
    }
  }
  assertEquals(faultsOf("cgi.ts", "await import(name);"), ["cgi.ts imports a computed specifier"]);
  assertEquals(faultsOf("cli.ts", "await import(name);"), []);
});
