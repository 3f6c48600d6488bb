/**
 * Runs the tests: in parallel, as threads of one process, and in another process one by one the files of which threads
 * would disturb each other. `deno task test [FLAG...] [PATH...]` runs those of some files and folders, with flags of
 * `deno test`. What takes long and tests what others built, such as frameworks, is run by `deno task field`.
 */
import { existsSync, globSync, statSync } from "node:fs";
import { relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";

/** The files that run one by one, each with what it shares with other threads. */
const ALONE: Record<string, string> = {
  "tests/io/listen_test.ts": "the umask",
  "tests/io/spool_test.ts": "the umask, TMPDIR and open files",
};

/** The files that `deno task field` runs: other runtimes, frameworks and programs, small web servers, several machines. */
const FIELD = new RegExp(
  "^tests/(.*/)?(node|npm|runtimes|small|yaws|(gateway_)?(compared|programs|webdav|wordpress)|frameworks|several_machines)_test",
);

/** The files that run first, as they take the longest: a long one that began last would end alone. */
const FIRST = [
  "tests/package_test.ts",
  "tests/servers/",
  "tests/cli/doctor_test.ts",
  "tests/cli/dev_test.ts",
  "tests/examples_test.ts",
  "tests/io/inherited_burst_test.ts",
  "tests/guides/",
  "tests/cli_test.ts",
  "tests/prefork",
  "tests/cli/",
  "tests/conformance/",
];

/** More than the processors, as the tests also wait. */
const THREADS = String(Math.max(6, 2 * navigator.hardwareConcurrency));

/** The flags whose value may be the next argument. */
const WITH_VALUE = ["--filter", "--junit-path", "--reporter", "--config", "-c", "--ext", "--cert"];

const PERMISSIONS = ["read", "write", "env", "sys", "run", "net"].map((name) => `--allow-${name}`);

const ROOT = fileURLToPath(new URL("..", import.meta.url));

/** Returns the test files that a path names, relative to the root. */
function filesOf(path: string): string[] {
  if (!existsSync(path)) {
    console.error(`Cannot run ${path} as it must be a file or folder: there is none`);
    Deno.exit(1);
  }
  if (statSync(path).isFile()) return [relative(ROOT, resolve(path))];
  const files = globSync("**/*_test.ts", { cwd: path }).sort();
  return files.map((file) => relative(ROOT, resolve(path, file)));
}

/** Starts to run files. `deno task check` has checked their types. */
function start(args: string[], output: "inherit" | "piped"): Deno.ChildProcess {
  const importMap = `--import-map=${Deno.env.get("GATEHOUSE_IMPORT_MAP")}`;
  return new Deno.Command(Deno.execPath(), {
    args: ["test", "--no-check", "--no-prompt", importMap, ...PERMISSIONS, ...args],
    cwd: ROOT,
    env: { DENO_JOBS: Deno.env.get("DENO_JOBS") ?? THREADS },
    stdin: output === "inherit" ? "inherit" : "null",
    stdout: output,
    stderr: output,
  }).spawn();
}

/** Returns the place of a file in the order of {@linkcode FIRST}. */
function rank(file: string): number {
  const at = FIRST.findIndex((start) => file.startsWith(start));
  return at < 0 ? FIRST.length : at;
}

const isField = Deno.args[0] === "field";
const args = isField ? Deno.args.slice(1) : Deno.args;
const isFlag = (argument: string, i: number) =>
  argument.startsWith("-") || WITH_VALUE.includes(args[i - 1]);
const flags = args.filter(isFlag);
const paths = args.filter((argument, i) => !isFlag(argument, i));
const all = () => filesOf(`${ROOT}tests`).filter((file) => FIELD.test(file) === isField);
const files = new Set(paths.length > 0 ? paths.flatMap(filesOf) : all());

const alone = Object.keys(ALONE).filter((file) => files.delete(file));
const parallel = [...files].sort((a, b) => rank(a) - rank(b));

const runs: string[][] = [];
if (parallel.length > 0) {
  runs.push([...parallel.length > 1 ? ["--parallel"] : [], ...flags, ...parallel]);
}
if (alone.length > 0) runs.push([...flags, ...alone]);
const [first, second] = runs.map((args, i) => start(args, i === 0 ? "inherit" : "piped"));
// It is printed at the end, as what two runs print at once is hard to read.
const output = second?.output();
let success = (await first.status).success;
if (output !== undefined) {
  const { stdout, stderr, ...status } = await output;
  Deno.stdout.writeSync(stdout);
  Deno.stderr.writeSync(stderr);
  success = success && status.success;
}
if (!success) Deno.exitCode = 1;
