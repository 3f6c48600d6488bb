import childProcess, { type ChildProcess } from "node:child_process";
import { EXEC_PATH } from "./exec_path.ts";
import { nameInstance } from "./instance_id.ts";
import { logLine } from "../io/log.ts";
import { MAX_DELAY } from "../io/max_delay.ts";
import { killTree } from "./process_tree.ts";
import { BALANCE, REOPEN, type Report, type ReportOrder } from "./worker.ts";
import { runtime } from "../io/runtime.ts";

/** How much longer than its shutdown timeout a worker may take to end, in milliseconds. */
const GRACE = 1000;
/** How long killing a worker together with its scripts may take, in milliseconds. */
const KILL_LIMIT = 5000;

/** Options of {@linkcode WorkerProcess}. */
export interface WorkerProcessOptions {
  /** The arguments that Deno runs it with. */
  command: string[];
  /** Its standard input. */
  stdin: "inherit" | "ignore";
  /** What messages call it, such as "Worker". */
  name: string;
  /** The `shutdownTimeout` of its server, in milliseconds; Infinity for none. */
  shutdownTimeout: number;
  /** Returns the {@linkcode WorkerProcess.fault} of a worker that has just started, if there is one. */
  fault?: (report: Report) => string | undefined;
  /** Called with each report. */
  onReport?: (report: Report) => void;
  /** Called with the number of connections that keep it busy, after {@linkcode WorkerProcess.balance}. */
  onBusy?: (count: number) => void;
}

/** A process that serves an app and reports to this one when it does. */
export class WorkerProcess {
  /** "stopping": it got SIGTERM. */
  phase: "starting" | "serving" | "stopping" | "ended" = "starting";
  /** The limit that it exceeded when it started, such as "it must …": why it is stopped although it serves. */
  fault: string | undefined;
  /** When it was started, in the time of `performance.now()`. */
  readonly startedAt: number = performance.now();
  /** Resolves when it has reported that it serves, is assumed to, or has ended before. */
  readonly started: Promise<"reported" | "assumed" | "ended">;
  /** Resolves when it has ended, or could not be started, to a sentence that says how. */
  readonly ended: Promise<string>;
  readonly #options: WorkerProcessOptions;
  readonly #started = Promise.withResolvers<"reported" | "assumed" | "ended">();
  readonly #ended = Promise.withResolvers<string>();
  #child: ChildProcess | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** Starts the process. Does not throw: a process that cannot be started has ended. */
  constructor(options: WorkerProcessOptions) {
    this.#options = options;
    this.started = this.#started.promise;
    this.ended = this.#ended.promise;
    const failed = ({ message }: Error) =>
      this.#end(`${options.name} cannot be started: ${message}`);
    try {
      const { stdin, command } = options;
      nameInstance();
      const child = childProcess.spawn(EXEC_PATH, command, {
        stdio: [stdin, "inherit", "inherit", "ipc"],
      });
      this.#child = child;
      child.on("message", (message: unknown) => this.#received(message));
      child.once("exit", (code, signal) => this.#exited(signal ?? `code ${code}`));
      child.on("error", (error) => child.pid === undefined && failed(error));
    } catch (error) {
      failed(error as Error);
    }
  }

  /** Its process id; undefined if it could not be started. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** What messages call it. */
  get title(): string {
    return `${this.#options.name} ${this.pid}`;
  }

  /** Assumes that it serves, as it does not report this. */
  assumeServing(): void {
    this.#serve("assumed");
  }

  /** Orders it to report regularly. A worker of an older version does not. */
  order(order: ReportOrder): void {
    this.#child?.send(order, () => {});
  }

  /** Requests reports on how many connections keep it busy. */
  balance(): void {
    this.#child?.send(BALANCE, () => {});
  }

  /** Lets it open its log files again: they may have been renamed. */
  reopenLogs(): void {
    this.#child?.send(REOPEN, () => {});
  }

  /** Lets it release some of these connections. */
  release(count: number): void {
    this.#child?.send(count, () => {});
  }

  #received(message: unknown): void {
    if (typeof message === "number") return this.#options.onBusy?.(message);
    const report = typeof message === "object" ? message as Report : undefined;
    if (report !== undefined && this.phase === "starting") {
      this.fault = this.#options.fault?.(report);
      if (this.fault !== undefined) return this.stop();
    }
    this.#serve("reported");
    if (report !== undefined) this.#options.onReport?.(report);
  }

  #serve(how: "reported" | "assumed"): void {
    if (this.phase !== "starting") return;
    this.phase = "serving";
    this.#started.resolve(how);
  }

  #exited(how: string): void {
    if (this.fault !== undefined) return this.#end(`${this.title} was stopped as ${this.fault}`);
    const before = this.phase === "starting" ? " before it served" : "";
    this.#end(`${this.title} ended with ${how}${before}`);
  }

  #end(how: string): void {
    clearTimeout(this.#timer);
    // Deno 2.9.6 keeps the channel of a process that ended with messages unread, and its descriptor.
    if (this.#child?.connected) this.#child.disconnect();
    this.phase = "ended";
    this.#started.resolve("ended");
    this.#ended.resolve(how);
  }

  /** Lets it finish its requests and end, by SIGTERM. Kills it a second after its shutdown timeout. */
  stop(): void {
    if (this.phase === "stopping" || this.phase === "ended") return;
    this.phase = "stopping";
    this.#terminate();
    const limit = this.#options.shutdownTimeout + GRACE;
    if (limit > MAX_DELAY) return;
    this.#timer = setTimeout(() => {
      logLine(
        `${this.title} is killed: it still runs ${limit} ms after SIGTERM`,
      );
      this.kill();
    }, limit);
  }

  /** Kills it, and ends the CGI scripts that it runs. */
  kill(): void {
    if (this.phase === "ended") return;
    this.phase = "stopping";
    clearTimeout(this.#timer);
    const child = this.#child;
    if (child?.pid === undefined) return;
    const end = () => this.phase !== "ended" && child.kill("SIGKILL");
    this.#timer = setTimeout(end, KILL_LIMIT);
    killTree(child.pid).then((done) => done || end());
  }

  #terminate(): void {
    const child = this.#child;
    if (child?.pid === undefined) return;
    try {
      runtime.kill(child.pid, "SIGTERM");
    } catch (error) {
      if (!(error instanceof runtime.errors.NotCapable)) return;
      // kill() closes the IPC channel as well. The message shows that the supervisor still runs.
      child.send("SIGTERM", () => child.kill("SIGTERM"));
    }
  }
}
