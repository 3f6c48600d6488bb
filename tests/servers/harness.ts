/**
 * Runs real web servers for tests: each starts once per file, in its own temporary directory, and stops by its pid.
 */
import { assert } from "@std/assert";
import { Arguments } from "../../cli/arguments.ts";
import { createConfiguration, usage } from "../../cli/config.ts";
import { deadline, eventually, LateError } from "../testing/deadline.ts";
import { freePort } from "../testing/free_port.ts";
import { find, testWith } from "../testing/needs.ts";

const ROOT = new URL("../..", import.meta.url).pathname;

export { eventually, freePort, LateError };

/** Waits for a promise, as {@linkcode deadline} does, where the label reads better first. */
export function within<T>(label: string, promise: PromiseLike<T>, ms?: number): Promise<T> {
  return deadline(promise, label, ms);
}

/** A program that runs as long as a test file needs it. */
export class Program {
  readonly name: string;
  readonly process: Deno.ChildProcess;
  /** The text that it has written to stdout and stderr. */
  output = "";
  /** Its exit status, once it has ended. */
  status: Deno.CommandStatus | undefined;
  #read: Promise<unknown>;

  constructor(name: string, command: string, options: Deno.CommandOptions) {
    this.name = name;
    this.process = new Deno.Command(find(command) ?? command, {
      stdin: "null",
      ...options,
      // A process group of its own, so that stop() also ends the processes that it spawned.
      detached: true,
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const collect = async (stream: ReadableStream<Uint8Array<ArrayBuffer>>) => {
      for await (const text of stream.pipeThrough(new TextDecoderStream())) this.output += text;
    };
    this.#read = Promise.all([collect(this.process.stdout), collect(this.process.stderr)]);
    this.process.status.then((status) => this.status = status);
  }

  /** Stops it and the processes that it spawned. */
  async stop(): Promise<void> {
    const { process } = this;
    this.#kill("SIGTERM");
    try {
      await within(`${this.name} stops on SIGTERM`, Promise.all([process.status, this.#read]));
    } finally {
      this.#kill("SIGKILL");
    }
  }

  #kill(signal: Deno.Signal): void {
    try {
      Deno.kill(-this.process.pid, signal);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
}

/** The servers of one test file, and a temporary directory with the files that they need. */
export class Rig {
  /** The directory, which every user can enter. */
  readonly dir: string = Deno.makeTempDirSync({ prefix: "gatehouse" });
  /** The directory of a copy of the sources that every user can read. */
  readonly root: string = `${this.dir}/gatehouse`;
  /** The directory of a copy of Deno that every user can run. */
  readonly bin: string = `${this.dir}/bin`;
  #programs: Program[] = [];
  #logs: string[] = [];
  #logOffsets: number[] = [];
  #daemons = new Map<string, Program>();
  #resources = new DisposableStack();

  constructor() {
    Deno.chmodSync(this.dir, 0o755);
    for (
      const file of [
        "",
        "cli/",
        "wire/",
        "bridge/",
        "server/",
        "gateway/",
        "debug/",
        "process/",
        "io/",
        "examples/",
        "tests/servers/",
      ]
    ) {
      this.#copy(file);
    }
    // Deno itself may be in a home directory that other users cannot read.
    Deno.mkdirSync(this.bin);
    try {
      Deno.linkSync(Deno.execPath(), `${this.bin}/deno`);
    } catch {
      Deno.copyFileSync(Deno.execPath(), `${this.bin}/deno`);
    }
    // The servers' users write Deno's cache of compiled TypeScript here.
    for (const dir of ["deno", "cache", "www"]) {
      Deno.mkdirSync(`${this.dir}/${dir}`);
      Deno.chmodSync(`${this.dir}/${dir}`, 0o777);
    }
  }

  #copy(dir: string): void {
    Deno.mkdirSync(this.root + "/" + dir, { recursive: true });
    for (const { name, isFile, isDirectory } of Deno.readDirSync(ROOT + dir)) {
      // The folders of the repository and of the tests are named above, for few of them are needed.
      if (isDirectory && dir !== "" && !dir.startsWith("tests/")) this.#copy(`${dir}${name}/`);
      if (!isFile || !name.endsWith(".ts")) continue;
      Deno.copyFileSync(ROOT + dir + name, `${this.root}/${dir}${name}`);
    }
  }

  /** Writes a file below the directory and returns its path. */
  write(name: string, text: string): string {
    const path = `${this.dir}/${name}`;
    Deno.mkdirSync(path.slice(0, path.lastIndexOf("/")), { recursive: true });
    Deno.writeTextFileSync(path, text);
    return path;
  }

  /** Writes a test app as a script that a server runs as a CGI script or a FastCGI application. */
  script(name: string, app: "app" | "authorizer" = "app"): string {
    const path = this.write(
      name,
      `#!/usr/bin/env -S ${this.bin}/deno run --no-prompt --no-config --allow-env --allow-net=127.0.0.1
import { serve } from "${this.root}/mod.ts";
import app from "${this.root}/tests/servers/${app}.ts";

await serve(app, { basePath: "auto" });
`,
    );
    Deno.chmodSync(path, 0o755);
    return path;
  }

  /** Registers a log file of a server and returns its path. */
  logFile(name: string): string {
    const path = `${this.dir}/${name}`;
    if (!this.#logs.includes(path)) this.#logs.push(path);
    return path;
  }

  /** Returns the lines that the servers and applications have logged since the last call. */
  takeLog(): string {
    const files = this.#logs.map((path) => [path, readLog(path)]);
    const logs = [...files, ...this.#programs.map(({ name, output }) => [name, output])];
    const news = logs.map(([name, text], index) => {
      const from = this.#logOffsets[index] ?? 0;
      this.#logOffsets[index] = text.length;
      return text.length > from ? `--- ${name}\n${text.slice(from).slice(-8000)}` : "";
    });
    return news.filter((text) => text !== "").join("\n");
  }

  /** Returns the text of a log file, or an empty string if the file does not exist. */
  read(name: string): string {
    return readLog(`${this.dir}/${name}`);
  }

  /** Returns the text that the programs of a name have written to stdout and stderr. */
  output(name: string): string {
    return this.#programs.filter((program) => program.name === name)
      .map((program) => program.output).join("");
  }

  /** Returns the program of a name that was last started. */
  program(name: string): Program {
    return this.#programs.findLast((program) => program.name === name)!;
  }

  /** Starts a program. */
  spawn(name: string, command: string, args: string[], options: Deno.CommandOptions = {}): Program {
    const program = new Program(name, command, {
      args,
      ...options,
      env: {
        PATH: `${this.bin}:${Deno.env.get("PATH")}`,
        DENO_DIR: `${this.dir}/deno`,
        NO_COLOR: "1",
        ...options.env,
      },
    });
    this.#programs.push(program);
    return program;
  }

  /**
   * Starts a web server and waits until it listens.
   *
   * @param names Names of the ports that it needs.
   * @param command Creates the command line from free ports.
   * @returns The ports by their names.
   */
  async serve<Name extends string>(
    name: string,
    names: readonly Name[],
    command: (ports: Record<Name, number>) => [command: string, args: string[]],
    options: Deno.CommandOptions = {},
  ): Promise<Record<Name, number>> {
    for (let attempt = 1;; attempt++) {
      const ports = Object.fromEntries(names.map((name) => [name, freePort()])) as Record<
        Name,
        number
      >;
      const program = this.spawn(name, ...command(ports), options);
      for (const port of Object.values<number>(ports)) {
        await eventually(`${name} listens on port ${port}`, async () => {
          if (program.status !== undefined) return true;
          return await isListening(port);
        });
      }
      if (program.status === undefined) return ports;
      // Another program may have taken a port in the meantime.
      if (attempt === 3) {
        throw new Error(`${name} exits with ${program.status.code}\n${this.takeLog()}`);
      }
    }
  }

  /**
   * Starts the test app as a daemon.
   *
   * @param address A host and port, or `unix:` and a path.
   * @param basePath The `basePath` option of the server.
   * @returns The address that it listens on.
   */
  async daemon(protocol: string, address: string, basePath = "auto"): Promise<string> {
    const program = this.spawn(`daemon (${protocol})`, Deno.execPath(), [
      ..."run --no-prompt --no-config --allow-env".split(" "),
      `--allow-net=127.0.0.1${address.startsWith("unix:") ? `,${address}` : ""}`,
      `--allow-read=${this.dir}`,
      `--allow-write=${this.dir}`,
      `${this.root}/tests/servers/daemon.ts`,
      protocol,
      address,
      basePath,
    ]);
    let at: string | undefined;
    await eventually(`the daemon listens on ${address}`, () => {
      at = /^listening on (\S+)$/m.exec(program.output)?.[1];
      assert(program.status === undefined, program.output);
      return at !== undefined;
    });
    this.#daemons.set(at!, program);
    return at!;
  }

  /** Returns the daemon that was last started at an address. */
  daemonAt(address: string): Program {
    return this.#daemons.get(address)!;
  }

  /** Disposes of a resource when the tests are over. */
  use<T extends Disposable>(resource: T): T {
    return this.#resources.use(resource);
  }

  /** Stops a program before the others. */
  async stop(program: Program): Promise<void> {
    this.#programs.splice(this.#programs.indexOf(program), 1);
    await program.stop();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      for (const program of this.#programs.reverse()) await program.stop();
    } finally {
      this.#resources.dispose();
      await Deno.remove(this.dir, { recursive: true });
    }
  }
}

function readLog(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return "";
  }
}

async function isListening(port: number): Promise<boolean> {
  try {
    (await Deno.connect({ hostname: "127.0.0.1", port })).close();
    return true;
  } catch {
    return false;
  }
}

/** The tests of one server, which share the server that `start` starts. */
export class Suite<T> {
  readonly name: string;
  readonly #needs: Record<string, string>;
  #start: (rig: Rig) => Promise<T>;
  #rig: Rig | undefined;
  #started: Promise<T> | undefined;
  #failed = false;

  /**
   * @param needs Required programs and files, each with the package that installs it.
   * @param start Starts the server when its first test runs.
   */
  constructor(name: string, needs: Record<string, string>, start: (rig: Rig) => Promise<T>) {
    this.name = name;
    this.#start = start;
    this.#needs = needs;
    Deno.test.afterAll(async () => await this.#rig?.[Symbol.asyncDispose]());
  }

  /** Registers a test, which is ignored if a program that the suite needs is missing. */
  test(name: string, run: (started: T, rig: Rig) => void | Promise<void>): void {
    testWith(this.#needs, `${this.name}: ${name}`, async () => {
      const rig = this.#rig ??= new Rig();
      if (this.#failed) throw new Error(`${this.name} did not start: see its first test`);
      try {
        this.#started ??= this.#start(rig);
        await this.#started.catch(() => this.#failed = true);
        await run(await this.#started, rig);
      } catch (error) {
        console.error(rig.takeLog());
        throw error;
      }
      rig.takeLog();
    });
  }
}

/** Returns a configuration as `config` prints it, so that the tests run what users get. */
export function configuration(...args: string[]): string {
  return createConfiguration(Arguments.parse(usage, args));
}

const GUIDE = Deno.readTextFileSync(ROOT + "docs/servers.md");

/**
 * Returns a configuration from docs/servers.md, so that the tests run what the page shows.
 *
 * @param language The language of the fenced block.
 * @param name The word after the language.
 * @param replace The addresses and directories of the page, each with the one that replaces it in the test.
 */
export function snippet(
  language: string,
  name: string,
  replace: Record<string, string> = {},
): string {
  const fence = GUIDE.split(`\n\`\`\`${language} ${name}\n`);
  assert(fence.length === 2, `docs/servers.md must have one snippet "${language} ${name}"`);
  let text = fence[1].split("\n```")[0];
  for (const [from, to] of Object.entries(replace)) {
    assert(text.includes(from), `docs/servers.md: "${language} ${name}" must mention ${from}`);
    text = text.replaceAll(from, to);
  }
  return text;
}
