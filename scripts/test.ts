/**
 * Runs the tests: in parallel, as threads of one process, and in another process one by one the files of which threads
 * would disturb each other. `deno task test [FLAG...] [PATH...]` runs those of some files and folders, with flags of
 * `deno test`. What takes long and tests what others built, such as frameworks, is run by `deno task field`.
 */
import { existsSync, globSync, statSync } from "node:fs";
import { basename, dirname, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";

/** The files that run one by one, each with what it shares with other threads. */
const ALONE: Record<string, string> = {
  "tests/cost_test.ts": "the time of the processor, which is that of all threads",
  "tests/io/listen_test.ts": "the umask",
  "tests/io/spool_test.ts": "the umask, TMPDIR and open files",
};

/**
 * The files that `deno task field` runs: other runtimes, frameworks and programs, small web servers, several machines, what
 * doctor finds in web servers, and the models.
 */
const FIELD = new RegExp(
  "^tests/(models/|(.*/)?(node|npm|runtimes|small|yaws|doctor_(site|nginx|apache|lighttpd)|(gateway_)?(compared|programs|webdav|wordpress)|frameworks|several_machines)_test)",
);

/**
 * Files that take long, in the order in which they start. Deno keeps it within a folder only, and runs deeper folders first:
 * so those directly in tests/, the longest among them, run in a process of their own.
 */
const FIRST = ["package", "examples", "demo", "prefork", "cli", "serve_log", "restart", "doctor"];

/** How many threads, more than there are processors, as the tests also wait. A quarter is for the files directly in tests/. */
const THREADS = Math.max(8, 2 * navigator.hardwareConcurrency);

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
function start(files: string[], threads: number, output: "inherit" | "piped"): Deno.ChildProcess {
  const importMap = `--import-map=${Deno.env.get("GATEHOUSE_IMPORT_MAP")}`;
  const parallel = threads > 1 && files.length > 1 ? ["--parallel"] : [];
  return new Deno.Command(Deno.execPath(), {
    args: [
      "test",
      "--no-check",
      "--no-prompt",
      importMap,
      ...PERMISSIONS,
      ...parallel,
      ...flags,
      ...files,
    ],
    cwd: ROOT,
    env: {
      DENO_JOBS: Deno.env.get("DENO_JOBS") ?? String(threads),
      // Each program that a test starts would look for a new version of Deno.
      DENO_NO_UPDATE_CHECK: "1",
    },
    stdin: output === "inherit" ? "inherit" : "null",
    stdout: output,
    stderr: output,
  }).spawn();
}

/** Returns the place of a file in the order in which they start. */
function rank(file: string): number {
  const at = FIRST.findIndex((name) => basename(file).startsWith(name));
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
const near = parallel.filter((file) => dirname(file) === "tests");
const deep = parallel.filter((file) => !near.includes(file));
const share = near.length > 0 && deep.length > 0 ? Math.ceil(THREADS / 4) : 0;

const runs = [
  { files: deep, threads: THREADS - share },
  { files: near, threads: share || THREADS },
  { files: alone, threads: 1 },
].filter(({ files }) => files.length > 0);
const [first, ...others] = runs.map(({ files, threads }, i) =>
  start(files, threads, i === 0 ? "inherit" : "piped")
);
// They are printed at the end, as what several print at once is hard to read.
const outputs = others.map((run) => run.output());
const decoder = new TextDecoder();
let success = (await first.status).success;
for (const output of outputs) {
  const { stdout, stderr, ...status } = await output;
  console.log(decoder.decode(stdout));
  console.error(decoder.decode(stderr));
  success = success && status.success;
}
if (!success) Deno.exitCode = 1;
