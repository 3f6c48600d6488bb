/**
 * Runs the tests: first in parallel, as threads of one process, then one by one the files of which the threads would
 * disturb each other. `deno task test [FLAG...] [PATH...]` runs those of some files and folders, with flags of `deno test`.
 * What takes long and tests what others built, such as frameworks, is run by `deno task field`.
 */
import { existsSync, globSync, statSync } from "node:fs";
import { relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";

/** The files that run one by one, each with what it shares with other threads. */
const ALONE: Record<string, string> = {
  "tests/cost_test.ts": "the processor, whose time it measures",
  "tests/io/listen_test.ts": "the umask",
  "tests/io/spool_test.ts": "the umask, TMPDIR and open files",
};

/** The files that `deno task field` runs: other runtimes, frameworks and programs, small web servers, several machines. */
const FIELD = new RegExp(
  "^tests/(.*/)?(node|npm|runtimes|small|yaws|(gateway_)?(compared|programs|webdav|wordpress)|frameworks|several_machines)_test",
);

/** The folders that run first: their files take the longest, as they wait for other programs. */
const FIRST = /^tests\/(servers|guides)\/|^tests\/package_test/;

/** More than the processors, as the tests mostly wait. */
const THREADS = String(Math.max(4, navigator.hardwareConcurrency));

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

/** Runs files. @returns Whether all tests pass. */
function run(args: string[]): boolean {
  const importMap = `--import-map=${Deno.env.get("GATEHOUSE_IMPORT_MAP")}`;
  return new Deno.Command(Deno.execPath(), {
    args: ["test", "--no-prompt", importMap, ...PERMISSIONS, ...args],
    cwd: ROOT,
    env: { DENO_JOBS: Deno.env.get("DENO_JOBS") ?? THREADS },
    stdin: "inherit",
    stdout: "inherit",
    stderr: "inherit",
  }).outputSync().success;
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
const parallel = [...files].sort((a, b) => Number(FIRST.test(b)) - Number(FIRST.test(a)));

let success = true;
if (parallel.length > 0) {
  success = run([...parallel.length > 1 ? ["--parallel"] : [], ...flags, ...parallel]);
}
if (alone.length > 0) success = run([...flags, ...alone]) && success;
if (!success) Deno.exitCode = 1;
