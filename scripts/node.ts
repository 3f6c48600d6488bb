/**
 * Runs the tests of `wire/` and `bridge/` under Node's test runner, without a `Deno` global, to show that these layers
 * need nothing of Deno: `deno task node`. All their modules are loaded.
 */
import { sourcesIn } from "./sources.ts";

/** The tests of a layer that use no more of Deno than `Deno.test`. */
const TESTS = [
  "tests/wire/byte_buffer_test.ts",
  "tests/wire/byte_string_test.ts",
  "tests/wire/cgi_test.ts",
  "tests/wire/fastcgi_test.ts",
  "tests/wire/ip_address_test.ts",
  "tests/wire/scgi_test.ts",
  "tests/wire/variables_test.ts",
  "tests/server/forwarded_test.ts",
  "tests/server/request_body_test.ts",
  "tests/bridge/request_variables_test.ts",
];

const root = new URL("..", import.meta.url);
const modules = ["wire/", "bridge/"].flatMap((layer) => sourcesIn(root, layer));
const paths = ["tests/node/before.ts", ...modules, ...TESTS, "tests/node/after.ts"];

function run(command: string, args: string[]): boolean {
  return new Deno.Command(command, { args, stdout: "inherit", stderr: "inherit" })
    .outputSync().success;
}

const directory = Deno.makeTempDirSync();
try {
  const entry = `${directory}/entry.ts`;
  const bundle = `${directory}/bundle.mjs`;
  const imports = paths.map((path) => `import ${JSON.stringify(new URL(path, root).href)};\n`);
  Deno.writeTextFileSync(entry, imports.join(""));
  const importMap = `--import-map=${Deno.env.get("GATEHOUSE_IMPORT_MAP")}`;
  const bundled = run(Deno.execPath(), [
    "bundle",
    "--quiet",
    "--no-config",
    importMap,
    "--output",
    bundle,
    entry,
  ]);
  const success = bundled && run("node", ["--test", "--test-reporter=spec", bundle]);
  console.log(`${modules.length} modules and ${TESTS.length} test files`);
  if (!success) Deno.exitCode = 1;
} finally {
  Deno.removeSync(directory, { recursive: true });
}
