import { type ChildProcess, spawn } from "node:child_process";
import { fastCGIGateway, type Gateway, type GatewayInfo } from "../../gateway.ts";
import { childCommand } from "../child_command.ts";

/** The time that a replaced process has to accept connections that were just opened, in milliseconds. */
const RETIREMENT = 1000;

/** Options of {@linkcode ReloadingApp}. */
export interface ReloadingAppOptions {
  /** Flags of the app's `deno run`, as text. @default those of this process */
  flags?: string;
  /** Options of `serve`. @default [] */
  serve?: string[];
  /** The path that the app is mounted at. @default "" */
  prefix?: "" | `/${string}`;
}

/** One process that serves one version of the app. */
interface Version {
  child: ChildProcess;
  gateway: Gateway;
  ended: Promise<void>;
  /** The pending responses. */
  pending: Set<Promise<Response>>;
}

/** An app in a child process, which a new one replaces when the app changes. No request is lost. */
export class ReloadingApp implements AsyncDisposable {
  #module: string;
  #options: ReloadingAppOptions;
  #folder = Deno.makeTempDirSync({ prefix: "gatehouse-dev-" });
  #count = 0;
  /** The process that gets the requests; undefined if none has started yet. */
  #current: Version | undefined;
  #all = new Set<Version>();

  /** @param module The app's module, a path or a URL. */
  constructor(module: string, options: ReloadingAppOptions = {}) {
    this.#module = module;
    this.#options = options;
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

  /** Starts the app as it is now. Requests go to the new process once it serves. @returns Whether it serves. */
  async reload(): Promise<boolean> {
    const version = await this.#start();
    const { child, ended } = version;
    const serves = await Promise.race([
      new Promise<boolean>((resolve) => child.once("message", () => resolve(true))),
      ended.then(() => false),
    ]);
    if (!serves) return false;
    const previous = this.#current;
    this.#current = version;
    if (previous !== undefined) retire(previous);
    return true;
  }

  async #start(): Promise<Version> {
    const address = `unix:${this.#folder}/${++this.#count}.sock`;
    const { flags, serve = [], prefix } = this.#options;
    const options = ["--listen", address, "--log", "stderr", "--debug", ...serve];
    // Anew each time, as the app may have got a config meanwhile.
    const command = await childCommand(this.#module, options, flags);
    // If this process ends, the channel closes, and the child ends by itself.
    const child = spawn(Deno.execPath(), command, {
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    });
    const gateway = fastCGIGateway(address, { prefix });
    const version: Version = {
      child,
      gateway,
      ended: new Promise((resolve) => child.once("exit", () => resolve())),
      pending: new Set(),
    };
    this.#all.add(version);
    version.ended.then(() => {
      gateway[Symbol.dispose]();
      this.#all.delete(version);
      if (this.#current === version) this.#current = undefined;
    });
    return version;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { child } of this.#all) child.kill("SIGTERM");
    await Promise.all([...this.#all].map(({ ended }) => ended));
    await Deno.remove(this.#folder, { recursive: true });
  }
}

/** Ends a process once it has all requests that were sent to it; it finishes them. */
async function retire({ child, pending }: Version): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, RETIREMENT);
  await Promise.race([promise, Promise.allSettled(pending)]);
  clearTimeout(timer);
  child.kill("SIGTERM");
}
