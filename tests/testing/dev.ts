import { shellQuote } from "../../debug/shell_command.ts";
import { importMapFlags } from "./command_line.ts";
import { ROOT } from "./daemon.ts";
import { deadline } from "./deadline.ts";

/** How to run `dev`. */
export interface DevOptions {
  deno?: string;
  /** Its environment. Without a terminal it has NO_COLOR, and that of this process. */
  env?: Record<string, string>;
  /** Whether its output is a terminal. Needs the program "script". */
  terminal?: boolean;
}

/** A running `dev` command. */
export class Dev implements AsyncDisposable {
  /** Its output so far. */
  output = "";
  url = "";
  readonly child: Deno.ChildProcess;
  #changed = Promise.withResolvers<void>();
  #output: ReadableStreamDefaultReader<string>[];
  #read: Promise<unknown>;

  /** Starts it, without waiting for anything. */
  constructor(args: string[], { deno = Deno.execPath(), env, terminal }: DevOptions = {}) {
    const flags = ["run", "--no-prompt", "--allow-all", ...importMapFlags(), `${ROOT}cli.ts`];
    const command = [deno, ...flags, "dev", ...args, "--port", "0"];
    const [program, ...others] = terminal
      ? ["script", "-qefc", `exec ${command.map(shellQuote).join(" ")}`, "/dev/null"]
      : command;
    this.child = new Deno.Command(program, {
      args: others,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
      clearEnv: terminal,
      env: terminal ? env : { NO_COLOR: "1", ...env },
    }).spawn();
    this.#output = [this.child.stdout, this.child.stderr].map((stream) =>
      stream.pipeThrough(new TextDecoderStream()).getReader()
    );
    this.#read = Promise.all(this.#output.map((output) => this.#collect(output)));
  }

  /** Starts it and waits until it serves. */
  static async start(...args: string[]): Promise<Dev> {
    return await new Dev(args).serves();
  }

  async serves(): Promise<Dev> {
    await this.says("Open http://");
    this.url = /Open http:\/\/localhost(:\d+)\//.exec(this.output)![1];
    this.url = `http://127.0.0.1${this.url}`;
    return this;
  }

  async #collect(output: ReadableStreamDefaultReader<string>): Promise<void> {
    for (let part = await output.read(); !part.done; part = await output.read()) {
      this.output += part.value;
      this.#changed.resolve();
      this.#changed = Promise.withResolvers();
    }
  }

  /** Reads no more of its output, so that writing it fails. */
  async closeOutput(): Promise<void> {
    await Promise.all(this.#output.map((output) => output.cancel()));
  }

  async says(text: string): Promise<void> {
    while (!this.output.includes(text)) {
      await deadline(this.#changed.promise, `dev to print "${text}": ${this.output}`);
    }
  }

  async text(path = "/", init?: RequestInit): Promise<string> {
    return await (await fetch(this.url + path, init)).text();
  }

  /** Requests until the response has a text in it. Returns the response. */
  async shows(text: string): Promise<string> {
    const requesting = (async () => {
      while (true) {
        const response = await this.text();
        if (response.includes(text)) return response;
      }
    })();
    return await deadline(requesting, `the response to have "${text}": ${this.output}`);
  }

  /** Requests until the response differs. */
  async becomes(text: string): Promise<void> {
    const requesting = (async () => {
      while (await this.text() !== text);
    })();
    await deadline(requesting, `the response to become "${text}": ${this.output}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.child.kill("SIGTERM");
    } catch {
      // It has ended already.
    }
    await deadline(Promise.all([this.child.status, this.#read]), "dev to end");
  }
}
