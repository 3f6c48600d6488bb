import { LineLog } from "../io/line_log.ts";
import { StreamReader } from "../io/stream_reader.ts";
import {
  type CommandStatus,
  type DenoOnly,
  requireDeno,
  runtime,
  type RuntimeChild,
} from "../io/runtime.ts";

/** The command that a {@linkcode ProcessGroup} runs. */
export interface ProcessOptions {
  /** The program and its arguments, which no shell interprets. */
  command: string[];
  /** The working directory. */
  cwd: string;
  /** The whole environment. Nothing is inherited. */
  env: Record<string, string>;
  /** Whether the process gets bytes on stdin. */
  input: boolean;
}

/** Large enough for the output of most scripts; a longer one is read in larger parts. */
const SMALL_READ = 4096;
/** The time between SIGTERM and SIGKILL, in milliseconds. */
const GRACE = 1000;

/** The processes that run. */
const running = new Set<ProcessGroup>();

/** Ends the processes when this one exits. A signal that ends it leaves no time for this. */
function onUnload(): void {
  for (const process of running) process.end();
}

/** A process in a group of its own, which is killed together with its children, and when this process exits. */
export class ProcessGroup {
  /** Resolves when the process itself has ended, whether or not its children have. */
  readonly status: Promise<CommandStatus>;
  /** Resolves when all of stderr has been logged, which may be after `status`. */
  readonly logged: Promise<void>;
  /** The standard output of the process. */
  readonly stdout: StreamReader;
  #child: RuntimeChild;
  #stdin: WritableStreamDefaultWriter<Uint8Array> | undefined;
  #ended = false;
  #killed: Promise<void> | undefined;

  /**
   * Starts the process.
   *
   * @param onlog Called with each line that the process writes to stderr.
   * @throws The error of `Deno.Command` if the program cannot be run.
   */
  constructor(options: ProcessOptions, onlog: (line: string) => void) {
    const setsid = sessionStarter();
    const [program, ...args] = setsid === null ? options.command : [setsid, ...options.command];
    this.#child = new (requireCommand())(program, {
      args,
      cwd: options.cwd,
      env: options.env,
      clearEnv: true,
      detached: setsid === null,
      stdin: options.input ? "piped" : "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.stdout = new StreamReader(this.#child.stdout, SMALL_READ);
    this.#stdin = options.input ? this.#child.stdin.getWriter() : undefined;
    running.add(this);
    addEventListener("unload", onUnload);
    this.status = this.#child.status.then((status) => {
      this.#ended = true;
      running.delete(this);
      return status;
    });
    this.logged = logLines(new StreamReader(this.#child.stderr, SMALL_READ), onlog);
  }

  /** Writes to stdin. @throws If the process has closed it. */
  async write(bytes: Uint8Array): Promise<void> {
    await this.#stdin?.write(bytes);
  }

  /** Closes stdin. */
  async closeInput(): Promise<void> {
    await this.#stdin?.close().catch(() => {});
  }

  /**
   * Kills the process and its children: SIGTERM, then SIGKILL when the process has ended or after a second.
   *
   * @returns Resolves when SIGKILL was sent.
   */
  kill(): Promise<void> {
    return this.#killed ??= this.#kill();
  }

  async #kill(): Promise<void> {
    this.#signal("SIGTERM");
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, GRACE);
    await (this.#ended ? late : Promise.race([late, this.status]));
    clearTimeout(timer);
    this.#signal("SIGKILL");
  }

  /** Sends SIGTERM, or SIGKILL if it is being killed already. For the exit of this process, when timers do not run. */
  end(): void {
    this.#signal(this.#killed ? "SIGKILL" : "SIGTERM");
  }

  #signal(signal: "SIGTERM" | "SIGKILL"): void {
    const { pid } = this.#child;
    try {
      runtime.kill(-pid, signal);
    } catch (error) {
      // The program that creates the group has not done so yet, or the group has ended, or belongs to another user.
      if (!(error instanceof runtime.errors.NotCapable)) this.#killChild(signal);
      // To signal a process group, Deno needs --allow-run without a list; the program "kill" does not.
      if (error instanceof runtime.errors.NotCapable && !this.#killGroup(signal)) {
        this.#killChild(signal);
      }
    }
  }

  #killChild(signal: "SIGTERM" | "SIGKILL"): void {
    if (this.#ended) return;
    try {
      this.#child.kill(signal);
    } catch {
      // It has ended, and its status is pending.
    }
  }

  #killGroup(signal: string): boolean {
    if (runtime.permissions.querySync({ name: "run", command: "kill" }).state !== "granted") {
      return false;
    }
    const args = [`-${signal.slice(3)}`, "--", `-${this.#child.pid}`];
    new (requireCommand())("kill", { args, stdin: "null", stdout: "null", stderr: "null" }).spawn();
    return true;
  }
}

/**
 * Returns what runs another program.
 *
 * @throws {Error} If this runtime lacks it.
 */
export function requireCommand(): DenoOnly["Command"] {
  const { Command } = requireDeno(
    "run CGI scripts",
    "Let the web server run them, or send the requests to a FastCGI application",
  );
  return Command;
}

/** The program of util-linux that runs another in a process group of its own; null if it cannot be used. */
let starter: string | null | undefined;

/**
 * Returns the program that starts a process group, which takes a quarter of the time of `detached`: Deno then forks
 * itself. Needs permission to run any program, as Deno checks it for this program instead of the script.
 */
function sessionStarter(): string | null {
  if (runtime.permissions.querySync({ name: "run" }).state !== "granted") return null;
  if (starter === undefined) starter = ["/usr/bin/setsid", "/bin/setsid"].find(works) ?? null;
  return starter;
}

/** Returns whether processes start in a session of their own, without the terminal of this one. */
export function startsSessions(): boolean {
  return sessionStarter() !== null;
}

function works(setsid: string): boolean {
  try {
    return new (requireCommand())(setsid, { args: ["true"], stdin: "null" }).outputSync().success;
  } catch {
    return false;
  }
}

async function logLines(
  stderr: StreamReader,
  onlog: (line: string) => void,
): Promise<void> {
  const log = new LineLog(onlog);
  try {
    for (let bytes = await stderr.read(); bytes !== null; bytes = await stderr.read()) {
      log.push(bytes);
    }
  } catch {
    // The process has ended.
  }
  log.end();
}
