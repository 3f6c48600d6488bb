/**
 * The command line: serves the app that a module exports as its default.
 *
 * ```sh
 * deno run --allow-read --allow-net=127.0.0.1:9000 jsr:@gatehouse/cgi/cli \
 *   serve app.ts --protocol fastcgi --listen 127.0.0.1:9000
 * ```
 *
 * @module
 */

import { pathToFileURL } from "node:url";
import { parseArgs } from "@std/cli/parse-args";
import type { App, AppOptions } from "./bridge/app.ts";
import { describeError } from "./bridge/error_response.ts";
import { serveFastCGI } from "./fastcgi.ts";
import { serveHTTP } from "./http.ts";
import { parseAddress } from "./io/address.ts";
import type { Listener } from "./io/duplex.ts";
import { inheritedDescriptor, inheritedListener } from "./io/inherited.ts";
import { listen } from "./io/listen.ts";
import { checkExposure } from "./io/peers.ts";
import type { Server } from "./io/server.ts";
import { onHangup, runUntilTerminated } from "./io/signals.ts";
import { serveSCGI } from "./scgi.ts";

const HELP = `Serves a fetch handler to a web server.

  serve MODULE [options]

MODULE's default export is the app: a function of a Request, or an object with a fetch method.

  --protocol P    fastcgi (default), scgi or http
  --listen A      host:port, unix:/path, or fd:N for a socket handed down; default the socket of systemd
                  (LISTEN_FDS), else 127.0.0.1:9000, for scgi 127.0.0.1:4000, for http 127.0.0.1:8000
  --mode M        who may connect to a Unix socket, as octal permissions; default 660
  --group G       the group of a Unix socket, by name or number
  --workers N     N processes that share the socket (fastcgi and scgi)
  --worker-flags=FLAGS
                  what each worker's "deno run" is given; default the permissions granted here as a whole
  --base-path P   the part of the path that the app does not see: auto, or a path such as /app
  --allow-remote  listen where other machines can connect
  --debug         show errors to whoever asks; for development only
  --help          print this
  --version       print the version

SIGTERM and SIGINT let requests under way finish. With two workers or more, SIGHUP replaces them one
by one.`;

const VERSION = "0.1.0";
const PROTOCOLS = ["fastcgi", "scgi", "http"] as const;
const DEFAULT_ADDRESS = {
  fastcgi: "127.0.0.1:9000",
  scgi: "127.0.0.1:4000",
  http: "127.0.0.1:8000",
};
const OPTIONS = [
  "protocol",
  "listen",
  "mode",
  "group",
  "workers",
  "worker-flags",
  "base-path",
];

/** What is wrong with the command line, and what to type instead. */
class UsageError extends Error {}

interface Command {
  module: string;
  protocol: typeof PROTOCOLS[number];
  address: string;
  mode: number | undefined;
  group: string | number | undefined;
  workers: number;
  workerFlags: string[];
  options: AppOptions & { allowRemote: boolean };
}

/**
 * Runs the command line.
 *
 * @param args The arguments after the program's name.
 * @returns The exit code: 0, 1 where serving failed, 2 where the arguments are wrong.
 *
 * @example
 * ```ts
 * import { main } from "@gatehouse/cgi/cli";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(await main(["--version"]), 0);
 * ```
 */
export async function main(args: string[]): Promise<number> {
  try {
    if (args.length === 0 || args.includes("--help") || args.includes("-h")) {
      console.log(HELP);
      return args.length === 0 ? 2 : 0;
    }
    if (args.includes("--version")) {
      console.log(VERSION);
      return 0;
    }
    const command = readCommand(args);
    await (command.workers > 1 ? supervise(command, args) : serve(command));
    return 0;
  } catch (error) {
    if (error instanceof UsageError) {
      console.error(`${error.message}\nType --help for all options.`);
      return 2;
    }
    console.error(args.includes("--debug") ? describeError(error) : (error as Error).message);
    return 1;
  }
}

function readCommand(args: string[]): Command {
  const unknown: string[] = [];
  const flags = parseArgs(args, {
    string: OPTIONS,
    boolean: ["allow-remote", "debug"],
    unknown: (arg: string) => {
      if (arg.startsWith("-")) unknown.push(arg);
      return true;
    },
  });
  if (unknown.length > 0) throw new UsageError(`There is no option ${unknown[0]}.`);
  const [verb, module, ...rest] = flags._.map(String);
  if (verb !== "serve") {
    throw new UsageError(
      `There is no command "${verb}": type serve and a module, as in: serve app.ts`,
    );
  }
  if (module === undefined) throw new UsageError("Name the app's module, as in: serve app.ts");
  if (rest.length > 0) throw new UsageError(`One module is served: "${rest[0]}" is one too many.`);
  for (const name of OPTIONS) {
    if (flags[name] === "") throw new UsageError(`--${name} needs a value.`);
  }
  const text = (name: string) => flags[name] as string | undefined;
  const protocol = PROTOCOLS.find((name) => name === (text("protocol") ?? "fastcgi"));
  if (protocol === undefined) {
    throw new UsageError(
      `--protocol must be ${PROTOCOLS.join(", ")}: current value is "${text("protocol")}".`,
    );
  }
  const address = text("listen") ?? defaultAddress(protocol);
  checkAddress(address, protocol, flags["allow-remote"] === true);
  const mode = text("mode");
  if (mode !== undefined && !/^[0-7]{3,4}$/.test(mode)) {
    throw new UsageError(`--mode must be octal, such as 660: current value is "${mode}".`);
  }
  const workers = text("workers") ?? "1";
  if (!/^[1-9]\d{0,3}$/.test(workers)) {
    throw new UsageError(`--workers must be a number from 1: current value is "${workers}".`);
  }
  if (protocol === "http" && workers !== "1") {
    throw new UsageError(
      "--workers is for fastcgi and scgi: for http use `deno serve --parallel`.",
    );
  }
  const basePath = text("base-path");
  if (basePath !== undefined && basePath !== "auto" && !basePath.startsWith("/")) {
    throw new UsageError(
      `--base-path must be auto or begin with /: current value is "${basePath}".`,
    );
  }
  const group = text("group");
  return {
    module,
    protocol,
    address,
    mode: mode === undefined ? undefined : parseInt(mode, 8),
    group: group !== undefined && /^\d+$/.test(group) ? Number(group) : group,
    workers: Number(workers),
    workerFlags: text("worker-flags")?.split(/\s+/).filter(Boolean) ?? grantedPermissions(),
    options: {
      basePath: basePath as AppOptions["basePath"],
      debug: flags.debug === true,
      allowRemote: flags["allow-remote"] === true,
    },
  };
}

function defaultAddress(protocol: Command["protocol"]): string {
  const fd = protocol === "http" ? 0 : inheritedDescriptor();
  return fd === 0 ? DEFAULT_ADDRESS[protocol] : `fd:${fd}`;
}

function checkAddress(address: string, protocol: string, allowRemote: boolean): void {
  if (protocol !== "http" && /^fd:\d+$/.test(address)) return;
  try {
    const parsed = parseAddress(address);
    if (parsed.transport === "tcp") return checkExposure(parsed, allowRemote, "--allow-remote");
  } catch (error) {
    throw new UsageError(`${(error as Error).message}.`);
  }
  if (protocol === "http") throw new UsageError("http must have host:port to listen on.");
}

/** The flags of the permissions that are granted as a whole: those granted in part cannot be listed. */
function grantedPermissions(): string[] {
  const names = ["read", "write", "net", "env", "run", "sys", "ffi", "import"] as const;
  return names.filter((name) => Deno.permissions.querySync({ name }).state === "granted")
    .map((name) => `--allow-${name}`);
}

async function loadApp(module: string): Promise<App> {
  const url = /^[a-z][a-z0-9+.-]+:/i.test(module) ? module : pathToFileURL(module).href;
  const app = (await import(url)).default;
  if (typeof app === "function" || typeof app?.fetch === "function") return app;
  throw new UsageError(
    `${module} must export an app as its default: a function of a Request, or an object with a fetch method. ` +
      `Its default export is ${app === undefined ? "missing" : `of type ${typeof app}`}.`,
  );
}

async function serve(command: Command): Promise<void> {
  const app = await loadApp(command.module);
  using _ = onHangup(() =>
    console.error("Ignored SIGHUP as it replaces workers: it needs --workers 2 or more")
  );
  await runUntilTerminated(await startServing(app, command));
}

async function startServing(
  app: App,
  command: Command,
): Promise<Server | Deno.HttpServer<Deno.NetAddr>> {
  const { protocol, address, options } = command;
  const announce = (addr: Deno.Addr) =>
    console.error(`Serving ${command.module} over ${protocol} on ${format(addr)}`);
  if (protocol === "http") {
    const parsed = parseAddress(address);
    return serveHTTP(app, { ...options, ...parsed, transport: "tcp", onListen: announce });
  }
  const listener = await openListener(command);
  const serveProtocol = protocol === "fastcgi" ? serveFastCGI : serveSCGI;
  const server = serveProtocol(app, listener, { ...options, onListen: announce });
  const { reportReady } = await import("./io/worker.ts");
  await reportReady(() => server.shutdown());
  return server;
}

async function openListener({ address, mode, group }: Command): Promise<Listener> {
  if (address.startsWith("fd:")) return await inheritedListener({ fd: Number(address.slice(3)) });
  return await listen(address, { mode, group });
}

/** Has workers serve the socket: each runs this command line on descriptor 0. */
async function supervise(command: Command, args: string[]): Promise<void> {
  const { prefork } = await import("./prefork.ts");
  const { address, mode, group, workers, workerFlags } = command;
  const own = import.meta.url;
  await prefork({
    listen: address,
    mode,
    group,
    workers,
    command: ["run", "--no-prompt", ...workerFlags, own, ...args, "--workers=1", "--listen=fd:0"],
    onListen: (addr) =>
      console.error(`${workers} workers serve ${command.module} on ${format(addr)}`),
  });
}

function format(addr: Deno.Addr): string {
  if (!("hostname" in addr)) {
    return "path" in addr && addr.path ? `unix:${addr.path}` : "a Unix socket";
  }
  return addr.hostname.includes(":")
    ? `[${addr.hostname}]:${addr.port}`
    : `${addr.hostname}:${addr.port}`;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
