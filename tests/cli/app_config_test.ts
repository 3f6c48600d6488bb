import { assertEquals } from "@std/assert";
import { findConfig, parseConfig } from "../../cli/app_config.ts";
import { type ChildConfig, withConfig, withLock } from "../../cli/child_command.ts";
import { text } from "../testing/bytes.ts";
import { ROOT } from "../testing/daemon.ts";

/** Writes files into a new folder, and removes it after the test. */
async function withFiles(
  files: Record<string, string>,
  use: (folder: string) => Promise<void> | void,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    for (const [name, source] of Object.entries(files)) {
      const path = `${folder}/${name}`;
      await Deno.mkdir(path.slice(0, path.lastIndexOf("/")), { recursive: true });
      await Deno.writeTextFile(path, source);
    }
    await use(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("findConfig() finds the nearest config, and deno.json before the others", async () => {
  const files = {
    "deno.json": "{}",
    "deno.lock": "{}",
    "package.json": "{}",
    "a/deno.jsonc": "{}",
    "a/package.json": "{}",
    "a/b/app.ts": "",
    "c/package.json": "{}",
    "d/app.ts": "",
  };
  await withFiles(files, (folder) => {
    const found = (path: string) => findConfig(`${folder}/${path}`);
    const lock = `${folder}/deno.lock`;
    const path = `${folder}/deno.json`;
    const root = { path, flags: [`--config=${path}`], folder, lock };
    assertEquals(found("app.ts"), root);
    assertEquals(found("d/app.ts"), root);
    assertEquals(found("a/b/app.ts")?.flags, [`--config=${folder}/a/deno.jsonc`]);
    assertEquals(found("c/app.ts"), {
      path: `${folder}/c/package.json`,
      flags: ["--node-modules-dir=manual"],
      folder: `${folder}/c`,
      lock: undefined,
    });
    assertEquals(findConfig(`file://${folder}/d/app.ts`), root);
    assertEquals(findConfig("https://example.org/app.ts"), undefined);
  });
});

Deno.test("findConfig() finds the folder and the lock file of a workspace", async () => {
  const files = {
    "deno.lock": "{}",
    "root/deno.json": `{ "workspace": ["./web"] }`,
    "root/deno.lock": "{}",
    "root/web/deno.json": "{}",
  };
  await withFiles(files, (folder) => {
    const found = findConfig(`${folder}/root/web/app.ts`)!;
    assertEquals([found.folder, found.lock], [`${folder}/root`, `${folder}/root/deno.lock`]);
  });
});

Deno.test("findConfig() finds the lock file that the config names, unless it turns it off", async () => {
  const files = {
    "deno.lock": "{}",
    "other.lock": "{}",
    "a/deno.json": `{ "lock": "../other.lock" }`,
    "b/deno.json": `{ "lock": { "path": "../other.lock", "frozen": true } }`,
    "c/deno.json": `{ "lock": { "frozen": true } }`,
    "c/deno.lock": "{}",
    "d/deno.json": `{ "lock": false }`,
    "d/deno.lock": "{}",
    "e/deno.json": `{}`,
  };
  await withFiles(files, (folder) => {
    const found = ["a", "b", "c", "d", "e"].map((name) =>
      findConfig(`${folder}/${name}/x.ts`)?.lock
    );
    const other = `${folder}/other.lock`;
    assertEquals(found, [other, other, `${folder}/c/deno.lock`, undefined, undefined]);
  });
});

Deno.test("findConfig() has Deno treat the files of a CommonJS package as such", async () => {
  await withFiles({ "package.json": `{ "type": "commonjs" }` }, (folder) => {
    assertEquals(findConfig(`${folder}/app.js`)?.flags, [
      "--node-modules-dir=manual",
      "--unstable-detect-cjs",
    ]);
  });
});

Deno.test("parseConfig() parses comments and commas at the end of a list", () => {
  const source = `{ // one
    "a": ["//", "/* */,]", 1,], /* two
    */ "b": { "c": "\\"//", },
  }`;
  assertEquals(parseConfig(source), { a: ["//", "/* */,]", 1], b: { c: '"//' } });
  assertEquals(parseConfig("{"), null);
});

const APP: ChildConfig = {
  path: "/srv/app/deno.json",
  flags: ["--config=/srv/app/deno.json"],
  folder: "/srv/app",
  lockFlags: ["--lock=/cache/copy.lock", "--frozen=false"],
};
const NODE: ChildConfig = {
  path: "/srv/app/package.json",
  flags: ["--node-modules-dir=manual"],
  folder: "/srv/app",
  lockFlags: ["--no-lock"],
};
const OWN: ChildConfig = {
  path: "/home/ann/deno.json",
  flags: ["--config=/home/ann/deno.json"],
  folder: "/home/ann",
  lockFlags: ["--no-lock"],
};
const INSTALLED = "/home/ann/.deno/bin/.gatehouse/deno.json";

const ADDED = "--config=/srv/app/deno.json --lock=/cache/copy.lock --frozen=false";
const OWN_ADDED = "--config=/home/ann/deno.json --no-lock";

const FLAGS: [name: string, given: string, app: ChildConfig | undefined, flags: string][] = [
  ["adds the app's config and lock file", "-A", APP, `-A ${ADDED}`],
  ["adds nothing if the app has none", "-A", undefined, "-A"],
  [
    "replaces the config of an installed command",
    `-A --quiet --config ${INSTALLED} --cached-only`,
    APP,
    `-A --quiet --cached-only ${ADDED}`,
  ],
  [
    "keeps that one if the app has none",
    `-A --config ${INSTALLED}`,
    undefined,
    `-A --config ${INSTALLED}`,
  ],
  ["keeps a config that is given", "--config other.json -A", APP, "--config other.json -A"],
  ["keeps a config that is given as one word", "--config=other.json", APP, "--config=other.json"],
  ["keeps a config that is given by a letter", "-c other.json", APP, "-c other.json"],
  ["keeps --no-config", "--no-config", APP, "--no-config"],
  ["adds node_modules for a package.json", "-A", NODE, "-A --node-modules-dir=manual --no-lock"],
  ["keeps another lock file", "--lock=a", APP, "--lock=a --config=/srv/app/deno.json"],
  ["keeps --no-lock", "--no-lock", APP, "--no-lock --config=/srv/app/deno.json"],
  ["keeps --frozen", "--frozen", APP, "--frozen --config=/srv/app/deno.json"],
  ["keeps another --node-modules-dir", "--node-modules-dir", NODE, "--node-modules-dir --no-lock"],
  ["keeps this process's config for a permission set", "-P", APP, `-P ${OWN_ADDED}`],
  ["does so for a named set", "-P=web", APP, `-P=web ${OWN_ADDED}`],
  ["does so in a group of letters", "-qP", APP, `-qP ${OWN_ADDED}`],
  ["does so for the long name", "--permission-set=a", APP, `--permission-set=a ${OWN_ADDED}`],
  ["keeps an installed command's set", `-P --config ${INSTALLED}`, APP, `-P --config ${INSTALLED}`],
];
for (const [name, given, app, flags] of FLAGS) {
  Deno.test(`withConfig() ${name}`, () => {
    const added = withConfig(given.split(" "), { app, own: OWN });
    const all = added.config === undefined ? added.flags : withLock(added.flags, added.config);
    assertEquals(all.join(" "), flags);
  });
}

Deno.test("findConfig() throws where it may not look", async () => {
  const script = `import { findConfig } from "${ROOT}cli/app_config.ts";
try {
  console.log(findConfig(Deno.args[0])?.path);
} catch (error) {
  console.log(error.name);
}`;
  await withFiles({ "deno.json": "{}", "find.ts": script }, async (folder) => {
    const find = async (module: string, allowed: string) => {
      const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
        args: ["run", "--no-prompt", "--no-config", `--allow-read=${allowed}`, "find.ts", module],
        cwd: folder,
      }).output();
      return text(stdout) + text(stderr);
    };
    assertEquals(await find("app.ts", folder), `${folder}/deno.json\n`);
    assertEquals(await find("app.ts", "/nonexistent"), "NotCapable\n");
    assertEquals(await find("a/app.ts", `${folder}/a`), "NotCapable\n");
  });
});
