/**
 * The gateway to CGI scripts. Runs a process for each request.
 *
 * @module
 */

import { plainResponse } from "../bridge/plain_response.ts";
import { EXEC_PATH } from "../process/exec_path.ts";
import { grantedVariable } from "../io/environment.ts";
import { safeLog } from "../io/log.ts";
import { ProcessGroup, requireCommand } from "../process/script_process.ts";
import {
  absolutePath,
  checkScript,
  findScript,
  folderOf,
  type ScriptRefusal,
  type ScriptRules,
  ShebangChecker,
} from "./script_file.ts";
import type { Spool } from "../io/spool.ts";
import type { CallTrace } from "../io/telemetry.ts";
import type { Ticker } from "../io/ticker.ts";
import { toByteString, toText } from "../wire/byte_string.ts";
import { ProtocolError } from "../wire/protocol_error.ts";
import {
  createGateway,
  createSpool,
  createTicker,
  fetchOnce,
  findMerged,
  redirectToFolder,
} from "./handler.ts";
import { type CGIGatewayOptions, DEFAULTS, type Gateway, type GatewayInfo } from "./options.ts";
import type { ApplicationResponse } from "./response.ts";
import { RoundTrip, type Transport } from "./round_trip.ts";
import {
  type BasePath,
  decodeTarget,
  fileNames,
  isUTF8,
  pathBelow,
  readBasePath,
  type ScriptPath,
} from "./script_path.ts";
import type { CommandStatus } from "../io/runtime.ts";

const DENO_SCRIPT = /\.m?[tj]s$/;
/** How many endings are remembered. */
const MAX_ENDINGS = 1000;
const DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin";

/**
 * Creates a handler that runs CGI scripts (RFC 3875): a process for each request, without a shell. Its environment has
 * the variables of the request, PATH and `env`, and nothing else of this process.
 *
 * Needs `--allow-read` of the scripts, and `--allow-run`. A list, such as `--allow-run=/srv/cgi-bin/app.pl,kill`, must
 * include `kill`: a script that takes too long is killed together with its children. With `--allow-read` and
 * `--allow-write` of the temporary folder, long bodies wait there instead of in memory (`bufferBody`).
 *
 * Disposing of the gateway kills its processes, and `Deno.exit()` ends them. A signal that ends this process does not:
 * scripts then run until they write to their closed output. Handle SIGTERM and SIGINT to end them:
 * `Deno.addSignalListener("SIGTERM", () => Deno.exit(143))`.
 *
 * @param script The script's file, which handles all paths, or options with `root` or `script`.
 * @throws {TypeError} If neither or both of `root` and `script` are set, or the base path or the permissions are invalid.
 * @throws {RangeError} If a limit or timeout is negative or NaN.
 *
 * @example
 * ```ts no-assert
 * import { cgiGateway } from "@gatehouse/cgi/gateway";
 *
 * using gateway = cgiGateway({ root: "/usr/lib/cgi-bin", basePath: "/cgi-bin" });
 * const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, gateway);
 * await server.shutdown();
 * ```
 */
export function cgiGateway(script: string | CGIGatewayOptions): Gateway {
  requireCommand();
  const options = readScript(script);
  const scripts = new Scripts(options, createTicker(options));
  return createGateway(
    options,
    (request, info, trace) => scripts.run(request, info, trace),
    () => scripts.close(),
  );
}

/**
 * Sends one request to a CGI script.
 *
 * @param request A request, or its URL.
 * @param script The script's file, or the options of {@linkcode cgiGateway}.
 * @throws {Error} If the script cannot be run, or its response is invalid.
 *
 * @example
 * ```ts
 * import { fetchCGI } from "@gatehouse/cgi/gateway";
 * import { assertEquals } from "@std/assert";
 *
 * const folder = await Deno.makeTempDir();
 * const text = `#!/bin/sh
 * echo "Content-Type: text/plain"; echo
 * echo "Hello"`;
 * await Deno.writeTextFile(`${folder}/hello`, text, { mode: 0o755 });
 * const response = await fetchCGI("http://localhost/", `${folder}/hello`);
 * assertEquals(await response.text(), "Hello\n");
 * ```
 */
export function fetchCGI(
  request: Request | string | URL,
  script: string | CGIGatewayOptions,
): Promise<Response> {
  requireCommand();
  const options = readScript(script);
  const scripts = new Scripts(options, createTicker(options, true));
  return fetchOnce(options, (sent, info, trace) => scripts.run(sent, info, trace), request);
}

function readScript(script: string | CGIGatewayOptions): CGIGatewayOptions {
  return typeof script === "string" ? { script } : script;
}

/** A script that a path names. */
interface FoundFile {
  file: string;
  path: ScriptPath;
}

/** The scripts of a CGI gateway, and the processes that run them. */
class Scripts {
  #options: CGIGatewayOptions;
  #base: BasePath;
  /** Flags for Deno scripts, by the path of a folder below the root: "" for the root itself. */
  #permissions: Map<string, string[]>;
  #root: string;
  #script: string | undefined;
  #rules: ScriptRules;
  #env: Record<string, string>;
  #ticker: Ticker;
  #spool: Spool;
  #shebangs = new ShebangChecker();
  #running = new Set<ProcessGroup>();
  /** The exit codes that were logged, each with its script. */
  #endings = new Set<string>();

  constructor(options: CGIGatewayOptions, ticker: Ticker) {
    this.#ticker = ticker;
    this.#spool = createSpool(options);
    const { root, script } = options;
    if ((root === undefined) === (script === undefined)) {
      throw new TypeError(
        `Cannot create a CGI gateway as it must have a root or a script: it has ${
          root === undefined ? "neither" : "both"
        }`,
      );
    }
    this.#permissions = readPermissions(options.permissions ?? {});
    this.#base = readBasePath(options);
    this.#options = options;
    this.#script = script === undefined ? undefined : absolutePath(script);
    // Without a slash at its end, but for "/" itself.
    this.#root = root === undefined
      ? folderOf(this.#script!)
      : absolutePath(root).replace(/(?<=.)\/+$/, "");
    this.#rules = {
      index: options.index ?? [],
      extensions: options.extensions,
      needsExecutableBit: (file) => this.#command(file).length === 1,
    };
    this.#env = { PATH: searchPath(), ...options.env };
  }

  /** Kills all processes. */
  close(): void {
    for (const process of this.#running) process.kill();
    this.#ticker.close();
  }

  /** Runs the script that a request names. Resolves to its response. */
  async run(
    request: Request,
    info: GatewayInfo | undefined,
    trace?: CallTrace,
  ): Promise<ApplicationResponse> {
    const options = this.#options;
    const { bufferBody = true, mergeSlashes = DEFAULTS.mergeSlashes } = options;
    const url = new URL(request.url);
    const found = findMerged(
      request,
      url.pathname,
      mergeSlashes,
      (pathname) => this.#find(request, pathname),
    );
    if (found instanceof Response) return found;
    if ("reason" in found) {
      if (found.logged) safeLog(options.log)(`Cannot run script: ${found.reason}`);
      return plainResponse(found.status);
    }
    const roundTrip = new RoundTrip(request, info, options, this.#ticker, trace);
    try {
      await roundTrip.receive(bufferBody ? "whole" : "length", this.#spool);
      if (!roundTrip.over) this.#start(roundTrip, url, found);
    } catch (error) {
      roundTrip.abort(error);
    }
    return await roundTrip.response;
  }

  #start(roundTrip: RoundTrip, url: URL, found: FoundFile): void {
    const { maxProcesses = DEFAULTS.maxProcesses } = this.#options;
    if (this.#running.size >= maxProcesses) {
      throw new ProtocolError(
        `Cannot run script: all ${maxProcesses} processes are in use (maxProcesses)`,
        503,
      );
    }
    const env = { ...this.#env };
    const files = { scriptFilename: found.file, documentRoot: this.#root };
    roundTrip.variables(url, found.path, files, (name, value) => {
      if ((name === "PATH_INFO" || name === "SCRIPT_NAME") && !isUTF8(value)) {
        throw new ProtocolError(`Cannot pass ${name} to a script: it is not UTF-8`);
      }
      env[name] = toText(value);
    });
    const command = this.#command(found.file);
    const fault = command.length === 1 ? this.#shebangs.findFault(found.file) : undefined;
    if (fault !== undefined) throw new ProtocolError(`Cannot run ${found.file}: ${fault}`, 502);
    let process: ProcessGroup;
    try {
      const input = roundTrip.request.body !== null;
      process = new ProcessGroup({ command, cwd: folderOf(found.file), env, input }, roundTrip.log);
    } catch (error) {
      throw new ProtocolError(
        `Cannot run ${found.file} as it must be executable or have an interpreter: ${
          (error as Error).message
        }`,
        502,
      );
    }
    this.#running.add(process);
    process.status.finally(() => this.#running.delete(process));
    const onfailure = (status: CommandStatus) =>
      this.#logFailure(found.file, status, roundTrip.log);
    new CGIClient(roundTrip, process, onfailure).run();
  }

  /** Logs how a script ended after a valid response. Some end with an exit code each time: it is logged once. */
  #logFailure(
    file: string,
    { code, signal }: CommandStatus,
    log: (message: string) => void,
  ): void {
    if (signal !== null) return log(`${file} ended with ${signal}`);
    const ending = `${file} ended with exit code ${code}`;
    if (this.#endings.has(ending)) return;
    if (this.#endings.size >= MAX_ENDINGS) this.#endings.clear();
    this.#endings.add(ending);
    log(`${ending} after its response (logged once)`);
  }

  #find(request: Request, pathname: string): FoundFile | ScriptRefusal | Response {
    const encoded = pathBelow(pathname, this.#base);
    if (encoded === undefined) {
      return { status: 404, reason: `the path is not below ${this.#base.path}`, logged: false };
    }
    const script = this.#script;
    if (script !== undefined) {
      const found = checkScript(script, 0, this.#rules);
      if ("status" in found) return found;
      return {
        file: script,
        path: { scriptName: this.#base.name, pathInfo: decodeTarget(encoded) },
      };
    }
    const found = findScript(this.#root, fileNames(encoded || "/"), this.#rules);
    if ("status" in found) return found;
    if (found.needsSlash) return redirectToFolder(request, pathname);
    const left = encoded.split("/").slice(1 + found.taken);
    const path = {
      scriptName: this.#base.name + toByteString(this.#nameOf(found.file)),
      pathInfo: left.map((segment) => "/" + decodeTarget(segment)).join(""),
    };
    return { file: found.file, path };
  }

  /** Returns a file's path below the root. */
  #nameOf(file: string): string {
    return file.slice(this.#root.replace(/\/$/, "").length);
  }

  /** Returns the program and arguments that run a script. */
  #command(file: string): string[] {
    const { interpreters = {} } = this.#options;
    if (this.#permissions.size > 0 && DENO_SCRIPT.test(file)) {
      let folder = this.#nameOf(file);
      while (folder !== "") {
        folder = folder.slice(0, folder.lastIndexOf("/"));
        const flags = this.#permissions.get(folder);
        if (flags) return [EXEC_PATH, "run", "--quiet", "--no-prompt", ...flags, file];
      }
    }
    for (const [end, program] of Object.entries(interpreters)) {
      if (file.endsWith(end)) return [...program, file];
    }
    return [file];
  }
}

/**
 * Reads the option `permissions`. Scripts in a folder with a misspelled name would get the permissions of another one.
 *
 * @throws {TypeError} If a folder is no path below the root, is there twice, or a permission is not a flag.
 */
function readPermissions(permissions: Record<string, string[]>): Map<string, string[]> {
  const read = new Map<string, string[]>();
  for (const [folder, flags] of Object.entries(permissions)) {
    const path = folder.replace(/\/$/, "");
    if (
      !folder.startsWith("/") || !/^(?:\/(?!\.\.?(?:\/|$))[^/]+)*$/.test(path) || read.has(path)
    ) {
      throw new TypeError(
        `Cannot run scripts as each folder of permissions must be a path below the root such as "/reports", once: current value is ${
          JSON.stringify(folder)
        }`,
      );
    }
    for (const flag of flags) {
      if (!flag.startsWith("--") || /^--allow-all\b/.test(flag)) {
        throw new TypeError(
          `Cannot run scripts as a permission must be a flag such as "--allow-env": current value is ${
            JSON.stringify(flag)
          }`,
        );
      }
    }
    read.set(path, flags);
  }
  return read;
}

/** One request to a CGI script. */
class CGIClient implements Transport {
  #roundTrip: RoundTrip;
  #process: ProcessGroup;
  #onfailure: (status: CommandStatus) => void;

  /** @param onfailure Called if the script ends with an exit code or a signal after its response. */
  constructor(
    roundTrip: RoundTrip,
    process: ProcessGroup,
    onfailure: (status: CommandStatus) => void,
  ) {
    this.#roundTrip = roundTrip;
    this.#process = process;
    this.#onfailure = onfailure;
  }

  /** Sends the body and reads the response. Resolves when the script has ended. */
  async run(): Promise<void> {
    const roundTrip = this.#roundTrip;
    const process = this.#process;
    roundTrip.transport = this;
    this.#sendBody();
    try {
      while (true) {
        const bytes = await process.stdout.read();
        if (bytes === null) break;
        roundTrip.progressed();
        roundTrip.reader.push(bytes);
        roundTrip.reader.flushSoon();
        const room = roundTrip.room();
        if (room) await room;
      }
      if (!roundTrip.over) roundTrip.reader.end();
    } catch (error) {
      roundTrip.fail(error);
    }
    // The timeout still applies: a script that runs on after its response is killed.
    const status = await process.status;
    if (!status.success && !roundTrip.over) this.#onfailure(status);
    roundTrip.finish();
  }

  async #sendBody(): Promise<void> {
    if (this.#roundTrip.request.body === null) return;
    await this.#roundTrip.send((chunk) => this.#process.write(chunk));
    await this.#process.closeInput();
  }

  abort(): void {
    this.#process.kill();
    // A child that has left the process group may keep it open.
    this.#process.stdout.cancel().catch(() => {});
  }
}

function searchPath(): string {
  return grantedVariable("PATH") ?? DEFAULT_PATH;
}
