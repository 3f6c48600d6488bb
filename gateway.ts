/**
 * The other way round: lets a Deno server answer from CGI scripts and from FastCGI and SCGI applications.
 *
 * ```ts no-assert
 * import { cgiGateway, fastCGIGateway } from "@gatehouse/cgi/gateway";
 *
 * const scripts = cgiGateway({ root: "/srv/cgi-bin", prefix: "/cgi-bin" });
 * const php = fastCGIGateway("unix:/run/php/php-fpm.sock", { root: "/srv/www", index: "index.php" });
 *
 * const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, (request, info) =>
 *   new URL(request.url).pathname.startsWith("/cgi-bin/") ? scripts(request, info) : php(request, info));
 * await server.shutdown();
 * ```
 *
 * @module
 */

import { type Channel, FastCGIInquiry, runSCGI } from "./bridge/application.ts";
import type { Answer } from "./bridge/cgi_response.ts";
import { createGateway } from "./bridge/gateway.ts";
import {
  type CGIGatewayOptions,
  DEFAULTS,
  type FastCGIGatewayOptions,
  type Gateway,
  type GatewayInfo,
  type GatewayOptions,
  type SCGIGatewayOptions,
} from "./bridge/gateway_options.ts";
import { Inquiry, type ScriptFiles } from "./bridge/inquiry.ts";
import { plainResponse } from "./bridge/respond.ts";
import {
  decodeTarget,
  fileNames,
  hasDotName,
  isUTF8,
  type ScriptPath,
  splitScript,
  stripPrefix,
} from "./bridge/script_path.ts";
import { type Address, parseAddress } from "./io/address.ts";
import { ConnectionPool, type PooledConnection, PoolFullError } from "./io/connection_pool.ts";
import { Output } from "./io/output.ts";
import { LineLog, ProcessGroup } from "./io/process.ts";
import { checkScript, findScript, kindBelow, type ScriptRules } from "./io/script_file.ts";
import { ByteBuffer } from "./wire/byte_buffer.ts";
import { toByteString, toText } from "./wire/byte_string.ts";
import { ProtocolError } from "./wire/protocol_error.ts";

export type {
  CGIGatewayOptions,
  FastCGIGatewayOptions,
  Gateway,
  GatewayInfo,
  GatewayOptions,
  SCGIGatewayOptions,
} from "./bridge/gateway_options.ts";
export type { Address } from "./io/address.ts";

const IDEMPOTENT = /^(?:GET|HEAD|OPTIONS|PUT|DELETE)$/;
const DENO_SCRIPT = /\.m?[tj]s$/;
const DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin";

/**
 * Makes a handler that answers from CGI scripts (RFC 3875): a process for each request, without a shell, with an
 * environment that holds the request and nothing of this process.
 *
 * Needs `--allow-read` of the scripts, and `--allow-run`. With a list, as `--allow-run=/srv/cgi-bin/app.pl,kill`, name
 * `kill` too: a script that takes too long is ended with all its children.
 *
 * @param options Where the scripts are: `root` or `script`.
 * @throws {TypeError} If neither or both are given.
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
  const scripts = new Scripts(options);
  return createGateway(options, (request, info) => scripts.ask(request, info), () => scripts.end());
}

/**
 * Makes a handler that asks a FastCGI application: PHP-FPM, fcgiwrap, an app of `serveFastCGI`.
 *
 * Connections are kept for requests that can be repeated (GET, HEAD, OPTIONS, DELETE, PUT without a body): one that the
 * application closes just then is repeated on a new connection. Others get a connection of their own. Several
 * applications are a balancer's business.
 *
 * Needs `--allow-net` of the address, for a Unix socket `--allow-net=unix:/path` and `--allow-read` and `--allow-write` of
 * its path; `--allow-read` of `root`.
 *
 * @param address `host:port`, `[ipv6]:port` or `unix:/path`.
 * @throws {TypeError} If the address is none.
 *
 * @example PHP
 * ```ts no-assert
 * import { fastCGIGateway } from "@gatehouse/cgi/gateway";
 *
 * using php = fastCGIGateway("unix:/run/php/php-fpm.sock", { root: "/srv/www" });
 * const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, php);
 * await server.shutdown();
 * ```
 */
export function fastCGIGateway(address: Address, options: FastCGIGatewayOptions = {}): Gateway {
  const {
    maxConnections = DEFAULTS.maxConnections,
    idleTimeout = DEFAULTS.idleTimeout,
    connectTimeout = DEFAULTS.connectTimeout,
  } = options;
  const pool = new ConnectionPool(parseAddress(address), {
    maxConnections,
    maxIdle: maxIdle(options),
    idleTimeout,
    connectTimeout,
  });
  return createGateway(
    options,
    (request, info) => askFastCGI(request, info, pool, options),
    () => pool.close(),
  );
}

/**
 * Makes a handler that asks an SCGI application, on a connection for each request.
 *
 * Needs `--allow-net` of the address, for a Unix socket `--allow-net=unix:/path` and `--allow-read` and `--allow-write` of
 * its path.
 *
 * @param address `host:port`, `[ipv6]:port` or `unix:/path`.
 * @throws {TypeError} If the address is none.
 *
 * @example
 * ```ts no-assert
 * import { scgiGateway } from "@gatehouse/cgi/gateway";
 *
 * using gateway = scgiGateway("127.0.0.1:4000");
 * const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, gateway);
 * await server.shutdown();
 * ```
 */
export function scgiGateway(address: Address, options: SCGIGatewayOptions = {}): Gateway {
  const {
    maxConnections = DEFAULTS.maxConnections,
    connectTimeout = DEFAULTS.connectTimeout,
  } = options;
  const pool = new ConnectionPool(parseAddress(address), {
    maxConnections,
    maxIdle: 0,
    idleTimeout: 0,
    connectTimeout,
  });
  return createGateway(
    options,
    (request, info) => askSCGI(request, info, pool, options),
    () => pool.close(),
  );
}

/**
 * Asks a FastCGI application one request, on a connection of its own: does my daemon answer?
 *
 * @param request A request, or its URL.
 * @param address `host:port`, `[ipv6]:port` or `unix:/path`.
 * @throws {Error} If it does not answer, or not as FastCGI has it.
 *
 * @example
 * ```ts
 * import { serveFastCGI } from "@gatehouse/cgi/fastcgi";
 * import { fetchFastCGI } from "@gatehouse/cgi/gateway";
 * import { assertEquals } from "@std/assert";
 *
 * const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
 * await using server = serveFastCGI(() => new Response("Hello"), listener);
 * const { port } = server.addr as Deno.NetAddr;
 * const response = await fetchFastCGI("http://localhost/", `127.0.0.1:${port}`);
 * assertEquals(await response.text(), "Hello");
 * ```
 */
export function fetchFastCGI(
  request: Request | string | URL,
  address: Address,
  options: FastCGIGatewayOptions = {},
): Promise<Response> {
  const { connectTimeout = DEFAULTS.connectTimeout } = options;
  const pool = new ConnectionPool(parseAddress(address), {
    maxConnections: 2,
    maxIdle: 0,
    idleTimeout: 0,
    connectTimeout,
  });
  const once = { ...options, maxIdleConnections: 0 };
  return fetchAnswer((asked) => askFastCGI(asked, undefined, pool, once), request);
}

/**
 * Asks an SCGI application one request.
 *
 * @param request A request, or its URL.
 * @param address `host:port`, `[ipv6]:port` or `unix:/path`.
 * @throws {Error} If it does not answer, or not as SCGI has it.
 *
 * @example
 * ```ts
 * import { serveSCGI } from "@gatehouse/cgi/scgi";
 * import { fetchSCGI } from "@gatehouse/cgi/gateway";
 * import { assertEquals } from "@std/assert";
 *
 * const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
 * await using server = serveSCGI(() => new Response("Hello"), listener);
 * const { port } = server.addr as Deno.NetAddr;
 * const response = await fetchSCGI("http://localhost/", `127.0.0.1:${port}`);
 * assertEquals(await response.text(), "Hello");
 * ```
 */
export function fetchSCGI(
  request: Request | string | URL,
  address: Address,
  options: SCGIGatewayOptions = {},
): Promise<Response> {
  const { connectTimeout = DEFAULTS.connectTimeout } = options;
  const pool = new ConnectionPool(parseAddress(address), {
    maxConnections: 1,
    maxIdle: 0,
    idleTimeout: 0,
    connectTimeout,
  });
  return fetchAnswer((asked) => askSCGI(asked, undefined, pool, options), request);
}

/**
 * Asks a CGI script one request.
 *
 * @param request A request, or its URL.
 * @param script The script's file, or options as {@linkcode cgiGateway} has them.
 * @throws {Error} If it cannot be run, or does not answer as CGI has it.
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
  const scripts = new Scripts(typeof script === "string" ? { script } : script);
  return fetchAnswer((asked) => scripts.ask(asked, undefined), request);
}

async function fetchAnswer(
  ask: (request: Request) => Promise<Answer>,
  request: Request | string | URL,
): Promise<Response> {
  const answer = await ask(request instanceof Request ? request : new Request(request));
  if (answer instanceof Response) return answer;
  return new Response(null, { status: 302, headers: { location: answer.location } });
}

/** Takes a connection of the pool; what goes wrong is told with its status. */
async function acquire(
  pool: ConnectionPool,
  fresh: boolean,
  signal: AbortSignal,
): Promise<PooledConnection> {
  try {
    return await pool.acquire(fresh, signal);
  } catch (error) {
    if (signal.aborted || error instanceof Deno.errors.NotCapable) throw error;
    throw new ProtocolError((error as Error).message, connectStatus(error));
  }
}

function connectStatus(error: unknown): number {
  if (error instanceof PoolFullError) return 503;
  if (error instanceof Deno.errors.TimedOut) return 504;
  // The queue of a Unix socket is full.
  if (error instanceof Deno.errors.WouldBlock) return 503;
  return 502;
}

/** Decodes a request's path and takes the prefix off; undefined if it is not under the prefix. */
function pathBelow(request: Request, options: GatewayOptions): string | undefined {
  const path = decodeTarget(new URL(request.url).pathname);
  return stripPrefix(path, toByteString(options.prefix ?? ""));
}

async function askFastCGI(
  request: Request,
  info: GatewayInfo | undefined,
  pool: ConnectionPool,
  options: FastCGIGatewayOptions,
): Promise<Answer> {
  const found = await findPHP(request, options);
  if (found instanceof Response) return found;
  const { needsLength = options.root !== undefined, maxBufferedBody = DEFAULTS.maxBufferedBody } =
    options;
  const repeatable = request.body === null && IDEMPOTENT.test(request.method);
  const keep = repeatable && maxIdle(options) > 0;
  for (let fresh = !repeatable;; fresh = true) {
    const inquiry = new Inquiry(request, options);
    try {
      if (needsLength) await inquiry.measure(maxBufferedBody);
      const variables = inquiry.variables(info, found.path, found.files);
      const connection = await acquire(pool, fresh, request.signal);
      if (inquiry.over) {
        pool.release(connection, false);
        return await inquiry.answer;
      }
      const exchange = new FastCGIInquiry(
        inquiry,
        createChannel(connection),
        keep,
        new LineLog(inquiry.log),
      );
      const done = exchange.run(variables).then((reusable) => pool.release(connection, reusable));
      try {
        return await inquiry.answer;
      } catch (error) {
        // The application closed the connection while it was idle, and has seen nothing of the request.
        if (!connection.reused || !exchange.lost) throw error;
        await done;
      }
    } catch (error) {
      inquiry.abort(error);
      throw error;
    }
  }
}

function maxIdle(options: FastCGIGatewayOptions): number {
  return options.maxIdleConnections ??
    (options.root === undefined ? DEFAULTS.maxIdleConnections : 0);
}

/** Finds out what the path asks of the application: without a root, anything; with one, a script in it. */
async function findPHP(
  request: Request,
  options: FastCGIGatewayOptions,
): Promise<{ path: ScriptPath; files?: ScriptFiles } | Response> {
  const { root, split = DEFAULTS.split, index = DEFAULTS.index, fallback, checkFiles } = options;
  const rest = pathBelow(request, options);
  if (rest === undefined) return plainResponse(404);
  const prefix = toByteString(options.prefix ?? "");
  if (root === undefined) return { path: { scriptName: prefix, pathInfo: rest } };
  const documentRoot = absolute(root).replace(/\/+$/, "");
  const kind = async (name: string) =>
    checkFiles === false
      ? "file"
      : await kindBelow(documentRoot || "/", documentRoot + toText(name));
  let path = splitScript(rest || "/", { split: [...split], index });
  if (path && (hasDotName(path.scriptName) || await kind(path.scriptName) !== "file")) {
    path = undefined;
  }
  if (path !== undefined) checkNames(request, prefix + path.scriptName);
  if (path === undefined && checkFiles !== false && !rest.endsWith("/")) {
    const isFolder = await kind(rest) === "folder" && await kind(`${rest}/${index}`) === "file";
    if (isFolder && !hasDotName(rest)) return addSlash(request);
  }
  if (path === undefined && fallback !== undefined) path = { scriptName: fallback, pathInfo: "" };
  if (path === undefined) return plainResponse(404);
  return {
    path: { scriptName: prefix + path.scriptName, pathInfo: path.pathInfo },
    files: { scriptFilename: documentRoot + toText(path.scriptName), documentRoot },
  };
}

/**
 * Sees that the script's name is what the URL has, name for name (SPEC F14).
 *
 * @throws {ProtocolError} If it is not.
 */
function checkNames(request: Request, scriptName: string): void {
  let left = scriptName.split("/").length - 1;
  for (const _ of fileNames(new URL(request.url).pathname)) if (--left === 0) return;
}

/** Sends the client to the folder itself, so that what its page refers to is found. */
function addSlash(request: Request): Response {
  const { pathname, search } = new URL(request.url);
  // Not "//host", which is another server.
  const location = pathname.replace(/^\/+/, "/") + "/" + search;
  return new Response(null, { status: 301, headers: { location } });
}

async function askSCGI(
  request: Request,
  info: GatewayInfo | undefined,
  pool: ConnectionPool,
  options: SCGIGatewayOptions,
): Promise<Answer> {
  const pathInfo = pathBelow(request, options);
  if (pathInfo === undefined) return plainResponse(404);
  const inquiry = new Inquiry(request, options);
  try {
    await inquiry.measure(options.maxBufferedBody ?? DEFAULTS.maxBufferedBody);
    const path = { scriptName: toByteString(options.prefix ?? ""), pathInfo };
    const variables = inquiry.variables(info, path);
    const connection = await acquire(pool, true, request.signal);
    if (inquiry.over) pool.release(connection, false);
    else {runSCGI(inquiry, createChannel(connection), variables)
        .finally(() => pool.release(connection, false));}
  } catch (error) {
    inquiry.abort(error);
  }
  return await inquiry.answer;
}

function createChannel(connection: PooledConnection): Channel {
  const out = new ByteBuffer();
  const output = new Output(connection.duplex, out, () => {});
  return {
    out,
    read: () => connection.read(),
    flush: () => output.flush(),
    get sent() {
      return !output.writing && out.length === 0;
    },
    close: () => connection.close(),
  };
}

/** The scripts of a CGI gateway, and the processes that run them. */
class Scripts {
  #options: CGIGatewayOptions;
  #root: string;
  #script: string | undefined;
  #rules: ScriptRules;
  #env: Record<string, string>;
  #running = new Set<ProcessGroup>();

  constructor(options: CGIGatewayOptions) {
    const { root, script } = options;
    if ((root === undefined) === (script === undefined)) {
      throw new TypeError(
        `Cannot make a CGI gateway as it must have a root or a script: it has ${
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
    this.#script = script === undefined ? undefined : absolute(script);
    this.#root = root === undefined ? folderOf(this.#script!) : absolute(root);
    this.#rules = {
      index: options.index ?? [],
      extensions: options.extensions,
      needsRunBit: (file) => this.#command(file).length === 1,
    };
    this.#env = { PATH: searchPath(), ...options.env };
  }

  /** Ends all processes. */
  end(): void {
    for (const process of this.#running) process.kill();
  }

  async ask(request: Request, info: GatewayInfo | undefined): Promise<Answer> {
    const options = this.#options;
    const { log = console.error } = options;
    const found = await this.#find(request);
    if (found instanceof Response) return found;
    if ("status" in found) {
      if (found.status !== 404 || this.#script !== undefined) {
        log(`Cannot run script: ${found.reason}`);
      }
      return plainResponse(found.status);
    }
    const inquiry = new Inquiry(request, options);
    try {
      await inquiry.measure(options.maxBufferedBody ?? DEFAULTS.maxBufferedBody);
      if (!inquiry.over) this.#run(inquiry, info, found);
    } catch (error) {
      inquiry.abort(error);
    }
    return await inquiry.answer;
  }

  #run(
    inquiry: Inquiry,
    info: GatewayInfo | undefined,
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
    for (const [name, value] of inquiry.variables(info, found.path, files)) {
      if ((name === "PATH_INFO" || name === "SCRIPT_NAME") && !isUTF8(value)) {
        throw new ProtocolError(`Cannot run script as ${name} must be UTF-8: it is not`);
      }
      env[name] = toText(value);
    }
    let process: ProcessGroup;
    try {
      const command = this.#command(found.file);
      process = new ProcessGroup({ command, cwd: folderOf(found.file), env }, inquiry.log);
    } catch (error) {
      throw new ProtocolError(
        `Cannot run ${found.file} as it must be a program, or have an interpreter: ${
          (error as Error).message
        }`,
        502,
      );
    }
    this.#running.add(process);
    process.status.finally(() => this.#running.delete(process));
    runScript(inquiry, process);
  }

  async #find(
    request: Request,
  ): Promise<{ file: string; path: ScriptPath } | { status: number; reason: string } | Response> {
    const { prefix = "" } = this.#options;
    const script = this.#script;
    const { pathname } = new URL(request.url);
    decodeTarget(pathname);
    const encoded = stripPrefix(pathname, encodeURI(prefix));
    if (encoded === undefined) return plainResponse(404);
    if (script !== undefined) {
      const found = await checkScript(this.#root, script, 0, this.#rules);
      if ("status" in found) return found;
      const path = { scriptName: toByteString(prefix), pathInfo: decodeTarget(encoded) };
      return { file: script, path };
    }
    const found = await findScript(this.#root, fileNames(encoded || "/"), this.#rules);
    if ("status" in found) return found;
    if (found.needsSlash) return addSlash(request);
    const left = encoded.split("/").slice(1 + found.taken);
    const path = {
      scriptName: toByteString(prefix + this.#nameOf(found.file)),
      pathInfo: left.map((segment) => "/" + decodeTarget(segment)).join(""),
    };
    return { file: found.file, path };
  }

  /** A file's path below the root. */
  #nameOf(file: string): string {
    return file.slice(this.#root.replace(/\/+$/, "").length);
  }

  /** The program and arguments that run a script. */
  #command(file: string): string[] {
    const { interpreters = {}, permissions } = this.#options;
    if (permissions !== undefined && DENO_SCRIPT.test(file)) {
      let folder = this.#nameOf(file);
      while (folder !== "") {
        folder = folder.slice(0, folder.lastIndexOf("/"));
        const flags = permissions[`/${folder.slice(1)}`];
        if (flags) return [Deno.execPath(), "run", "--quiet", "--no-prompt", ...flags, file];
      }
    }
    for (const [end, program] of Object.entries(interpreters)) {
      if (file.endsWith(end)) return [...program, file];
    }
    return [file];
  }
}

/** A path that does not depend on where the process that is told it runs. */
function absolute(path: string): string {
  return path.startsWith("/") ? path : `${Deno.cwd()}/${path}`;
}

function folderOf(file: string): string {
  const slash = file.lastIndexOf("/");
  return slash < 0 ? "." : file.slice(0, slash) || "/";
}

async function runScript(inquiry: Inquiry, process: ProcessGroup): Promise<void> {
  const output = process.stdout.getReader();
  inquiry.onabort = () => {
    process.kill();
    // A child that left the group may still hold it open.
    output.cancel().catch(() => {});
  };
  inquiry.send((chunk) => process.write(chunk)).then(() => process.closeInput());
  try {
    while (true) {
      const { done, value } = await output.read();
      if (done) break;
      inquiry.watchdog.moved();
      inquiry.reader.push(value);
      await inquiry.room();
    }
    if (!inquiry.over) inquiry.reader.end();
  } catch (error) {
    inquiry.fail(error);
  }
  // A script that goes on after its answer has as long again.
  const { success, code, signal } = await process.status;
  if (!success && !inquiry.over) {
    inquiry.log(`The script ended with ${signal ?? `exit code ${code}`}`);
  }
  inquiry.finish();
}

function searchPath(): string {
  const { state } = Deno.permissions.querySync({ name: "env", variable: "PATH" });
  return state === "granted" ? Deno.env.get("PATH") ?? DEFAULT_PATH : DEFAULT_PATH;
}
