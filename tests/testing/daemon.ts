import { deadline } from "./deadline.ts";

/** A program of the tests' own that runs until it is stopped. */
export class Daemon implements AsyncDisposable {
  readonly child: Deno.ChildProcess;
  /** What it has written to stderr. */
  log = "";
  #changed = Promise.withResolvers<void>();

  /**
   * @param args What `deno run` is given.
   * @param command Another command of Deno's.
   */
  constructor(args: string[], options: Deno.CommandOptions = {}, command = "run") {
    const importMap = Deno.env.get("GATEHOUSE_IMPORT_MAP");
    this.child = new Deno.Command(Deno.execPath(), {
      stdin: "null",
      stdout: "null",
      ...options,
      args: [
        command,
        "--no-prompt",
        ...(importMap ? [`--import-map=${importMap}`] : []),
        ...args,
      ],
      stderr: "piped",
    }).spawn();
    this.#read();
  }

  async #read(): Promise<void> {
    for await (const chunk of this.child.stderr.pipeThrough(new TextDecoderStream())) {
      this.log += chunk;
      this.#changed.resolve();
      this.#changed = Promise.withResolvers();
    }
    this.#changed.reject(new Error(`The daemon ended. It said: ${this.log}`));
    this.#changed.promise.catch(() => {});
  }

  /** Waits until it has written a text, so often. */
  async says(text: string, times = 1): Promise<void> {
    while (this.log.split(text).length <= times) {
      await deadline(
        this.#changed.promise,
        `the daemon to say ${JSON.stringify(text)}: ${this.log}`,
      );
    }
  }

  /** Ends it. */
  async stop(signal: Deno.Signal = "SIGTERM"): Promise<Deno.CommandStatus> {
    try {
      this.child.kill(signal);
    } catch {
      // It has ended already.
    }
    return await deadline(this.child.status, "the daemon to end");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

/** The root of the project. */
export const ROOT: string = new URL("../../", import.meta.url).pathname;
