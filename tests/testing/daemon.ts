import { deadline } from "./deadline.ts";

/** A program that runs until it is stopped, and its log. */
export class Program implements AsyncDisposable {
  readonly child: Deno.ChildProcess;
  /** What it has written to stderr so far. */
  log = "";
  /** Resolves when it has written all. */
  readonly ended: Promise<void>;
  #changed = Promise.withResolvers<void>();

  constructor(command: string, options: Deno.CommandOptions) {
    this.child = new Deno.Command(command, {
      stdin: "null",
      stdout: "null",
      ...options,
      stderr: "piped",
    }).spawn();
    this.ended = this.#read();
  }

  async #read(): Promise<void> {
    for await (const chunk of this.child.stderr.pipeThrough(new TextDecoderStream())) {
      this.log += chunk;
      this.#changed.resolve();
      this.#changed = Promise.withResolvers();
    }
    this.#changed.reject(new Error(`The program ended. Its log: ${this.log}`));
    this.#changed.promise.catch(() => {});
  }

  /** Waits until it has written a text to stderr, `times` times in all. */
  async says(text: string, times = 1, ms?: number): Promise<void> {
    while (this.log.split(text).length <= times) {
      await deadline(
        this.#changed.promise,
        `the program to say ${JSON.stringify(text)}: ${this.log}`,
        ms,
      );
    }
  }

  /** Sends it a signal and waits until it ends. */
  async stop(signal: Deno.Signal = "SIGTERM"): Promise<Deno.CommandStatus> {
    try {
      this.child.kill(signal);
    } catch {
      // It has ended already.
    }
    return await deadline(this.child.status, "the program to end");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

/** A program that Deno runs. */
export class Daemon extends Program {
  /**
   * @param args Arguments of `deno run`.
   * @param command A command of Deno's to use instead of `run`.
   * @param deno The Deno to use.
   */
  constructor(
    args: string[],
    options: Deno.CommandOptions = {},
    command = "run",
    deno: string = Deno.execPath(),
  ) {
    const importMap = Deno.env.get("GATEHOUSE_IMPORT_MAP");
    const map = importMap ? [`--import-map=${importMap}`] : [];
    super(deno, { ...options, args: [command, "--no-prompt", ...map, ...args] });
  }
}

/** The path of the repository, with a slash at its end. */
export const ROOT: string = new URL("../..", import.meta.url).pathname;
