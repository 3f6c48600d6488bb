import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { dirname } from "node:path";
import { shellQuote } from "../../debug/shell_command.ts";
import { type FindingId, FINDINGS } from "../../cli/doctor/findings.ts";
import { callCommandLine, importMapFlags, runCommandLine } from "../testing/command_line.ts";
import { ROOT } from "../testing/daemon.ts";
import { testWith } from "../testing/needs.ts";
import { exportingTo } from "../testing/otlp_receiver.ts";
import { Registry } from "../testing/registry.ts";
import { Sandbox } from "../testing/sandbox.ts";

/** A valid script. */
const RIGHT = `#!/usr/bin/env -S deno run --allow-env
import { serve } from "${ROOT}mod.ts";
const app = () => new Response("Hello");
await serve(app);
`;
/** A valid script without Deno or the sources, so that any user can run it. */
const SHELL = `#!/bin/sh
echo "Content-Type: text/plain"
echo
echo Hello
`;
/** A Deno script that imports nothing. */
const BARE = `#!/usr/bin/env -S deno run --allow-env
console.log("Status: 200 OK\\r\\nContent-Type: text/plain\\r\\n\\r\\nHello");
`;
const SPECIFIER = "jsr:@gatehouse/cgi@0.3";
const isRoot = Deno.uid() === 0;

/** A folder that all users can enter, with a copy of Deno that all can run. */
const directory = await Deno.makeTempDir({ prefix: "gatehouse" });
const bin = `${directory}/bin`;
await Deno.chmod(directory, 0o755);
await Deno.mkdir(bin);
await Deno.link(Deno.execPath(), `${bin}/deno`)
  .catch(() => Deno.copyFile(Deno.execPath(), `${bin}/deno`));
await Deno.mkdir(`${directory}/cache`);
await Deno.chmod(`${directory}/cache`, 0o777);
const registry = new Registry();
Deno.test.afterAll(async () => {
  await registry[Symbol.asyncDispose]();
  await Deno.remove(directory, { recursive: true });
});

const PATH = ["--env", `PATH=${bin}:/usr/local/bin:/usr/bin:/bin`];
const CACHE = ["--env", `DENO_DIR=${directory}/cache`];
const JSR = ["--env", `JSR_URL=${registry.url}`, "--env", "NO_COLOR=1"];
const asSelf = isRoot ? ["--user", "root"] : [];
const asNobody = ["--user", "nobody"];
const USUAL = [...asSelf, ...PATH, ...CACHE];

let count = 0;
/** Makes a folder. */
function makeFolder(mode = 0o755): string {
  const folder = `${directory}/${++count}`;
  Deno.mkdirSync(folder);
  Deno.chmodSync(folder, mode);
  return folder;
}
/** The port of a listener that accepts connections and never responds. */
const SILENT = Deno.listen({ hostname: "127.0.0.1", port: 0 }).addr.port;

/** Writes a script into a folder of its own. */
function write(text: string, name = "hello.ts", mode = 0o755): string {
  const path = `${makeFolder()}/${name}`;
  Deno.writeTextFileSync(path, text);
  Deno.chmodSync(path, mode);
  return path;
}

interface Diagnosis {
  code: number;
  stdout: string;
  ids: string[];
  /** The lines of shell. */
  lines: string[];
  /** The advice of the findings that have no line. */
  advice: string[];
}

function parse(code: number, stdout: string): Diagnosis {
  const found = [...stdout.matchAll(/^.* \[([a-z-]+)\]\n(?: {4}(.+)| {2}(.+))$/gm)];
  const column = (i: number) => found.map((match) => match[i]).filter((text) => text !== undefined);
  return { code, stdout, ids: column(1), lines: column(2), advice: column(3) };
}

/** Runs doctor. @returns Its exit code, its output and its findings. */
async function doctor(script: string, ...args: string[]): Promise<Diagnosis> {
  const { code, stdout, stderr } = await callCommandLine("doctor", script, ...args);
  assertEquals(stderr, "");
  return parse(code, stdout);
}

async function runLine(line: string): Promise<void> {
  const { success, stderr } = await new Deno.Command("sh", { args: ["-c", line] }).output();
  assert(success, `${line}\n${new TextDecoder().decode(stderr)}`);
}

Deno.test("doctor finds nothing wrong with a valid script", async () => {
  for (const [script, args] of [[write(RIGHT), USUAL], [write(SHELL, "hello"), asSelf]] as const) {
    const { code, stdout, ids } = await doctor(script, ...args);
    assertEquals([code, ids], [0, []], stdout);
    assertStringIncludes(stdout, "Nothing is wrong.");
    assertMatch(
      stdout,
      /^The trial: exit code 0. A web server makes of it: 200, text\/plain.*, [56] bytes$/m,
    );
    assertStringIncludes(stdout, "\n    Hello");
  }
});

/** How to break a script. */
interface Break {
  id: FindingId;
  /** How this case differs from others of the same kind. */
  how?: string;
  /** Returns the path of a broken script. */
  make(): string;
  args?: string[];
  /** Further text of the output. */
  says?: string;
  /** Whether a line of shell fixes it, after which nothing is wrong; or the finding that is left then. */
  fixed?: true | FindingId;
  /** Whether only root can try it, as another user runs the script. */
  root?: boolean;
}

/** The finding that a script is broken by which another user must own. */
function ownedBy(uid: number, path: string): string {
  Deno.chownSync(path, uid, uid);
  return path;
}

const NOBODY = 65534;
const DATABASE = `import { DatabaseSync } from "node:sqlite";
import { serve } from "${ROOT}mod.ts";
const app = (request) => {
  if (request.method === "GET") return new Response("A form");
  using database = new DatabaseSync("DATA");
  database.exec("CREATE TABLE IF NOT EXISTS entry (name TEXT)");
  database.exec("INSERT INTO entry VALUES ('Ann')");
  return new Response("Thanks");
};
await serve(app);
`;
const FORM = [...asNobody, ...PATH, ...CACHE, "--data", "name=Ann"];
/** A script that writes to a database when it gets a form. */
function writeDatabase(data: string): string {
  const first = "#!/usr/bin/env -S deno run --allow-env --allow-read --allow-write=/tmp";
  return write(`${first}\n${DATABASE.replace("DATA", data)}`, "hello.js");
}

const BREAKS: Break[] = [
  {
    id: "missing",
    make: () => write(SHELL, "hello.sh").replace("hello", "hallo"),
    says: "has hello.sh",
  },
  { id: "folder", make: () => write(SHELL).replace(/\/hello\.ts$/, ""), says: "it has hello.ts" },
  {
    id: "foreign-link",
    root: true,
    args: asNobody,
    make() {
      const link = `${makeFolder()}/hello`;
      Deno.symlinkSync(write(SHELL, "hello", 0o700), link);
      const { success } = new Deno.Command("chown", { args: ["-h", "nobody", link] }).outputSync();
      assert(success);
      return link;
    },
  },
  { id: "run-bit", make: () => write(RIGHT, "hello.ts", 0o644), fixed: true },
  {
    id: "run-bit",
    how: "of a private script",
    make: () => write(RIGHT, "hello.ts", 0o600),
    fixed: true,
  },
  {
    id: "unreadable",
    how: "by its folders",
    root: true,
    args: asNobody,
    make() {
      const folder = `${makeFolder(0o700)}/inner`;
      Deno.mkdirSync(folder, { mode: 0o700 });
      Deno.writeTextFileSync(`${folder}/hello`, SHELL, { mode: 0o755 });
      return `${folder}/hello`;
    },
    fixed: true,
  },
  {
    id: "unreadable",
    how: "by its mode",
    root: true,
    args: asNobody,
    make: () => write(SHELL, "hello", 0o711),
    fixed: true,
  },
  {
    id: "unreadable",
    how: "by the mode of its group",
    root: true,
    args: asNobody,
    make() {
      const script = write(SHELL, "hello");
      Deno.chownSync(script, 0, NOBODY);
      Deno.chmodSync(script, 0o715);
      return script;
    },
    fixed: true,
  },
  { id: "writable", make: () => write(RIGHT, "hello.ts", 0o777), fixed: true },
  {
    id: "writable",
    how: "by its folder",
    make() {
      const script = write(RIGHT);
      Deno.chmodSync(script.replace(/\/hello\.ts$/, ""), 0o777);
      return script;
    },
    fixed: true,
  },
  {
    id: "writable",
    how: "in a folder for all users",
    make() {
      const script = write(SHELL, "hello");
      Deno.chmodSync(script.replace(/\/hello$/, ""), 0o1777);
      return script;
    },
    args: asSelf,
    says: "Move the script",
  },
  { id: "bom", make: () => write(`\u{feff}${RIGHT}`), fixed: true },
  { id: "crlf", make: () => write(SHELL.replaceAll("\n", "\r\n")), args: asSelf, fixed: true },
  { id: "first-line", make: () => write(RIGHT.replace(/^.*\n/, "")), fixed: true },
  {
    id: "first-line",
    how: "of Python",
    make: () => write('print("Content-Type: text/plain\\n\\nHello")\n', "hello.py"),
    fixed: true,
  },
  {
    id: "first-line",
    how: "of an unknown language",
    make: () => write(SHELL.replace(/^.*\n/, ""), "hello"),
    args: asSelf,
    says: "Begin it with a line",
  },
  {
    id: "node-name",
    make() {
      // In place of Node, which is not installed everywhere.
      const node = write(
        `#!/bin/sh
case $(readlink -f "$1") in
  *.mjs) printf "Content-Type: text/plain\\n\\nHello" ;;
  *) echo 'TypeError [ERR_UNKNOWN_FILE_EXTENSION]: Unknown file extension ".cgi"' >&2; exit 1 ;;
esac
`,
        "node",
      );
      return write(`#!${node}\nimport { serve } from "@gatehouse/cgi";\n`, "app.cgi");
    },
    args: asSelf,
    says: "no module whose name ends in .cgi",
    fixed: true,
  },
  {
    id: "env-s",
    how: "with env",
    make: () => write(RIGHT.replace("env -S deno", "env deno")),
    fixed: true,
  },
  {
    id: "env-s",
    how: "with the program's path",
    make: () => write(RIGHT.replace("/usr/bin/env -S deno", `${bin}/deno`)),
    fixed: true,
  },
  {
    id: "interpreter",
    how: "not on PATH",
    make: () => write(RIGHT),
    args: [...asSelf, ...CACHE, "--env", "PATH=/opt/absent"],
    says: "deno is not on the web server's PATH, /opt/absent",
    fixed: true,
  },
  {
    id: "interpreter",
    how: "not at its path",
    make: () => write(SHELL.replace("/bin/sh", "/opt/absent/sh")),
    says: "/opt/absent/sh is not there",
    fixed: true,
  },
  {
    id: "interpreter",
    how: "not at its path, with arguments",
    make: () => write(RIGHT.replace("S deno", "S /opt/absent/deno")),
    says: "/opt/absent/deno is not there",
    fixed: true,
  },
  {
    id: "interpreter",
    how: "in the home directory, as a shell writes it",
    make: () => write(RIGHT.replace("S deno", "S ~/.deno/bin/deno")),
    says: "~/.deno/bin/deno is not there, as only a shell replaces ~ and $HOME",
    fixed: true,
  },
  {
    id: "interpreter",
    how: "below $HOME",
    make: () => write(RIGHT.replace("S deno", "S $HOME/.deno/bin/deno")),
    says: "$HOME/.deno/bin/deno is not there, as only a shell replaces ~ and $HOME",
    fixed: true,
  },
  {
    id: "interpreter",
    how: "misspelt",
    make: () => write(RIGHT.replace("deno run", "denno run")),
    says: "denno is not on",
    fixed: true,
  },
  {
    id: "interpreter",
    how: "misspelt, by its path",
    make: () => write(RIGHT.replace("/usr/bin/env", "/usr/bin/evn")),
    says: "/usr/bin/evn is not there",
    fixed: true,
  },
  {
    id: "interpreter",
    how: "that is not installed",
    make: () => write(SHELL.replace("/bin/sh", "/usr/bin/cobol-with-a-long-name"), "hello"),
    says: "Install /usr/bin/cobol-with-a-long-name",
  },
  {
    id: "interpreter-denied",
    root: true,
    args: asNobody,
    make() {
      const program = write(SHELL, "program", 0o700);
      return write(`#!${program}\n`, "hello");
    },
    fixed: true,
  },
  {
    id: "allow-env",
    make: () => write(RIGHT.replace(" --allow-env", "")),
    fixed: true,
  },
  {
    id: "allow-env",
    how: "without run",
    make: () => write(RIGHT.replace(" run --allow-env", "").replace("env -S ", "env ")),
    fixed: true,
  },
  {
    id: "syntax",
    make: () => write(RIGHT.replace("await serve(", "await serve((")),
    says: "Expected",
  },
  {
    id: "extension",
    make: () => write(RIGHT.replace("= () =>", ": () => Response = () =>"), "hello.cgi"),
    fixed: true,
  },
  {
    id: "import",
    make: () =>
      write(
        RIGHT.replace(/"\/.*"/, `"${SPECIFIER}"`).replace("run", "run --cached-only"),
      ),
    args: [...asSelf, ...PATH, ...JSR, "--env", `DENO_DIR=${directory}/empty`],
    fixed: true,
  },
  {
    id: "module",
    how: "of a file",
    make: () => write(RIGHT.replace("mod.ts", "absent.ts")),
    says: `Module not found "file://${ROOT}absent.ts"`,
  },
  {
    id: "module",
    how: "by its bare name",
    make: () => write(RIGHT.replace(/"\/.*"/, '"hono"')),
    says: '"hono" not a dependency',
  },
  {
    id: "permission",
    how: "when it starts",
    make: () => write(RIGHT.replace("await", 'Deno.readTextFileSync("/etc/hostname");\nawait')),
    says: 'Requires read access to "/etc/hostname"',
    fixed: true,
  },
  {
    id: "permission",
    how: "when it responds",
    make: () => write(RIGHT.replace("() =>", '() => Deno.statSync("/etc/hostname") && ')),
    says: 'Requires read access to "/etc/hostname"',
    fixed: true,
  },
  {
    id: "permission",
    how: "of a path with odd characters",
    make() {
      const path = write("", "a b,'c'\"$d&|\\#");
      return write(
        RIGHT.replace("await", () => `Deno.readTextFileSync(${JSON.stringify(path)});\nawait`),
      );
    },
    fixed: true,
  },
  {
    id: "listens",
    how: "without a permission",
    make: () =>
      write(`#!/usr/bin/env -S deno run --allow-env\nDeno.serve(() => new Response("Hello"));\n`),
    args: [...USUAL, ...JSR],
    fixed: true,
  },
  {
    id: "listens",
    how: "with options",
    make: () =>
      write(
        `#!/usr/bin/env -S deno run --allow-env --allow-net\nconst server = Deno.serve({ port: 0 }, () => new Response("Hello"));\n`,
      ),
    args: [...USUAL, ...JSR, "--timeout", "2"],
    fixed: true,
  },
  {
    id: "listens",
    how: "in another way",
    make: () =>
      write(
        `#!/usr/bin/env -S deno run --allow-env\nimport { createServer } from "node:http";\ncreateServer(() => {}).listen(0);\n`,
      ),
    says: `Pass its handler to serve() of ${SPECIFIER}`,
  },
  {
    id: "storage",
    how: "in a folder of its own",
    root: true,
    args: FORM,
    make() {
      const data = makeFolder();
      Deno.writeTextFileSync(`${data}/guestbook.db`, "");
      return writeDatabase(`${data}/guestbook.db`);
    },
    says: "guestbook.db: ",
    fixed: true,
  },
  {
    id: "storage",
    how: "in a folder that does not exist",
    root: true,
    args: FORM,
    make: () => writeDatabase(`${makeFolder()}/data/guestbook.db`),
    says: "/data: Error: unable to open database file",
    fixed: true,
  },
  {
    id: "storage",
    how: "in one file",
    root: true,
    args: asNobody,
    make() {
      const data = write("", "counter", 0o644);
      return write(SHELL.replace("\n", `\nset -e\necho x >> ${data}\n`), "hello");
    },
    says: "nobody may not write /",
    fixed: true,
  },
  {
    id: "storage",
    how: "beside the script",
    root: true,
    args: FORM,
    make: () => writeDatabase("guestbook.db"),
    says: "a folder of its own",
  },
  {
    id: "memory",
    make: () => write(RIGHT),
    args: [...USUAL, "--memory", "512m"],
    says: "Fatal process out of memory",
    fixed: true,
  },
  {
    id: "node-version",
    make() {
      // In place of an old Node.
      const node = write(
        `#!/bin/sh
echo "SyntaxError: Unexpected identifier '_'" >&2
echo "Node.js v20.20.2" >&2
exit 1
`,
        "node",
      );
      return write(`#!${node}\n// node_modules/@gatehouse/cgi/mod.js\n`, "app.mjs");
    },
    args: asSelf,
    says: "Node 20.20.2, which runs the script, is too old for Gatehouse: SyntaxError",
  },
  {
    id: "throws",
    how: "on an old Node, without Gatehouse",
    make() {
      const node = write(
        "#!/bin/sh\nprintf 'Error: no\\nNode.js v20.20.2\\n' >&2\nexit 1\n",
        "node",
      );
      return write(`#!${node}\n`, "app.mjs");
    },
    args: asSelf,
    says: "Error: no",
  },
  {
    id: "throws",
    make: () => write(RIGHT.replace("await", 'throw new Error("no database");\nawait')),
    says: "Error: no database",
  },
  {
    id: "telemetry",
    make: () =>
      write(
        RIGHT.replace(
          "-S ",
          `-S ${Object.entries(exportingTo(SILENT)).map((v) => v.join("=")).join(" ")} `,
        ),
      ),
    args: [...USUAL, "--timeout", "8"],
    fixed: true,
  },
  {
    id: "slow",
    make: () =>
      write(
        RIGHT.replace("await", "setInterval(() => {}, 1000);\nawait new Promise(() => {});\nawait"),
      ),
    args: [...USUAL, "--timeout", "1"],
    says: "within 1 seconds",
  },
  {
    id: "left-open",
    make: () => write(`${SHELL}sleep 100 &\n`, "hello"),
    args: [...asSelf, "--timeout", "1"],
    says: "The trial: exit code 0",
  },
  {
    id: "printed",
    make: () => write(RIGHT.replace("await", 'console.log("Loading");\nawait')),
    says: 'prints "Loading" before the response',
    fixed: true,
  },
  {
    id: "no-serve",
    make: () => write(RIGHT.replace("await serve(app);\n", "")),
    fixed: true,
  },
  {
    id: "no-serve",
    how: "and imports nothing",
    make: () =>
      write(
        "#!/usr/bin/env -S deno run --allow-env\nfunction hello() {\n  return new Response();\n}\nexport default hello;",
      ),
    args: [...USUAL, ...JSR],
    fixed: true,
  },
  {
    id: "no-serve",
    how: "and has no app with a name",
    make: () => write("#!/usr/bin/env -S deno run --allow-env\nexport default { fetch() {} };\n"),
    says: `import { serve } from "${SPECIFIER}"; await serve(app);`,
  },
  {
    id: "silent",
    make: () => write("#!/bin/sh\n:\n", "hello"),
    args: asSelf,
    says: "Print a header",
  },
  {
    id: "invalid",
    make: () => write(SHELL.replaceAll(/^echo.*\n/gm, "") + "echo Hello\n", "hello"),
    args: asSelf,
  },
  {
    id: "status",
    make: () =>
      write(RIGHT.replace("new Response", "new Response(null, { status: 503 }) ?? new Response")),
    says: "503",
  },
];

for (const { id, how = "", make, args = USUAL, says, fixed, root } of BREAKS) {
  Deno.test({
    name: `doctor finds "${id}" ${how}`.trim(),
    ignore: root === true && !isRoot,
    async fn() {
      const script = make();
      const { code, stdout, ids, lines } = await doctor(script, ...args);
      assertEquals([code, ids], [1, [id]], stdout);
      if (says !== undefined) assertStringIncludes(stdout, says);
      // What is printed as a line of shell fixes the fault.
      assertEquals(lines.length, fixed ? 1 : 0, stdout);
      if (!fixed) return;
      await runLine(lines[0]);
      const after = await doctor(script, ...args);
      assertEquals([after.code, after.ids], [0, []], `${lines[0]}\n${after.stdout}`);
    },
  });
}

Deno.test("doctor has a test of each finding", () => {
  const tested = new Set<string>(BREAKS.map(({ id }) => id));
  // They have tests of their own below.
  tested.add("deno-dir").add("compiles");
  assertEquals(Object.keys(FINDINGS).filter((id) => !tested.has(id)), []);
});

Deno.test("doctor shows an app that throws, with its log", async () => {
  const script = write(
    RIGHT.replace('new Response("Hello")', "JSON.parse(0x)").replace("0x", '"{"'),
  );
  const { code, stdout, ids } = await doctor(script, ...USUAL);
  assertEquals([code, ids], [1, ["status"]]);
  assertStringIncludes(stdout, "The app responds with 500 [status]");
  assertMatch(stdout, /stderr:\n {4}SyntaxError/);
});

Deno.test("doctor shows several findings at once", async () => {
  const script = write(RIGHT.replace(" --allow-env", ""), "hello.ts", 0o644);
  const { stdout, ids } = await doctor(script, ...USUAL);
  assertEquals(ids, ["run-bit", "allow-env"]);
  assertMatch(stdout, /^The script cannot be started: .*: Permission denied$/m);
});

Deno.test("doctor finds nothing wrong with what does no harm", async () => {
  const scripts = [
    // env -S takes a carriage return for a blank.
    write(RIGHT.replaceAll("\n", "\r\n")),
    write(RIGHT.replace("--allow-env", "-E")),
    write(RIGHT.replace("#!/usr/bin/env -S ", "#! /usr/bin/env -S LANG=C ")),
  ];
  for (const script of scripts) {
    const { code, ids, stdout } = await doctor(script, ...USUAL);
    assertEquals([code, ids], [0, []], stdout);
  }
});

function exists(file: string): boolean {
  try {
    return Deno.statSync(file).isFile;
  } catch {
    return false;
  }
}

/** Runs doctor in a sandbox, with a Deno of which there is no other. */
async function doctorIn(
  sandbox: Sandbox,
  deno: string,
  script: string,
  args: readonly string[],
): Promise<Diagnosis> {
  const flags = [...importMapFlags(), "--no-prompt", "--allow-all", `${ROOT}cli.ts`];
  const { code, output } = await sandbox.run(
    deno,
    ["run", ...flags, "doctor", script, ...args],
    { NO_COLOR: "1" },
  );
  return parse(code, output);
}

/** Runs the line of a diagnosis in a sandbox, and checks that nothing is wrong then. */
async function fixIn(
  sandbox: Sandbox,
  deno: string,
  { lines, stdout }: Diagnosis,
  script: string,
  args: readonly string[],
): Promise<void> {
  assertEquals(lines.length, 1, stdout);
  const { code, output } = await sandbox.run("sh", ["-c", lines[0]]);
  assertEquals(code, 0, `${lines[0]}\n${output}`);
  const after = await doctorIn(sandbox, deno, script, args);
  assertEquals([after.code, after.ids], [0, []], `${lines[0]}\n${after.stdout}`);
}

const inSandbox = (name: string, fn: (sandbox: Sandbox) => Promise<void>) =>
  Deno.test({
    name,
    ignore: !Sandbox.isPossible(),
    async fn() {
      await using sandbox = new Sandbox();
      await fn(sandbox);
    },
  });

const IMPORTING = RIGHT.replace(/"\/.*"/, `"${SPECIFIER}"`).replace("run", "run --cached-only");
for (
  const [how, first, env] of [
    ["", IMPORTING, []],
    [" that is configured", IMPORTING, ["--env", "DENO_DIR=/var/cache/scripts"]],
    [" in a folder of root", IMPORTING, ["--env", "DENO_DIR=/root/cache"]],
    [
      " in the first line",
      IMPORTING.replace("-S ", "-S DENO_DIR=/var/cache/scripts "),
      [],
    ],
  ] as const
) {
  inSandbox(`doctor finds "deno-dir"${how}`, async (sandbox) => {
    const script = write(first);
    const args = [...asNobody, ...PATH, ...JSR, ...env];
    const found = await doctorIn(sandbox, Deno.execPath(), script, args);
    assertEquals(found.ids, ["deno-dir"], found.stdout);
    await fixIn(sandbox, Deno.execPath(), found, script, args);
  });
}

const GAIN = /\. A start takes \d+ ms, and with compiled code \d+ ms\. \[compiles\]$/m;
for (
  const [how, first, env, name] of [
    ["", BARE, [], "hello.ts"],
    [" and is JavaScript", BARE, [], "hello.js"],
    [
      " and has a folder that is configured",
      BARE,
      ["--env", "DENO_DIR=/var/cache/mine"],
      "hello.ts",
    ],
    [" and has a folder of root", BARE, ["--env", "DENO_DIR=/root/cache"], "hello.ts"],
    [" and names a folder", BARE.replace("-S ", "-S DENO_DIR=/var/cache/mine "), [], "hello.ts"],
  ] as const
) {
  inSandbox(
    `doctor finds that each start compiles a script that responds${how}`,
    async (sandbox) => {
      const script = write(first, name);
      const args = [...asNobody, ...PATH, "--env", "NO_COLOR=1", ...env];
      const found = await doctorIn(sandbox, Deno.execPath(), script, args);
      assertEquals([found.code, found.ids], [0, ["compiles"]], found.stdout);
      assertStringIncludes(found.stdout, "\nNothing is wrong.\n\nEach start compiles again: ");
      assertMatch(found.stdout, GAIN);
      await fixIn(sandbox, Deno.execPath(), found, script, args);
    },
  );
}

/** The cache that a web server's configuration names. */
const COMPILED = ["--env", "DENO_DIR=/var/cache/deno", "--env", "NO_COLOR=1"];
for (
  const [what, change] of [
    ["script", (script: string) => Deno.writeTextFileSync(script, "// New\n", { append: true })],
    ["version of Deno", async (_script: string, sandbox: Sandbox) => {
      const set = `import { DatabaseSync } from "node:sqlite";
for (const name of ["v8_code_cache_v2", "dep_analysis_cache_v2"]) {
  const { changes } = new DatabaseSync("/var/cache/deno/" + name).prepare("update info set value = '2.0.0' where key = 'CLI_VERSION'").run();
  if (changes !== 1) throw new Error(name);
}`;
      const { code, output } = await sandbox.run(Deno.execPath(), ["eval", set]);
      assertEquals(code, 0, output);
    }],
    ["file beside the cache, which is missing", async (_script: string, sandbox: Sandbox) => {
      await sandbox.run("rm", ["/var/cache/deno/v8_code_cache_v2-shm"]);
    }],
  ] as const
) {
  inSandbox(`doctor finds that each start compiles with another ${what}`, async (sandbox) => {
    const script = write(BARE);
    const args = [...asNobody, ...PATH, ...COMPILED];
    const empty = await doctorIn(sandbox, Deno.execPath(), script, args);
    await fixIn(sandbox, Deno.execPath(), empty, script, args);
    await change(script, sandbox);
    // The script responds all the same.
    const found = await doctorIn(sandbox, Deno.execPath(), script, args);
    assertEquals([found.code, found.ids], [0, ["compiles"]], found.stdout);
    assertEquals(found.lines[0].includes("install"), false, found.lines[0]);
    await fixIn(sandbox, Deno.execPath(), found, script, args);
  });
}

inSandbox("doctor makes no folder as root that the owner of a script chooses", async (sandbox) => {
  const first = BARE.replace("-S ", "-S DENO_DIR=/var/cache/theirs ").replace(
    "run",
    "run --ext=ts",
  );
  const args = ["--user", "daemon", ...PATH, "--env", "NO_COLOR=1"];
  const found = await doctorIn(sandbox, Deno.execPath(), writeForeign(first), args);
  assertEquals([found.ids, found.lines], [["compiles"], []], found.stdout);
});

inSandbox("doctor lets the owner of a script fill the cache", async (sandbox) => {
  const script = writeForeign(BARE.replace("run", "run --ext=ts"));
  const args = ["--user", "daemon", ...PATH, ...COMPILED];
  const found = await doctorIn(sandbox, Deno.execPath(), script, args);
  assertEquals(found.ids, ["compiles"], found.stdout);
  assertStringIncludes(found.lines[0], "runuser -u nobody -- env ");
  await fixIn(sandbox, Deno.execPath(), found, script, args);
});

for (
  const [how, make] of [
    ["that others may change", () => {
      const script = write(BARE);
      // The folder's group may replace the script.
      Deno.chownSync(dirname(script), 0, NOBODY);
      Deno.chmodSync(dirname(script), 0o775);
      return script;
    }],
    ["that imports a file", () => {
      const script = write(BARE.replace("\n", '\nimport "./other.ts";\n'));
      Deno.writeTextFileSync(`${dirname(script)}/other.ts`, "");
      return script;
    }],
  ] as const
) {
  inSandbox(`doctor never lets root fill the cache by running a script ${how}`, async (sandbox) => {
    const args = ["--user", "daemon", ...PATH, ...COMPILED];
    const { code, ids, lines, advice, stdout } = await doctorIn(
      sandbox,
      Deno.execPath(),
      make(),
      args,
    );
    assertEquals([code, ids, lines, advice.length], [0, ["compiles"], [], 1], stdout);
  });
}

Deno.test({
  name: "doctor does not repeat a POST to see whether its start compiles",
  ignore: !isRoot,
  async fn() {
    const folder = makeFolder(0o777);
    const script = write(
      BARE.replace("--allow-env", `--allow-env --allow-write=${folder}`) +
        `Deno.writeTextFileSync("${folder}/runs", ".", { append: true });\n`,
    );
    const { ids, stdout } = await doctor(script, ...asNobody, ...PATH, "--data", "a=b");
    assertEquals(ids, [], stdout);
    assertEquals(Deno.readTextFileSync(`${folder}/runs`), ".");
  },
});

Deno.test({
  name: "doctor copies a program that only root may run to where all may",
  ignore: !Sandbox.isPossible(),
  async fn() {
    const home = makeFolder(0o700);
    const deno = `${home}/deno`;
    Deno.linkSync(`${bin}/deno`, deno);
    const installed = ["/usr/bin/deno", "/bin/deno"].filter(exists).map(Deno.realPathSync);
    await using sandbox = new Sandbox([...new Set(installed)]);
    const cache = ["--env", `DENO_DIR=${makeFolder(0o777)}`];
    const cases = [
      ["/usr/bin/env -S deno", [...cache, "--env", `PATH=${home}:/usr/local/bin`]],
      ["/usr/bin/env -S deno", [...cache, "--env", `PATH=${home}`]],
      [`/usr/bin/env -S ${deno}`, cache],
    ] as const;
    for (const [line, args] of cases) {
      const script = ownedBy(NOBODY, write(BARE.replace("/usr/bin/env -S deno", line)));
      const found = await doctorIn(sandbox, deno, script, [...asNobody, ...args]);
      assertEquals(found.ids, ["interpreter-denied"], found.stdout);
      assertStringIncludes(found.lines[0], `install -m 755 ${deno} /usr/local/bin/deno`);
      await fixIn(sandbox, deno, found, script, [...asNobody, ...args]);
      await sandbox.run("rm", ["/usr/local/bin/deno"]);
    }
  },
});

Deno.test({
  name: "doctor suggests no program from a folder that others own",
  ignore: !isRoot,
  async fn() {
    const folder = makeFolder();
    Deno.linkSync(`${bin}/deno`, `${folder}/deno`);
    ownedBy(NOBODY, folder);
    for (const mode of [0o700, 0o755]) {
      Deno.chmodSync(folder, mode);
      for (const first of ["deno", `${folder}/deno`, "/opt/absent/deno"]) {
        const script = write(BARE.replace("S deno", `S ${first}`));
        const args = ["--user", "daemon", "--env", `PATH=${folder}`];
        const { stdout, lines } = await doctor(script, ...args);
        // This Deno may be in a folder of root's.
        assertEquals(lines.filter((line) => line.includes(folder)), [], stdout);
      }
    }
  },
});

/** A user's folder with a script of theirs. */
function writeForeign(text: string, mode = 0o755): string {
  const script = ownedBy(NOBODY, write(text, "hello", mode));
  ownedBy(NOBODY, script.replace(/\/hello$/, ""));
  return script;
}

Deno.test({
  name: "doctor lets the owner of a folder change it, as a link could lead anywhere",
  ignore: !isRoot,
  async fn() {
    const script = writeForeign(SHELL, 0o744);
    const found = await doctor(script, "--user", "daemon");
    assertEquals(found.ids, ["run-bit"]);
    assertEquals(found.lines, [`runuser -u nobody -- chmod 755 ${script}`]);
    const file = `${directory}/private`;
    Deno.writeTextFileSync(file, "", { mode: 0o600 });
    Deno.removeSync(script);
    Deno.symlinkSync(file, script);
    const { success } = await new Deno.Command("sh", {
      args: ["-c", found.lines[0]],
      stderr: "null",
    }).output();
    assertEquals([success, Deno.statSync(file).mode! & 0o777], [false, 0o600]);
    Deno.removeSync(script);
    Deno.writeTextFileSync(script, SHELL, { mode: 0o744 });
    ownedBy(NOBODY, script);
    await runLine(found.lines[0]);
    assertEquals((await doctor(script, "--user", "daemon")).ids, []);
    // What belongs to another one in that folder is left alone.
    ownedBy(1, script);
    Deno.chmodSync(script, 0o744);
    assertEquals((await doctor(script, "--user", "bin")).lines, []);
  },
});

Deno.test({
  name: "doctor as root gives away no file that a script of others names",
  ignore: !isRoot,
  async fn() {
    const data = write("", "data", 0o600);
    const script = writeForeign(`#!/bin/sh\necho "Permission denied: '${data}'" >&2\nexit 1\n`);
    const { ids, lines } = await doctor(script, "--user", "daemon");
    assertEquals([ids, lines], [["storage"], []]);
    const line = `#!/usr/bin/env -S DENO_DIR=/etc/absent deno run --cached-only`;
    const importing = writeForeign(IMPORTING.replace(/^.*/, line));
    const found = await doctor(importing, "--user", "daemon", ...PATH, ...JSR);
    assertEquals(found.lines.filter((line) => line.includes("-o daemon /etc")), [], found.stdout);
  },
});

Deno.test({
  name: "doctor as root needs the user of the web server",
  ignore: !isRoot,
  async fn() {
    const { code, stderr } = await runCommandLine(["doctor", "it's"], ["--allow-all"]);
    assertEquals([code, stderr], [
      2,
      "Name the user of the web server, as root may do everything: doctor 'it'\\''s' --user www-data\n",
    ]);
  },
});

/** A script that leaves a mark if it runs. */
function marking(): { script: string; ran: () => boolean } {
  const marker = `${makeFolder(0o777)}/marker`;
  const script = write(`${SHELL}touch ${marker}\n`, "hello");
  return {
    script,
    ran() {
      try {
        Deno.removeSync(marker);
        return true;
      } catch {
        return false;
      }
    },
  };
}

Deno.test({
  name: "doctor as root does not run as root what others may change",
  ignore: !isRoot,
  async fn() {
    const { script, ran } = marking();
    const folder = script.replace(/\/hello$/, "");
    assertEquals((await doctor(script, "--user", "root")).ids, []);
    assertEquals(ran(), true);
    const changes = [
      () => ownedBy(NOBODY, script),
      () => Deno.chmodSync(script, 0o757),
      () => {
        Deno.chownSync(script, 0, NOBODY);
        Deno.chmodSync(script, 0o775);
      },
      () => ownedBy(NOBODY, folder),
      () => Deno.chmodSync(folder, 0o757),
    ];
    for (const change of changes) {
      change();
      const { stdout } = await doctor(script, "--user", "root");
      assertStringIncludes(stdout, "Not tried, as others may change /");
      assertEquals(ran(), false, String(change));
      for (const path of [script, folder]) {
        Deno.chownSync(path, 0, 0);
        Deno.chmodSync(path, 0o755);
      }
    }
    // A folder on the way counts, too.
    const above = folder.replace(/\/[^/]+$/, "");
    Deno.chmodSync(above, 0o777);
    await doctor(script, "--user", "daemon");
    Deno.chmodSync(above, 0o755);
    assertEquals(ran(), false);
    // A web server runs what a user has written, but nobody should run what everybody may change.
    ownedBy(NOBODY, script);
    await doctor(script, "--user", "daemon");
    assertEquals(ran(), true);
    Deno.chmodSync(script, 0o777);
    await doctor(script, "--user", "daemon");
    assertEquals(ran(), false);
  },
});

testWith({ script: "bsdutils" }, "doctor gives a script no terminal", async () => {
  const script = write(
    `${SHELL}if (: </dev/tty) 2>/dev/null; then echo with a terminal; fi\n`,
    "x",
  );
  const flags = [...importMapFlags(), "--no-prompt", "--allow-all", `${ROOT}cli.ts`];
  const command = [Deno.execPath(), "run", ...flags, "doctor", script, ...asSelf];
  const inTerminal = async (words: string[]) => {
    const { stdout } = await new Deno.Command("script", {
      args: ["--quiet", "--command", words.map(shellQuote).join(" "), "/dev/null"],
      stdin: "null",
    }).output();
    return new TextDecoder().decode(stdout);
  };
  assertStringIncludes(await inTerminal([script]), "with a terminal");
  const shown = await inTerminal(command);
  assertStringIncludes(shown, "Nothing is wrong.");
  assertEquals(shown.includes("with a terminal"), false, shown);
});

/** Names and texts that a shell or a terminal would obey. */
const EVIL = "$(touch marker)`touch marker`;touch marker;'\"\\ &|#!%";
const CONTROLS = "\x1b]0;title\x07\x1b[8m\x9b1m\u202e";

Deno.test("doctor quotes all that it prints for a shell", async () => {
  const folder = makeFolder();
  const name = EVIL.replaceAll("/", "");
  const scripts = [
    [SHELL, 0o644],
    [SHELL.replaceAll("\n", "\r\n"), 0o755],
    [BARE.replace(" --allow-env", ` --title=${EVIL}`).replace("-S ", ""), 0o755],
    [BARE.replace("deno", "denno").replace(" --allow-env", ` ${EVIL}`), 0o644],
    [BARE.replace("--allow-env", `--allow-env=${EVIL}`), 0o644],
  ] as const;
  let tried = 0;
  for (const [text, mode] of scripts) {
    const path = `${folder}/${name}`;
    Deno.writeTextFileSync(path, text);
    Deno.chmodSync(path, mode);
    // env takes one of the first lines for a variable, and runs the script for ever.
    const { lines, stdout } = await doctor(path, ...asSelf, ...PATH, "--timeout", "1");
    assert(lines.length > 0, stdout);
    for (const line of lines) {
      await new Deno.Command("bash", { args: ["-c", line], cwd: folder }).output();
      tried++;
    }
  }
  assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name), [name]);
  assert(tried >= scripts.length);
});

Deno.test("doctor prints no control characters", async () => {
  const unprintable = /[^\P{C}\n]|[\u202e\u2066]/u;
  const scripts = [
    `#!/usr/bin/env -S deno${CONTROLS} run\n`,
    `#!/opt/absent/${CONTROLS}\r\n`,
    `${BARE.replace("deno run", "denno run").replace("env\n", `env=${CONTROLS}\n`)}`,
    `#!/bin/sh\nprintf '${CONTROLS}'; printf 'error: ${CONTROLS} denied' >&2; exit 1\n`,
    `#!/bin/sh\nprintf 'Status: 500 ${CONTROLS}\\nContent-Type: ${CONTROLS}\\n\\n'\n`,
    `#!/bin/sh\necho "NotCapable: Requires read access to \\"${CONTROLS}\\", --allow-read" >&2; exit 1\n`,
  ];
  for (const text of scripts) {
    for (const mode of [0o644, 0o755]) {
      const script = write(text, `a\nb${CONTROLS}`, mode);
      const { stdout } = await doctor(script, ...asSelf, ...PATH);
      assertEquals(unprintable.exec(stdout)?.[0], undefined, JSON.stringify(stdout));
    }
  }
});

Deno.test("doctor reads the beginning of a script only", async () => {
  const script = write(`${SHELL}exit\n`, "hello");
  // More than fits into memory.
  Deno.truncateSync(script, 2 ** 40);
  const { stdout } = await doctor(script, ...asSelf);
  assertStringIncludes(stdout, "\n    Hello");
});

Deno.test("doctor keeps the beginning of a script's output only", async () => {
  const megabytes = 16;
  const script = write(
    `${SHELL}head -c ${megabytes * 1024 * 1024} /dev/zero\nhead -c 1999999 /dev/zero >&2\n`,
    "hello",
  );
  const { ids, stdout } = await doctor(script, ...asSelf);
  assertEquals(ids, []);
  assertStringIncludes(stdout, `200, text/plain, ${megabytes * 1024 * 1024 + 6} bytes`);
  assert(stdout.length < 40_000, `${stdout.length} characters are shown`);
  const endless = write("#!/bin/sh\nyes\n", "endless");
  const found = await doctor(endless, ...asSelf, "--timeout", "1");
  assertEquals(found.ids, ["slow"]);
  assert(found.stdout.length < 40_000, `${found.stdout.length} characters are shown`);
});

/** Returns whether a process runs: a zombie does not. */
async function runs(pid: string): Promise<boolean> {
  const { stdout } = await new Deno.Command("ps", { args: ["-o", "stat=", "-p", pid] }).output();
  return /^[^Z\s]/.test(new TextDecoder().decode(stdout));
}

for (
  const [how, end, id] of [
    ["that waits for them", "wait", "slow"],
    ["that leaves them", "exit", "left-open"],
  ] as const
) {
  Deno.test(`doctor kills the processes of a script ${how} when its time is over`, async () => {
    const folder = makeFolder(0o777);
    const script = write(
      `${SHELL}for i in 1 2; do
  sh -c "trap '' TERM; echo \\$\\$ > ${folder}/$i; while :; do sleep 100; done" &
done
while ! [ -s ${folder}/1 ] || ! [ -s ${folder}/2 ]; do sleep 0.01; done
${end}\n`,
      "hello",
    );
    const { ids, stdout } = await doctor(script, ...asSelf, "--timeout", "1");
    assertEquals(ids, [id], stdout);
    for (const name of ["1", "2"]) {
      const pid = Deno.readTextFileSync(`${folder}/${name}`).trim();
      assertEquals(await runs(pid), false, pid);
    }
  });
}

Deno.test("doctor does not wait for a process that a script leaves with an output of its own", async () => {
  const pid = `${makeFolder(0o777)}/pid`;
  const script = write(`${SHELL}sleep 1000 >/dev/null 2>&1 &\necho $! > ${pid}\n`, "hello");
  const { code, stdout } = await doctor(script, ...asSelf);
  Deno.kill(Number(Deno.readTextFileSync(pid)), "SIGKILL");
  assertEquals(code, 0, stdout);
});

Deno.test("doctor sends the request that its options describe", async () => {
  const script = write(
    `#!/bin/sh
echo "Content-Type: text/plain"
echo
echo "$REQUEST_METHOD $REQUEST_URI"
echo "$SCRIPT_NAME|$PATH_INFO|$QUERY_STRING"
echo "$CONTENT_TYPE|$CONTENT_LENGTH|$HTTP_X_COLOR"
cat
`,
    "show",
  );
  const body = write('{"a":1}', "body.json");
  const shown = async (...args: string[]) =>
    (await doctor(script, ...asSelf, ...args)).stdout.split("stdout:\n")[1].split("\n").slice(2, 6);
  assertEquals(await shown(), ["    GET /cgi-bin/show", "    /cgi-bin/show||", "    ||", ""]);
  assertEquals(await shown("--path", "/é/7", "--query", "a=b c", "--header", "X-Color: blue"), [
    "    GET /cgi-bin/show/%C3%A9/7?a=b%20c",
    "    /cgi-bin/show|/é/7|a=b%20c",
    "    ||blue",
    "",
  ]);
  assertEquals(await shown("--data", "name=Ann"), [
    "    POST /cgi-bin/show",
    "    /cgi-bin/show||",
    "    application/x-www-form-urlencoded|8|",
    "    name=Ann",
  ]);
  assertEquals(await shown("-d", `@${body}`, "-H", "Content-Type: application/json"), [
    "    POST /cgi-bin/show",
    "    /cgi-bin/show||",
    "    application/json|7|",
    '    {"a":1}',
  ]);
});

const MISTAKES: [args: string[], message: string][] = [
  [[], "Name the script, as in: doctor hello.ts"],
  [["a", "b"], 'One operand is examined: "b" is one too many.'],
  [["nginx", "b"], '"b" is one too many. Its configuration is --conf b, and a script --script b'],
  [["a", "--user", "no-such-user"], "There is no user no-such-user in /etc/passwd."],
  [["a", ...asSelf, "--env", "PATH"], "--env must be NAME=VALUE"],
  [["a", ...asSelf, "--path", "b"], '--path must begin with /: current value is "b"'],
  [["a", ...asSelf, "--memory", "much"], "--memory must be a number of bytes"],
];
for (const [args, message] of MISTAKES) {
  Deno.test(`doctor explains how to correct: ${args.join(" ")}`, async () => {
    const { code, stderr } = await callCommandLine("doctor", ...args);
    assertStringIncludes(stderr, message);
    assertEquals(code, 2);
  });
}
