/**
 * The gateway to CGI scripts. Runs a process for each request.
 *
 * @module
 */

import { plainResponse } from "../bridge/error_response.ts";
import { EXEC_PATH } from "../io/exec_path.ts";
import { safeLog } from "../io/log.ts";
import { ProcessGroup } from "../io/process.ts";
import {
  absolutePath,
  checkScript,
  findScript,
  FirstLines,
  type ScriptRules,
} from "../io/script_file.ts";
import type { Spool } from "../io/spool.ts";
import type { Sweep } from "../io/sweep.ts";
import { toByteString, toText } from "../wire/byte_string.ts";
import { ProtocolError } from "../wire/protocol_error.ts";
import { createGateway, createSpool, createSweep, fetchOnce, redirectToFolder } from "./handler.ts";
import { type CGIGatewayOptions, DEFAULTS, type Gateway, type GatewayInfo } from "./options.ts";
import type { ApplicationResponse } from "./response.ts";
import { RoundTrip, type Transport } from "./round_trip.ts";
import { decodeTarget, fileNames, isUTF8, type ScriptPath, stripPrefix } from "./script_path.ts";

const DENO_SCRIPT = /\.m?[tj]s$/;
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
 * @param options The location of the scripts, `root` or `script`, and limits.
 * @throws {TypeError} If neither or both of `root` and `script` are set, or a permission is not a flag.
 *
 * @example
 * ```ts no-assert
 * import { cgiGateway } from "@gatehouse/cgi/gateway";
 *
 * using gateway = cgiGateway({ root: "/usr/lib/cgi-bin", prefix: "/cgi-bin" });
 * const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, gateway);
 * await server.shutdown();
 * ```
 */
export function cgiGateway(options: CGIGatewayOptions): Gateway {
  const scripts = new Scripts(options, createSweep(options));
  return createGateway(
    options,
    (request, info) => scripts.run(request, info),
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
  const options = typeof script === "string" ? { script } : script;
  const scripts = new Scripts(options, createSweep(options, true));
  return fetchOnce((sent) => scripts.run(sent, undefined), request);
}

/** The scripts of a CGI gateway, and the processes that run them. */
class Scripts {
  #options: CGIGatewayOptions;
  #root: string;
  #script: string | undefined;
  #rules: ScriptRules;
  #env: Record<string, string>;
  #sweep: Sweep;
  #spool: Spool;
  #firstLines = new FirstLines();
  #running = new Set<ProcessGroup>();

  constructor(options: CGIGatewayOptions, sweep: Sweep) {
    this.#sweep = sweep;
    this.#spool = createSpool(options);
    const { root, script } = options;
    if ((root === undefined) === (script === undefined)) {
      throw new TypeError(
        `Cannot create a CGI gateway as it must have a root or a script: it has ${
          root === undefined ? "neither" : "both"
        }`,
      );
    }
    for (const flag of Object.values(options.permissions ?? {}).flat()) {
      if (!flag.startsWith("--") || /^--allow-all\b/.test(flag)) {
        throw new TypeError(
          `Cannot run scripts as a permission must be a flag such as "--allow-env": current value is ${
            JSON.stringify(flag)
          }`,
        );
      }
    }
    this.#options = options;
    this.#script = script === undefined ? undefined : absolutePath(script);
    this.#root = root === undefined ? folderOf(this.#script!) : absolutePath(root);
    this.#rules = {
      index: options.index ?? [],
      extensions: options.extensions,
      needsRunBit: (file) => this.#command(file).length === 1,
    };
    this.#env = { PATH: searchPath(), ...options.env };
  }

  /** Kills all processes. */
  close(): void {
    for (const process of this.#running) process.kill();
    this.#sweep.close();
  }

  /** Runs the script that a request names. Resolves to its response. */
  async run(request: Request, info: GatewayInfo | undefined): Promise<ApplicationResponse> {
    const options = this.#options;
    const { bufferBody = true } = options;
    const url = new URL(request.url);
    const found = this.#find(request, url);
    if (found instanceof Response) return found;
    if ("status" in found) {
      if (found.status !== 404 || this.#script !== undefined) {
        safeLog(options.log)(`Cannot run script: ${found.reason}`);
      }
      return plainResponse(found.status);
    }
    const roundTrip = new RoundTrip(request, info, options, this.#sweep);
    try {
      await roundTrip.receive(bufferBody ? "whole" : "length", this.#spool);
      if (!roundTrip.over) this.#start(roundTrip, url, found);
    } catch (error) {
      roundTrip.abort(error);
    }
    return await roundTrip.response;
  }

  #start(
    roundTrip: RoundTrip,
    url: URL,
    found: { file: string; path: ScriptPath },
  ): void {
    const { maxProcesses = DEFAULTS.maxProcesses } = this.#options;
    if (this.#running.size >= maxProcesses) {
      throw new ProtocolError(
        `Cannot run script as there must be at most ${maxProcesses} processes: all are running`,
        503,
      );
    }
    const env = { ...this.#env };
    const files = { scriptFilename: found.file, documentRoot: this.#root };
    roundTrip.variables(url, found.path, files, (name, value) => {
      if ((name === "PATH_INFO" || name === "SCRIPT_NAME") && !isUTF8(value)) {
        throw new ProtocolError(`Cannot run script as ${name} must be UTF-8: it is not`);
      }
      env[name] = toText(value);
    });
    const command = this.#command(found.file);
    const fault = command.length === 1 ? this.#firstLines.findFault(found.file) : undefined;
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
    new CGIClient(roundTrip, process).run();
  }

  #find(
    request: Request,
    { pathname }: URL,
  ): { file: string; path: ScriptPath } | { status: number; reason: string } | Response {
    const { prefix = "" } = this.#options;
    const script = this.#script;
    decodeTarget(pathname);
    const encoded = stripPrefix(pathname, encodeURI(prefix));
    if (encoded === undefined) return plainResponse(404);
    if (script !== undefined) {
      const found = checkScript(script, 0, this.#rules);
      if ("status" in found) return found;
      const path = { scriptName: toByteString(prefix), pathInfo: decodeTarget(encoded) };
      return { file: script, path };
    }
    const found = findScript(this.#root, fileNames(encoded || "/"), this.#rules);
    if ("status" in found) return found;
    if (found.needsSlash) return redirectToFolder(request);
    const left = encoded.split("/").slice(1 + found.taken);
    const path = {
      scriptName: toByteString(prefix + this.#nameOf(found.file)),
      pathInfo: left.map((segment) => "/" + decodeTarget(segment)).join(""),
    };
    return { file: found.file, path };
  }

  /** Returns a file's path below the root. */
  #nameOf(file: string): string {
    return file.slice(this.#root.replace(/\/+$/, "").length);
  }

  /** Returns the program and arguments that run a script. */
  #command(file: string): string[] {
    const { interpreters = {}, permissions } = this.#options;
    if (permissions !== undefined && DENO_SCRIPT.test(file)) {
      let folder = this.#nameOf(file);
      while (folder !== "") {
        folder = folder.slice(0, folder.lastIndexOf("/"));
        const flags = permissions[`/${folder.slice(1)}`];
        if (flags) return [EXEC_PATH, "run", "--quiet", "--no-prompt", ...flags, file];
      }
    }
    for (const [end, program] of Object.entries(interpreters)) {
      if (file.endsWith(end)) return [...program, file];
    }
    return [file];
  }
}

function folderOf(file: string): string {
  const slash = file.lastIndexOf("/");
  return slash < 0 ? "." : file.slice(0, slash) || "/";
}

/** One request to a CGI script. */
class CGIClient implements Transport {
  #roundTrip: RoundTrip;
  #process: ProcessGroup;

  constructor(roundTrip: RoundTrip, process: ProcessGroup) {
    this.#roundTrip = roundTrip;
    this.#process = process;
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
        roundTrip.watchdog.moved();
        roundTrip.reader.push(bytes);
        roundTrip.reader.flushSoon();
        const room = roundTrip.room();
        if (room) await room;
      }
      if (!roundTrip.over) roundTrip.reader.end();
    } catch (error) {
      roundTrip.fail(error);
    }
    // The watchdog still runs: a script that goes on after its response is killed after `timeout`.
    const { success, code, signal } = await process.status;
    if (!success && !roundTrip.over) {
      roundTrip.log(`The script ended with ${signal ?? `exit code ${code}`}`);
    }
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
  const { state } = Deno.permissions.querySync({ name: "env", variable: "PATH" });
  return state === "granted" ? Deno.env.get("PATH") ?? DEFAULT_PATH : DEFAULT_PATH;
}
