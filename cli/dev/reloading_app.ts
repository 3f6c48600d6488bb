import type { HandlerInfo } from "../../bridge/app.ts";
import { debugPage } from "../../debug/debug_page.ts";
import { developmentSoftware } from "../../debug/development.ts";
import { fastCGIGateway, type Gateway } from "../../gateway.ts";
import { logLine } from "../../io/log.ts";
import { SHUTDOWN_TIMEOUT } from "../../io/timeouts.ts";
import { WorkerProcess } from "../../process/worker_process.ts";
import { Variables } from "../../wire/variables.ts";
import { childCommand } from "../child_command.ts";

/** The time that a replaced process has to accept connections that were just opened, in milliseconds. */
const RETIREMENT = 1000;

/** Options of {@linkcode ReloadingApp}. */
export interface ReloadingAppOptions {
  /** Flags of the app's `deno run`, as text. @default those of this process */
  flags?: string;
  /** A file with variables for the app. @default none */
  envFile?: string;
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
  /** The number of the last version. Another `dev` has other numbers. */
  #count = Date.now();
  /** Resolves when the last version serves, or has failed to. */
  #loading: Promise<unknown> = Promise.resolve();
  /** The number of the last version that serves or has failed to. */
  #settled = this.#count;
  /** Resolves when that changes. */
  #change = Promise.withResolvers<void>();
  /** The process that starts. */
  #next: Version | undefined;
  /** The process that gets the requests; undefined if the last version does not run. */
  #current: Version | undefined;
  /** Why it does not. */
  #failure = "The app has not been started";
  #all = new Set<Version>();
  #stopped = false;
  #onUnload = () => this.#kill();

  /** @param module The app's module, a path or a URL. */
  constructor(module: string, options: ReloadingAppOptions = {}) {
    this.#module = module;
    this.#options = options;
    addEventListener("unload", this.#onUnload);
  }

  /** Passes a request to the last version of the app, once it has started. */
  async respond(request: Request, info: HandlerInfo): Promise<Response> {
    for (let loading; loading !== this.#loading;) await (loading = this.#loading);
    const version = this.#current;
    if (version === undefined) return await this.#showFailure(request, info);
    const response = version.gateway(request, info);
    version.pending.add(response);
    try {
      return await response;
    } finally {
      version.pending.delete(response);
    }
  }

  async #showFailure(request: Request, info: HandlerInfo): Promise<Response> {
    const { protocol, remoteAddr } = info;
    const software = developmentSoftware(this.#settled);
    const variables = new Variables([...info.variables, ["SERVER_SOFTWARE", software]]);
    const error = new Error(`${this.#failure}. The terminal says more`);
    return await debugPage(error, request, { protocol, remoteAddr, variables });
  }

  /** Responds with 205 once the last version of the app is another than that of a page. */
  async respondToPage(version: string): Promise<Response> {
    while (version === String(this.#settled) && !this.#stopped) await this.#change.promise;
    return new Response(null, { status: this.#stopped ? 503 : 205 });
  }

  /**
   * Starts the app as it is now. Requests wait for it, and go to the new process once it serves.
   *
   * @returns Whether it serves; "superseded" if another call, or {@linkcode stop}, has made this one obsolete.
   */
  reload(): Promise<"serves" | "fails" | "superseded"> {
    const loading = this.#reload(++this.#count);
    this.#loading = loading;
    return loading;
  }

  async #reload(count: number): Promise<"serves" | "fails" | "superseded"> {
    const isObsolete = () => this.#stopped || count !== this.#count;
    // It may never start, and nobody waits for it.
    this.#next?.process.kill();
    const address = `unix:${this.#folder}/${count}.sock` as const;
    // Each time, as the app may have a config by now.
    const command = await this.#command(address);
    if (isObsolete()) return "superseded";
    const version = this.#start(count, address, command);
    this.#next = version;
    const started = await version.process.started;
    if (this.#next === version) this.#next = undefined;
    if (isObsolete()) {
      retire(version);
      return "superseded";
    }
    const before = this.#current;
    this.#current = started === "ended" ? undefined : version;
    if (started === "ended") logLine(this.#failure = await version.process.ended);
    if (before !== undefined) retire(before);
    this.#settle(count);
    return started === "ended" ? "fails" : "serves";
  }

  /** Lets the pages of other versions reload. */
  #settle(count: number): void {
    this.#settled = count;
    this.#change.resolve();
    this.#change = Promise.withResolvers();
  }

  async #command(address: string): Promise<string[]> {
    const { flags, envFile, requestTimeout, shutdownTimeout } = this.#options;
    const options = ["--listen", address, "--log", "stderr", "--debug", "--serve-failure"];
    if (requestTimeout !== undefined) options.push(`--request-timeout=${requestTimeout}`);
    if (shutdownTimeout !== undefined) options.push(`--shutdown-timeout=${shutdownTimeout}`);
    const [run, ...others] = await childCommand(this.#module, options, flags);
    return [run, ...envFile === undefined ? [] : [`--env-file=${envFile}`], ...others];
  }

  #start(number: number, address: `unix:${string}`, command: string[]): Version {
    const { shutdownTimeout = SHUTDOWN_TIMEOUT / 1000 } = this.#options;
    const process = new WorkerProcess({
      command,
      stdin: "ignore",
      name: "The app's process",
      shutdownTimeout: shutdownTimeout * 1000,
    });
    const gateway = fastCGIGateway(address, {
      variables: { SERVER_SOFTWARE: developmentSoftware(number) },
    });
    const version: Version = { process, gateway, pending: new Set() };
    this.#all.add(version);
    process.ended.then((how) => {
      if (version === this.#current && !this.#stopped) logLine(this.#failure = how);
      version.gateway[Symbol.dispose]();
      this.#all.delete(version);
      if (this.#current === version) this.#current = undefined;
    });
    return version;
  }

  /** Ends the processes once they have finished their requests. */
  stop(): void {
    this.#stopped = true;
    this.#change.resolve();
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

/** Ends a process once it has received all its requests, which it finishes. */
async function retire({ process, pending }: Version): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, RETIREMENT);
  await Promise.race([promise, Promise.allSettled(pending)]);
  clearTimeout(timer);
  process.stop();
}
