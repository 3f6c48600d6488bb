import { DEVELOPMENT } from "../../debug/shell_command.ts";
import { fastCGIGateway, type Gateway, type GatewayInfo } from "../../gateway.ts";
import { logLine } from "../../io/log.ts";
import { SHUTDOWN_TIMEOUT } from "../../io/timeouts.ts";
import { WorkerProcess } from "../../process/worker_process.ts";
import { childCommand } from "../child_command.ts";

/** The time that a replaced process has to accept connections that were just opened, in milliseconds. */
const RETIREMENT = 1000;

/** Options of {@linkcode ReloadingApp}. */
export interface ReloadingAppOptions {
  /** Flags of the app's `deno run`, as text. @default those of this process */
  flags?: string;
  /** How long the app may take until its response begins, in seconds. @default no limit */
  requestTimeout?: number;
  /** How long a process has for the requests in progress when it is replaced or ended, in seconds. @default 10 */
  shutdownTimeout?: number;
}

/** One process that serves one version of the app. */
interface Version {
  process: WorkerProcess;
  gateway: Gateway;
  /** The pending responses. */
  pending: Set<Promise<Response>>;
}

/** An app in a child process, which a new one replaces when the app changes. No request is lost. */
export class ReloadingApp implements AsyncDisposable {
  #module: string;
  #options: ReloadingAppOptions;
  #folder = Deno.makeTempDirSync({ prefix: "gatehouse-dev-" });
  /** The number of reloads. */
  #count = 0;
  /** The process that starts. */
  #next: Version | undefined;
  /** The process that gets the requests; undefined if none has started yet. */
  #current: Version | undefined;
  #all = new Set<Version>();
  #stopped = false;
  #onUnload = () => this.#kill();

  /** @param module The app's module, a path or a URL. */
  constructor(module: string, options: ReloadingAppOptions = {}) {
    this.#module = module;
    this.#options = options;
    addEventListener("unload", this.#onUnload);
  }

  /** Passes a request to the last version of the app that started. */
  async respond(request: Request, info?: GatewayInfo): Promise<Response> {
    const version = this.#current;
    if (version === undefined) {
      return new Response("500: the app does not start. The terminal says why\n", { status: 500 });
    }
    const response = version.gateway(request, info);
    version.pending.add(response);
    try {
      return await response;
    } finally {
      version.pending.delete(response);
    }
  }

  /**
   * Starts the app as it is now. Requests go to the new process once it serves.
   *
   * @returns Whether it serves; "superseded" if another call, or {@linkcode stop}, has made this one obsolete.
   */
  async reload(): Promise<"serves" | "fails" | "superseded"> {
    const count = ++this.#count;
    const isObsolete = () => this.#stopped || count !== this.#count;
    // It may never start, and nobody waits for it.
    this.#next?.process.kill();
    const address = `unix:${this.#folder}/${count}.sock` as const;
    // Anew each time, as the app may have got a config meanwhile.
    const command = await this.#command(address);
    if (isObsolete()) return "superseded";
    const version = this.#start(address, command);
    this.#next = version;
    const started = await version.process.started;
    if (this.#next === version) this.#next = undefined;
    if (isObsolete()) {
      retire(version);
      return "superseded";
    }
    if (started === "ended") {
      logLine(await version.process.ended);
      return "fails";
    }
    if (this.#current !== undefined) retire(this.#current);
    this.#current = version;
    return "serves";
  }

  #command(address: string): Promise<string[]> {
    const { flags, requestTimeout, shutdownTimeout } = this.#options;
    const options = ["--listen", address, "--log", "stderr", "--debug"];
    if (requestTimeout !== undefined) options.push(`--request-timeout=${requestTimeout}`);
    if (shutdownTimeout !== undefined) options.push(`--shutdown-timeout=${shutdownTimeout}`);
    return childCommand(this.#module, options, flags);
  }

  #start(address: `unix:${string}`, command: string[]): Version {
    const { shutdownTimeout = SHUTDOWN_TIMEOUT / 1000 } = this.#options;
    const process = new WorkerProcess({
      command,
      stdin: "ignore",
      name: "The app's process",
      shutdownTimeout: shutdownTimeout * 1000,
    });
    const gateway = fastCGIGateway(address, { variables: { SERVER_SOFTWARE: DEVELOPMENT } });
    const version: Version = { process, gateway, pending: new Set() };
    this.#all.add(version);
    process.ended.then((how) => {
      if (version === this.#current && !this.#stopped) logLine(how);
      version.gateway[Symbol.dispose]();
      this.#all.delete(version);
      if (this.#current === version) this.#current = undefined;
    });
    return version;
  }

  /** Ends the processes once they have finished their requests. */
  stop(): void {
    this.#stopped = true;
    this.#next?.process.kill();
    for (const version of this.#all) retire(version);
  }

  /** Does what disposing does if this process exits first: kills the processes. */
  #kill(): void {
    for (const { process } of this.#all) process.kill();
    try {
      Deno.removeSync(this.#folder, { recursive: true });
    } catch {
      // It is removed already.
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stop();
    await Promise.all([...this.#all].map(({ process }) => process.ended));
    removeEventListener("unload", this.#onUnload);
    await Deno.remove(this.#folder, { recursive: true });
  }
}

/** Ends a process once it has all requests that were sent to it; it finishes them. */
async function retire({ process, pending }: Version): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, RETIREMENT);
  await Promise.race([promise, Promise.allSettled(pending)]);
  clearTimeout(timer);
  process.stop();
}
