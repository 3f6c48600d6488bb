/** The other runtimes, Node and Bun, for tests that run programs on them. */
import { assert } from "@std/assert";
import { text } from "./bytes.ts";
import { deadline } from "./deadline.ts";
import { find } from "./needs.ts";

/** A runtime other than Deno. */
export interface OtherRuntime {
  name: "Node" | "Bun";
  /** The path of its program. */
  path: string;
  /** The command that runs a script. */
  command: string[];
}

const INSTALL = 'npm install --prefix DIR node@24 bun, then PATH="DIR/node_modules/.bin:$PATH"';

/** Returns the runtime if its program is installed, and not too old. */
function lookUp(name: OtherRuntime["name"], major: number): OtherRuntime | undefined {
  const path = find(name.toLowerCase());
  if (path === undefined) return undefined;
  const { stdout } = new Deno.Command(path, { args: ["--version"] }).outputSync();
  const isNew = Number(/^v?(\d+)/.exec(text(stdout))?.[1]) >= major;
  // By default Node warns of features that are new.
  return isNew ? { name, path: Deno.realPathSync(path), command: [path] } : undefined;
}

const RUNTIMES = { Node: lookUp("Node", 24), Bun: lookUp("Bun", 1) };

/**
 * Registers a test for each of the other runtimes. If one is missing, its test is ignored, or fails if
 * GATEHOUSE_REQUIRE_SERVERS is 1.
 *
 * @param only The only runtime.
 */
export function testOn(
  name: string,
  run: (runtime: OtherRuntime, t: Deno.TestContext) => void | Promise<void>,
  only?: OtherRuntime["name"],
): void {
  for (const [runtimeName, runtime] of Object.entries(RUNTIMES)) {
    if (only !== undefined && runtimeName !== only) continue;
    const ignore = runtime === undefined && Deno.env.get("GATEHOUSE_REQUIRE_SERVERS") !== "1";
    const why = runtime === undefined ? ` (${runtimeName} missing: ${INSTALL})` : "";
    Deno.test({
      name: `${name}, on ${runtimeName}${why}`,
      ignore,
      fn(t) {
        assert(runtime !== undefined, why);
        return run(runtime, t);
      },
    });
  }
}

/** The root of the sources. */
const ROOT = new URL("../..", import.meta.url).pathname;

/** Folders with what {@linkcode packaged} has written. */
const packages = new Map<string, string>();

/**
 * Returns the path of a program as it runs from npm: JavaScript below node_modules, as JSR's npm side has it. Where a
 * runtime strips types by itself, each start would cost a multiple of that.
 *
 * @param program Its path below the root.
 */
export function packaged(runtime: OtherRuntime, program: string): string {
  if (runtime.name === "Bun") return ROOT + program;
  let folder = packages.get(program);
  if (folder === undefined) {
    const outer = Deno.makeTempDirSync({ prefix: "gatehouse" });
    Deno.test.afterAll(() => Deno.remove(outer, { recursive: true }));
    folder = `${outer}/node_modules/@jsr/gatehouse__cgi`;
    writePackage(runtime, folder, [program]);
    packages.set(program, folder);
  }
  return `${folder}/${program.replace(/ts$/, "js")}`;
}

/** Writes files of this package, and all that they import, as JSR's npm side has them. */
export function writePackage(node: OtherRuntime, folder: string, files: string[]): void {
  const { success, stderr } = new Deno.Command(node.path, {
    args: ["--no-warnings", `${ROOT}tests/testing/npm_package.ts`, ROOT, folder, ...files],
  }).outputSync();
  assert(success, text(stderr));
  const { version, exports } = JSON.parse(Deno.readTextFileSync(`${ROOT}deno.json`));
  const entries = Object.entries<string>(exports).map(([name, file]) =>
    [name, { default: file.replace(/ts$/, "js") }] as const
  );
  Deno.writeTextFileSync(
    `${folder}/package.json`,
    JSON.stringify({
      name: "@jsr/gatehouse__cgi",
      version,
      type: "module",
      exports: Object.fromEntries(entries),
    }),
  );
}

/** A program on another runtime, which prints an address as JSON once it listens. */
export class RuntimeDaemon implements AsyncDisposable {
  readonly child: Deno.ChildProcess;
  /** The text that it has written. */
  log = "";
  /** Resolves to its exit code. */
  readonly ended: Promise<number>;
  /** Resolves to the first line that it prints, parsed. */
  readonly listening: Promise<{ hostname: string; port: number; path: string }>;

  constructor({ command: [program, ...flags] }: OtherRuntime, args: string[], env = {}) {
    this.child = new Deno.Command(program, {
      args: [...flags, ...args],
      env: { NO_COLOR: "1", ...env },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const first = Promise.withResolvers<string>();
    const collect = async (stream: ReadableStream<Uint8Array<ArrayBuffer>>) => {
      for await (const part of stream.pipeThrough(new TextDecoderStream())) {
        this.log += part;
        const line = /^\{.*\}$/m.exec(this.log);
        if (line !== null) first.resolve(line[0]);
      }
    };
    const read = Promise.all([collect(this.child.stdout), collect(this.child.stderr)]);
    this.ended = deadline(
      Promise.all([this.child.status, read]).then(([{ code }]) => code),
      "the end of the program",
      30_000,
    );
    this.ended.then(() => first.reject(new Error(`It ended: ${this.log}`)), () => {});
    this.listening = deadline(first.promise.then((line) => JSON.parse(line)), "its address");
    this.listening.catch(() => {});
  }

  kill(signal: Deno.Signal): void {
    this.child.kill(signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    await this.ended;
  }
}
