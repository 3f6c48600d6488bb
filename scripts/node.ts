/**
 * Runs the tests of the core on Node and Bun, or on those programs that the arguments name: `deno task node`. All modules of `wire/` and `bridge/` are loaded. What is
 * not installed is left out.
 */
import { sourcesIn } from "./sources.ts";

/** Tests that use no more of Deno than `tests/node/before.ts` has. */
const TESTS = [
  ...["byte_buffer", "byte_string", "cgi", "fastcgi", "ip_address", "scgi", "variables"]
    .map((name) => `tests/wire/${name}_test.ts`),
  "tests/bridge/request_variables_test.ts",
  "tests/bridge/request_test.ts",
  ...[
    "forwarded",
    "limits",
    "local_redirect",
    "peers",
    "request_body",
    "respond",
    "running_requests",
  ]
    .map((name) => `tests/server/${name}_test.ts`),
  ...["lifecycle", "limits", "model", "protocol", "roles"]
    .map((name) => `tests/fastcgi/${name}_test.ts`),
  "tests/scgi_test.ts",
  "tests/leak_test.ts",
  ...["channel", "connection_pool", "progress", "roster", "ticker"]
    .map((name) => `tests/io/${name}_test.ts`),
  ...["fastcgi", "response", "scgi", "timeout"].map((name) => `tests/gateway/${name}_test.ts`),
];

/** The number of processes for each runtime. */
const PARTS = 4;

const root = new URL("..", import.meta.url);
const modules = ["wire/", "bridge/"].flatMap((layer) => sourcesIn(root, layer));
const paths = ["tests/node/before.ts", ...modules, ...TESTS, "tests/node/after.ts"];

function run(command: string, args: string[]): boolean {
  return new Deno.Command(command, { args, stdout: "inherit", stderr: "inherit" })
    .outputSync().success;
}

/** Runs the tests on each runtime, in several processes as most of them wait. */
async function runAll(commands: string[], bundle: string): Promise<boolean> {
  const parts = commands.flatMap((command) =>
    Array.from({ length: PARTS }, (_, part) => ({ command, part }))
  );
  const outcomes = await Promise.all(parts.map(async ({ command, part }) => {
    const { success, stdout, stderr } = await new Deno.Command(command, {
      args: [bundle, String(part), String(PARTS)],
    }).output();
    const text = new TextDecoder();
    console.log(`${command} ${part + 1}/${PARTS}: ${text.decode(stdout)}${text.decode(stderr)}`);
    return success;
  }));
  return outcomes.every(Boolean);
}

/** Returns whether a runtime is installed, and new enough. */
function isInstalled(command: string, major: number): boolean {
  try {
    const { stdout } = new Deno.Command(command, { args: ["--version"] }).outputSync();
    return Number(/\d+/.exec(new TextDecoder().decode(stdout))?.[0]) >= major;
  } catch {
    return false;
  }
}

const directory = Deno.makeTempDirSync();
try {
  const entry = `${directory}/entry.ts`;
  const bundle = `${directory}/bundle.mjs`;
  const imports = paths.map((path) => `import ${JSON.stringify(new URL(path, root).href)};\n`);
  Deno.writeTextFileSync(entry, imports.join(""));
  const importMap = `--import-map=${Deno.env.get("GATEHOUSE_IMPORT_MAP")}`;
  let success = run(Deno.execPath(), [
    "bundle",
    "--quiet",
    "--no-config",
    importMap,
    "--output",
    bundle,
    entry,
  ]);
  const installed = ([["node", 24], ["bun", 1]] as const)
    .filter(([command, major]) => isInstalled(command, major)).map(([command]) => command);
  const runtimes = Deno.args.length > 0 ? Deno.args : installed;
  if (success) success = await runAll(runtimes, bundle);
  console.log(`${modules.length} modules and ${TESTS.length} test files`);
  if (runtimes.length === 0) console.log("Neither Node 24 nor Bun is installed");
  if (!success || runtimes.length === 0) Deno.exitCode = 1;
} finally {
  Deno.removeSync(directory, { recursive: true });
}
