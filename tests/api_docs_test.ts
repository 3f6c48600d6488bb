import { assert, assertEquals } from "@std/assert";
import config from "../deno.json" with { type: "json" };
import { ROOT } from "./testing/daemon.ts";
import { deadline } from "./testing/deadline.ts";

const ENTRIES = Object.values(config.exports);

async function deno(...args: string[]): Promise<string> {
  const [command, ...rest] = args;
  const importMap = Deno.env.get("GATEHOUSE_IMPORT_MAP");
  const map = importMap ? [`--import-map=${importMap}`] : [];
  const running = new Deno.Command(Deno.execPath(), {
    args: [command, ...map, ...rest],
    cwd: ROOT,
    env: { NO_COLOR: "1" },
  }).output();
  const { success, stdout, stderr } = await deadline(running, `deno ${command}`, 600_000);
  const text = new TextDecoder().decode(stdout);
  assert(success, text + new TextDecoder().decode(stderr));
  return text;
}

Deno.test("the examples in the documentation of exports run", async () => {
  const permissions = ["read", "write", "env", "run", "net"].map((name) => `--allow-${name}`);
  const folders = ["bridge", "server", "gateway", "process", "io", "wire"];
  // `deno task check` has checked their types.
  const flags = ["--doc", "--no-check", "--no-prompt", ...permissions];
  const output = await deno("test", ...flags, ...ENTRIES, ...folders);
  const [, passed] = /ok \| (\d+) passed/.exec(output) ?? [];
  assert(Number(passed) >= 19, output);
});

let json: Promise<string> | undefined;
/** Returns the documentation of all exports as JSON. */
const documentation = () => json ??= deno("doc", "--json", ...ENTRIES);

interface Documented {
  /** The text before the tags, and the tags: those that `deno doc` does not know have only a value. */
  jsDoc?: { doc?: string; tags?: { kind: string; value?: string }[] };
}

interface Property extends Documented {
  name: string;
  optional?: boolean;
  tsType?: { repr: string };
}

interface Declaration extends Documented {
  kind: string;
  def?: { properties?: Property[] };
}

interface Documentation {
  nodes: Record<string, { symbols: { name: string; declarations: Declaration[] }[] }>;
}

Deno.test("each exported function has an example", async () => {
  const { nodes }: Documentation = JSON.parse(await documentation());
  const faults: string[] = [];
  let functions = 0;
  for (const [url, { symbols }] of Object.entries(nodes)) {
    for (const { name, declarations } of symbols) {
      if (!declarations.some(({ kind }) => kind === "function")) continue;
      functions++;
      // The implementation of overloads has no documentation.
      const tags = declarations.flatMap(({ jsDoc }) => jsDoc?.tags ?? []);
      if (!tags.some(({ kind }) => kind === "example")) {
        faults.push(`${name} of ${url.slice(url.lastIndexOf("/") + 1)} has no example`);
      }
    }
  }
  assertEquals(faults, []);
  assert(functions > 10);
});

Deno.test("each exported option has a default, and if it is a number its unit and range", async () => {
  const { nodes }: Documentation = JSON.parse(await documentation());
  const symbols = Object.values(nodes).flatMap(({ symbols }) => symbols);
  const faults = new Set<string>();
  const options = new Set<string>();
  for (const { name: owner, declarations } of symbols) {
    if (!owner.endsWith("Options")) continue;
    const properties = declarations.flatMap(({ def }) => def?.properties ?? []);
    for (const { name, optional, tsType, jsDoc: { doc = "", tags = [] } = {} } of properties) {
      options.add(`${owner}.${name}`);
      const fault = (what: string) => faults.add(`${owner}.${name} has no ${what}`);
      const hasDefault = tags.some(({ kind, value = "" }) =>
        kind === "default" || /^@default \S/.test(value)
      );
      if (optional && !hasDefault) fault("default");
      if (tsType?.repr !== "number") continue;
      if (!/\bfrom \d/.test(doc)) fault("range");
      if (/Timeout$|Age$/i.test(name) && !/\bmilliseconds\b/.test(doc)) fault("unit");
      if (/Bytes|Body|Total|Memory/.test(name) && !/\bbytes\b/.test(doc)) fault("unit");
    }
  }
  assertEquals([...faults], []);
  assert(options.size > 80, `${options.size} options`);
});

Deno.test("the documentation of exports cites no rule: editors show it without docs/protocols.md", async () => {
  const text = await documentation();
  assertEquals(text.match(/\brules? [A-F]\d+[^"]{0,40}/g), null);
});

Deno.test("deno doc --html builds a page for each export", async () => {
  const directory = await Deno.makeTempDir();
  await deno("doc", "--html", "--name=Gatehouse", `--output=${directory}`, ...ENTRIES);
  for (const name of Object.keys(config.exports)) {
    await Deno.stat(`${directory}/${name}/index.html`);
  }
  await Deno.remove(directory, { recursive: true });
});

Deno.test("each row of the threats in SECURITY.md has tests that cite its rule", async () => {
  const page = await Deno.readTextFile(`${ROOT}SECURITY.md`);
  const rows = [...page.matchAll(/^\| .+ \| ([A-F]\d+) +\| (`.+`) +\|$/gm)];
  assert(rows.length >= 16);
  for (const [, rule, files] of rows) {
    for (const [, file] of files.matchAll(/`(.+?)`/g)) {
      const source = await Deno.readTextFile(ROOT + file);
      assert(new RegExp(`\\(rules? [^)]*\\b${rule}\\b`).test(source), `${rule} in ${file}`);
    }
  }
});

Deno.test("SECURITY.md names options that exist", async () => {
  const page = await Deno.readTextFile(`${ROOT}SECURITY.md`);
  const [, table] = page.split("## What each option permits");
  const options = [...table.split("## ")[0].matchAll(/^\| (`.+?) +\|/gm)]
    .flatMap(([, cell]) => [...cell.matchAll(/`(\w+)[:`]/g)].map(([, name]) => name));
  const files = [
    "bridge/app.ts",
    "server/limits.ts",
    "server/server.ts",
    "io/listen.ts",
    "scgi.ts",
  ];
  const sources = await Promise.all(
    [...files, "fastcgi.ts", "gateway/options.ts"].map((file) => Deno.readTextFile(ROOT + file)),
  );
  for (const name of options) assert(sources.join("").includes(`  ${name}?:`), name);
  assert(options.length > 10);
});
