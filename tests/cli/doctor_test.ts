import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { type FindingId, FINDINGS } from "../../cli/doctor/findings.ts";
import { runCommandLine } from "../testing/command_line.ts";
import { ROOT } from "../testing/daemon.ts";

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

/** A folder that all users can enter, with a copy of Deno that all can run. */
const directory = await Deno.makeTempDir({ prefix: "gatehouse" });
const bin = `${directory}/bin`;
await Deno.chmod(directory, 0o755);
await Deno.mkdir(bin);
await Deno.link(Deno.execPath(), `${bin}/deno`)
  .catch(() => Deno.copyFile(Deno.execPath(), `${bin}/deno`));
await Deno.mkdir(`${directory}/cache`);
await Deno.chmod(`${directory}/cache`, 0o777);
Deno.test.afterAll(() => Deno.remove(directory, { recursive: true }));

const USUAL = [
  "--env",
  `PATH=${bin}:/usr/local/bin:/usr/bin:/bin`,
  "--env",
  `DENO_DIR=${directory}/cache`,
];

let count = 0;
/** Writes a script into a folder of its own. */
function write(text: string, name = "hello.ts", mode = 0o755): string {
  const folder = `${directory}/${++count}`;
  Deno.mkdirSync(folder);
  Deno.writeTextFileSync(`${folder}/${name}`, text);
  Deno.chmodSync(`${folder}/${name}`, mode);
  return `${folder}/${name}`;
}

/** Runs doctor. @returns Its exit code, its output and its findings. */
async function doctor(script: string, ...args: string[]) {
  const { code, stdout, stderr } = await runCommandLine(["doctor", script, ...args], [
    "--allow-all",
  ]);
  assertEquals(stderr, "");
  const found = [...stdout.matchAll(/^.* \[([a-z-]+)\]\n {4}(.*)$/gm)];
  return { code, stdout, ids: found.map(([, id]) => id), fixes: found.map(([, , fix]) => fix) };
}

Deno.test("doctor finds nothing wrong with a valid script", async () => {
  for (const [script, args] of [[write(RIGHT), USUAL], [write(SHELL, "hello"), []]] as const) {
    const { code, stdout, ids } = await doctor(script, ...args);
    assertEquals([code, ids], [0, []], stdout);
    assertStringIncludes(stdout, "Nothing is wrong.");
    assertStringIncludes(
      stdout,
      "The trial: exit code 0. A web server makes of it: 200, text/plain",
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
  /** Further text of the finding. */
  says?: string;
  /** Whether the fix is a command that can be run here, after which nothing is wrong. */
  fixed?: boolean;
  /** Whether only root can try it, as another user runs the script. */
  root?: boolean;
}

const asNobody = ["--user", "nobody"];
const BREAKS: Break[] = [
  { id: "missing", make: () => `${directory}/absent.ts` },
  { id: "run-bit", make: () => write(RIGHT, "hello.ts", 0o644), fixed: true },
  {
    id: "unreadable",
    how: "by its folder",
    root: true,
    args: asNobody,
    make() {
      const script = write(SHELL);
      Deno.chmodSync(script.replace("/hello.ts", ""), 0o700);
      return script;
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
  { id: "writable", make: () => write(RIGHT, "hello.ts", 0o777), fixed: true },
  { id: "bom", make: () => write(`\u{feff}${RIGHT}`), fixed: true },
  { id: "crlf", make: () => write(RIGHT.replaceAll("\n", "\r\n")), fixed: true },
  { id: "first-line", make: () => write(RIGHT.replace(/^.*\n/, "")), fixed: true },
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
    args: ["--env", "PATH=/opt/absent"],
    says: "deno is not on the web server's PATH, /opt/absent",
  },
  {
    id: "interpreter",
    how: "not at its path",
    make: () => write(SHELL.replace("/bin/sh", "/opt/absent/sh")),
    says: "sh is not on the web server's PATH, in /opt/absent/sh",
  },
  {
    id: "interpreter-denied",
    root: true,
    args: asNobody,
    make() {
      const program = write(SHELL, "program", 0o700);
      return write(`#!${program}\n`);
    },
  },
  {
    id: "allow-env",
    make: () => write(RIGHT.replace(" --allow-env", "")),
    fixed: true,
  },
  {
    id: "deno-dir",
    root: true,
    args: [...asNobody, "--env", `PATH=${bin}:/usr/bin:/bin`, "--env", "DENO_DIR=/root/cache"],
    make: () => write(BARE),
    says: "/root/cache",
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
    make: () => write(RIGHT.replace("mod.ts", "absent.ts")),
    says: `Module not found "file://${ROOT}absent.ts"`,
  },
  {
    id: "permission",
    how: "when it starts",
    make: () => write(RIGHT.replace("await", 'Deno.readTextFileSync("/etc/hostname");\nawait')),
    says: 'Requires read access to "/etc/hostname"',
    fixed: true,
  },
  {
    id: "throws",
    make: () => write(RIGHT.replace("await", 'throw new Error("no database");\nawait')),
    says: "Error: no database",
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
    id: "printed",
    make: () => write(RIGHT.replace("await", 'console.log("Loading");\nawait')),
    says: 'prints "Loading" before the response',
  },
  {
    id: "no-serve",
    make: () => write(RIGHT.replace("await serve(app);\n", "")),
    fixed: true,
  },
  {
    id: "invalid",
    make: () => write(SHELL.replaceAll(/^echo.*\n/gm, "") + "echo Hello\n", "hello"),
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
    ignore: root === true && Deno.uid() !== 0,
    async fn() {
      const script = make();
      const { code, stdout, ids, fixes } = await doctor(script, ...args);
      assertEquals([code, ids], [1, [id]], stdout);
      if (says !== undefined) assertStringIncludes(stdout, says);
      if (!fixed) return;
      const { success } = await new Deno.Command("/bin/sh", { args: ["-c", fixes[0]] }).output();
      assertEquals(success, true, fixes[0]);
      const after = await doctor(script, ...args);
      assertEquals([after.code, after.ids], [0, []], after.stdout);
    },
  });
}

Deno.test("doctor has a test of each finding", () => {
  const tested = new Set<string>(BREAKS.map(({ id }) => id));
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

Deno.test({
  name: "doctor takes a cache that another user has filled",
  ignore: Deno.uid() !== 0,
  async fn() {
    const cache = `${directory}/filled`;
    await Deno.mkdir(cache, { mode: 0o755 });
    const env = ["--env", `PATH=${bin}:/usr/bin:/bin`, "--env", `DENO_DIR=${cache}`];
    const { ids, stdout } = await doctor(write(BARE), ...asNobody, ...env);
    assertEquals(ids, [], stdout);
  },
});

for (const [first, name] of [["", "hello.js"], ["DENO_DIR=", "hello.ts"]]) {
  Deno.test({
    name: `doctor needs no cache of the web server's user for ${name}${
      first && " with DENO_DIR in its first line"
    }`,
    ignore: Deno.uid() !== 0,
    async fn() {
      const variable = first && `${first}${directory}/cache `;
      const script = write(BARE.replace("-S ", `-S ${variable}`), name);
      const env = ["--env", `PATH=${bin}:/usr/bin:/bin`, "--env", "DENO_DIR=/root/cache"];
      const { code, ids, stdout } = await doctor(script, ...asNobody, ...env);
      assertEquals([code, ids], [0, []], stdout);
    },
  });
}

Deno.test("doctor shows several findings at once", async () => {
  const script = write(RIGHT.replace(" --allow-env", ""), "hello.ts", 0o644);
  const { stdout, ids } = await doctor(script, ...USUAL);
  assertEquals(ids, ["run-bit", "allow-env"]);
  assertStringIncludes(stdout, "The script cannot be started: ");
});

const MISTAKES: [args: string[], message: string][] = [
  [[], "Name the script, as in: doctor hello.ts"],
  [["a", "b"], "One script is examined"],
  [["a", "--user", "no-such-user"], "There is no user no-such-user in /etc/passwd."],
  [["a", "--env", "PATH"], "--env must be NAME=VALUE"],
];
for (const [args, message] of MISTAKES) {
  Deno.test(`doctor explains how to correct: ${args.join(" ")}`, async () => {
    const { code, stderr } = await runCommandLine(["doctor", ...args], ["--allow-all"]);
    assertStringIncludes(stderr, message);
    assertEquals(code, 2);
  });
}
