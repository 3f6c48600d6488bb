/** Shared by the tests of the guides: the blocks of a page, and a fresh machine. */
import { assertEquals } from "@std/assert";
import { ROOT } from "../testing/daemon.ts";
import { deadline } from "../testing/deadline.ts";
import { Registry } from "../testing/registry.ts";

/** A fenced block of a page. */
export interface Block {
  language: string;
  /** The text after the language. */
  info: string;
  /** The name of the file, if the page has it after the language. */
  file: string | undefined;
  text: string;
}

/** Returns the blocks of a page in docs/, in order. */
export function blocksOf(page: string): Block[] {
  return blocksIn(Deno.readTextFileSync(`${ROOT}docs/${page}`));
}

/** Returns the blocks of a text, in order. */
export function blocksIn(source: string): Block[] {
  return [...source.matchAll(/^```(\w+)([^\n]*)\n(.*?)^```$/gms)].map((
    [, language, info, text],
  ) => ({
    language,
    info: info.trim(),
    file: /\S*\.\w+/.exec(info)?.[0],
    text,
  }));
}

/** Returns the block of a page that is a file. */
export function fileOf(blocks: Block[], file: string): string {
  const found = blocks.filter((block) => block.file === file);
  assertEquals(found.length, 1, file);
  return found[0].text;
}

const NETWORK = [
  "DENO_CERT",
  "HTTPS_PROXY",
  "NO_PROXY",
  "NPM_CONFIG_REGISTRY",
  "SSL_CERT_DIR",
  "SSL_CERT_FILE",
];
/** Downloads and compiles all modules first. */
const START = 60_000;

/** The PATH of a user without programs of their own. */
export const SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/** A user's home directory with `deno` on the PATH, the package in a registry on loopback, and nothing downloaded yet. */
export class Machine implements AsyncDisposable {
  readonly home = Deno.makeTempDirSync({ prefix: "gatehouse-guide-" });
  readonly #registry = new Registry();

  constructor() {
    Deno.mkdirSync(`${this.home}/bin`);
    Deno.symlinkSync(Deno.execPath(), `${this.home}/bin/deno`);
    // A web server's user needs search permission on the home directory.
    Deno.chmodSync(this.home, 0o755);
  }

  /** The registry's address, for JSR_URL. */
  get registry(): string {
    return this.#registry.url;
  }

  /** The environment of a login shell, with the variables that reach npm from this network. */
  env(): Record<string, string> {
    const network = NETWORK.flatMap((name) => {
      const value = Deno.env.get(name);
      return value === undefined ? [] : [[name, value]];
    });
    return {
      DENO_TLS_CA_STORE: "mozilla,system",
      ...Object.fromEntries(network),
      PATH: `${this.home}/bin:${SYSTEM_PATH}`,
      HOME: this.home,
      LANG: "C.UTF-8",
      NO_COLOR: "1",
      DENO_NO_UPDATE_CHECK: "1",
      JSR_URL: this.registry,
    };
  }

  write(file: string, text: string, mode = 0o644): string {
    const path = `${this.home}/${file}`;
    Deno.writeTextFileSync(path, text);
    Deno.chmodSync(path, mode);
    return path;
  }

  shell(): Shell {
    return new Shell(this.home, this.env());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#registry[Symbol.asyncDispose]();
    await Deno.remove(this.home, { recursive: true });
  }
}

/** A shell that runs blocks in sequence. */
export class Shell implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #reader: ReadableStreamDefaultReader<string>;
  #output = "";
  #count = 0;

  constructor(home: string, env: Record<string, string>) {
    this.#child = new Deno.Command("setsid", {
      args: ["sh"],
      cwd: home,
      clearEnv: true,
      env,
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    this.#writer = this.#child.stdin.getWriter();
    this.#reader = this.#child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  }

  /** Runs the commands of a block, and returns their output and the last exit code. */
  async run(commands: string, ms = START): Promise<{ output: string; code: number }> {
    const mark = `end-of-block-${++this.#count}`;
    const text = `{ ${commands.trim()}\n} 2>&1 </dev/null; echo ${mark} $?\n`;
    await this.#writer.write(new TextEncoder().encode(text));
    const end = new RegExp(`(.*?)${mark} (\\d+)\n`, "s");
    const wait = async () => {
      while (!end.test(this.#output)) {
        const { done, value } = await this.#reader.read();
        if (done) throw new Error(`The shell ended: ${this.#output}`);
        this.#output += value;
      }
      const [whole, output, code] = end.exec(this.#output)!;
      this.#output = this.#output.slice(whole.length);
      return { output, code: Number(code) };
    };
    return await deadline(wait(), `the shell to run ${commands}`, ms);
  }

  /** Ends the shell and its child processes. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      Deno.kill(-this.#child.pid, "SIGTERM");
    } catch {
      // It has ended.
    }
    await this.#writer.close().catch(() => {});
    await deadline(this.#child.status, "the shell to end");
    await this.#reader.cancel();
  }
}
