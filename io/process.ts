import { LineLog } from "./line_log.ts";

/** What to run. */
export interface ProcessOptions {
  /** The program and its arguments; no shell reads them. */
  command: string[];
  /** The working directory. */
  cwd: string;
  /** All of the environment. */
  env: Record<string, string>;
}

/** How long a process has to end by itself after SIGTERM, in milliseconds. */
const GRACE = 1000;

/** A process in a group of its own, which ends with all of its children. */
export class ProcessGroup {
  /** Resolves when the process itself has ended. */
  readonly status: Promise<Deno.CommandStatus>;
  /** What it writes. */
  readonly stdout: ReadableStream<Uint8Array<ArrayBuffer>>;
  #child: Deno.ChildProcess;
  #stdin: WritableStreamDefaultWriter<Uint8Array>;
  #ended = false;
  #killing = false;

  /**
   * Starts it.
   *
   * @param onlog Called with each line that it writes to stderr.
   * @throws What `Deno.Command` throws if it cannot be run.
   */
  constructor(options: ProcessOptions, onlog: (line: string) => void) {
    const [program, ...args] = options.command;
    this.#child = new Deno.Command(program, {
      args,
      cwd: options.cwd,
      env: options.env,
      clearEnv: true,
      detached: true,
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.stdout = this.#child.stdout;
    this.#stdin = this.#child.stdin.getWriter();
    this.status = this.#child.status.then((status) => {
      this.#ended = true;
      return status;
    });
    logLines(this.#child.stderr, onlog);
  }

  /** Writes to its stdin. @throws If it reads no more. */
  async write(bytes: Uint8Array): Promise<void> {
    await this.#stdin.write(bytes);
  }

  /** Ends its stdin. */
  async closeInput(): Promise<void> {
    await this.#stdin.close().catch(() => {});
  }

  /** Ends the process and its children: asked first, then made to, at the latest when the process itself has ended. */
  kill(): void {
    if (this.#killing) return;
    this.#killing = true;
    this.#signal("SIGTERM");
    const killed = Promise.withResolvers<void>();
    const timer = setTimeout(killed.resolve, GRACE);
    const ended = this.#ended ? killed.promise : Promise.race([killed.promise, this.status]);
    ended.then(() => {
      clearTimeout(timer);
      this.#signal("SIGKILL");
    });
  }

  #signal(signal: "SIGTERM" | "SIGKILL"): void {
    const { pid } = this.#child;
    try {
      Deno.kill(-pid, signal);
    } catch (error) {
      // A process group takes --allow-run without a list, or the program "kill" on it.
      if (error instanceof Deno.errors.NotCapable && !this.#killGroup(signal) && !this.#ended) {
        this.#child.kill(signal);
      }
    }
  }

  #killGroup(signal: string): boolean {
    if (Deno.permissions.querySync({ name: "run", command: "kill" }).state !== "granted") {
      return false;
    }
    const args = [`-${signal.slice(3)}`, "--", `-${this.#child.pid}`];
    new Deno.Command("kill", { args, stdin: "null", stdout: "null", stderr: "null" }).spawn();
    return true;
  }
}

async function logLines(
  stream: ReadableStream<Uint8Array>,
  onlog: (line: string) => void,
): Promise<void> {
  const log = new LineLog(onlog);
  try {
    for await (const chunk of stream) log.push(chunk);
  } catch {
    // The process is gone.
  }
  log.end();
}
