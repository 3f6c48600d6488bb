/**
 * `dev`: serves an app, a folder of CGI scripts or a FastCGI application on this machine during development.
 *
 * @module
 */

import type { Handler } from "../bridge/app.ts";
import { RELOAD_PATH } from "../debug/development.ts";
import { dirname } from "node:path";
import { fastCGIGateway } from "../gateway.ts";
import { DEFAULT_PORTS } from "../io/address.ts";
import { grantedVariable } from "../io/environment.ts";
import { guardConsole, logLine, writeLine } from "../io/log.ts";
import { onTermination } from "../process/signals.ts";
import { isLoopback } from "../wire/ip_address.ts";
import { readAddress } from "./address.ts";
import { type Arguments, formatUsage, names, type Usage } from "./arguments.ts";
import { cacheFolder } from "./cache_folder.ts";
import { FailurePages } from "./dev/failure_pages.ts";
import { ReloadingApp } from "./dev/reloading_app.ts";
import { type DevelopmentOptions, serveDevelopment } from "./dev/server.ts";
import { ScriptFolder } from "./dev/script_folder.ts";
import { staticFile } from "./dev/static_file.ts";
import { watchSources } from "./dev/watch.ts";
import { UsageError } from "./errors.ts";
import { SPECIFIER } from "./version.ts";

/** Variables of this process that a script's interpreter may need. */
const PASSED_ON = ["HOME", "DENO_DIR", "LANG"];

/** The options of `dev`. */
export const usage: Usage = {
  name: "dev",
  operands: "APP.ts | FOLDER | fastcgi:ADDR",
  about: `Serves on http://localhost:8000, for this machine alone, and prints each request:

  APP.ts        an app, over FastCGI behind Gatehouse's gateway; loads it again when a file in its folder has
                changed, without losing a request, and shows errors in the browser
  FOLDER        a folder of CGI scripts, run by their first lines, and of other files; lists what is in it
  fastcgi:ADDR  a FastCGI application; with --root such as PHP-FPM, and the pictures and style sheets of that folder; shows
                what it logs in the browser if it fails without a page`,
  options: [
    { name: "port", value: "N", about: "the port. Default: 8000" },
    {
      name: "host",
      value: "ADDR",
      bare: "0.0.0.0",
      about: `serve other machines of the network, too, such as a phone, on the addresses
that are printed; --host=ADDR on one of them. They see no debug page`,
    },
    {
      name: "cert",
      value: "FILE",
      about: "serve HTTPS with this certificate, in PEM format, and --key",
    },
    { name: "key", value: "FILE", about: "the key of --cert, in PEM format" },
    {
      name: "root",
      value: "DIR",
      about: "with fastcgi: the folder of scripts, which PHP needs, and of other files",
    },
    {
      name: "fallback",
      value: "PATH",
      about: "with --root: the script for paths that name none, such as /index.php",
    },
    {
      name: "env-file",
      value: "FILE",
      about: "variables for the app, as deno run --env-file reads them",
    },
    {
      name: "app-flags",
      value: "FLAGS",
      about: "flags for the app's deno run. Default: those of this one",
    },
    {
      name: "request-timeout",
      value: "SECONDS",
      about: "respond with 503 if the app has not by then; 0 for never. Default: none",
    },
    {
      name: "shutdown-timeout",
      value: "SECONDS",
      about:
        "how long a version of the app that is replaced or ended has for its\nrequests. Default: 10",
    },
  ],
  instead: {
    ...names(["listen", "hostname", "address", "addr", "bind", "interface"], insteadOfListen),
    ...names(["https", "tls", "ssl"], () => "Use --cert FILE --key FILE"),
    ...names(["env"], (file = "FILE") => `Use --env-file ${file}`),
    ...names(
      ["reload", "watch", "hot"],
      () => "Leave it out: dev loads the app again when it changes",
    ),
  },
  example: `deno run --allow-all ${SPECIFIER} dev app.ts
deno run --allow-all ${SPECIFIER} dev fastcgi:unix:/run/php/php-fpm.sock --root /srv/www`,
};

/** Serves until a signal arrives. @returns The exit code. */
export async function run(args: Arguments): Promise<number> {
  const [operand, extra] = args.operands;
  if (operand === undefined) {
    throw new UsageError(`Name what to serve, as in: dev app.ts\n\n${formatUsage(usage)}`);
  }
  if (extra !== undefined) {
    const address = args.has("host") ? " An address needs =, as in: --host=192.168.1.5" : "";
    throw new UsageError(`One app is served: "${extra}" is one too many.${address}`);
  }
  const port = args.number("port", 0) ?? DEFAULT_PORTS.http;
  if (port > 65535) throw new UsageError(`--port must be at most 65535: current value is ${port}.`);
  const address = /^fastcgi:(.+)$/s.exec(operand)?.[1];
  const root = args.text("root");
  if (root !== undefined && address === undefined) {
    throw new UsageError("--root is for fastcgi:ADDR: name a folder itself, as in: dev cgi-bin");
  }
  const options = { port, host: args.text("host"), tls: await readCertificate(args) };
  const envFile = args.text("env-file");
  if (envFile !== undefined) await readFile("env-file", envFile);
  const fallback = args.text("fallback");
  if (fallback !== undefined && root === undefined) {
    throw new UsageError("--fallback is for fastcgi:ADDR with --root.");
  }
  if (fallback?.startsWith("/") === false) {
    throw new UsageError(`--fallback must begin with /: current value is "${fallback}".`);
  }
  if (root !== undefined) await requireFolder(root);
  guardConsole();
  const stop = new AbortController();
  using _ = onTermination(() => stop.abort(), { hangup: true });
  if (address !== undefined) {
    await serveApplication(address, { root, fallback }, options, stop.signal);
  } else if (await isFolder(operand)) await serveScripts(operand, options, stop.signal);
  else await serveApp(operand, args, options, stop.signal);
  return 0;
}

/** Says what to type instead of an address to listen on. */
function insteadOfListen(address = ""): string {
  const [, host, port] = /^(.*?):?(\d*)$/.exec(
    /:\d+$|^\d+$/.test(address) ? address : `${address}:`,
  )!;
  const isHere = host === "" || isLoopback(host.replaceAll(/[[\]]/g, ""));
  const options = [port && `--port ${port}`, isHere ? "" : `--host=${host}`].filter(Boolean);
  return `Use ${options.join(" ") || "--port N, and --host to serve other machines, too"}`;
}

/** Reads the files of HTTPS, if they are named. */
async function readCertificate(args: Arguments): Promise<DevelopmentOptions["tls"]> {
  const [cert, key] = [args.text("cert"), args.text("key")];
  if (cert === undefined && key === undefined) return undefined;
  if (cert === undefined || key === undefined) {
    throw new UsageError("HTTPS needs both --cert FILE and --key FILE.");
  }
  return { cert: await readFile("cert", cert), key: await readFile("key", key) };
}

async function readFile(option: string, path: string): Promise<string> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    throw new UsageError(`Cannot read the file of --${option}: ${(error as Error).message}.`);
  }
}

async function serveApplication(
  address: string,
  scripts: { root?: string; fallback?: string },
  options: DevelopmentOptions,
  stop: AbortSignal,
): Promise<void> {
  const { root } = scripts;
  const parsed = readAddress(address);
  if (root === undefined) {
    logLine("Without --root no file is named to the application: PHP and fcgiwrap need --root DIR");
  }
  try {
    (await Deno.connect(parsed as Deno.ConnectOptions)).close();
  } catch (error) {
    const { message } = error as Error;
    logLine(
      error instanceof Deno.errors.PermissionDenied
        ? `You may not connect to ${address}: ${message}. Run dev as a user of the socket's group`
        : `Nothing listens at ${address}: ${message}. Start the application`,
    );
  }
  const failures = new FailurePages();
  using gateway = fastCGIGateway(address, {
    log: failures.log,
    root,
    fallback: scripts.fallback as `/${string}`,
    mergeSlashes: true,
  });
  stop.addEventListener("abort", () => gateway[Symbol.dispose]());
  const handler: Handler = async (request, info) => {
    const file = root === undefined ? undefined : await staticFile(request, root);
    return file ?? await failures.respond(gateway, request, info, false);
  };
  await serveDevelopment(handler, options, stop);
}

async function serveScripts(
  root: string,
  options: DevelopmentOptions,
  stop: AbortSignal,
): Promise<void> {
  const index = await stat(`${root}/index.php`);
  if (index !== undefined && !(index.mode! & 0o111)) {
    logLine(
      `PHP-FPM runs such an index.php: dev fastcgi:unix:/run/php/php-fpm.sock --root ${root}`,
    );
  }
  using folder = new ScriptFolder(root, environment());
  stop.addEventListener("abort", () => folder[Symbol.dispose]());
  await serveDevelopment(folder.respond, options, stop);
}

async function isFolder(path: string): Promise<boolean> {
  const info = await stat(path);
  if (info !== undefined) return info.isDirectory;
  throw new UsageError(`${path} does not exist. Name an app or a folder, as in: dev app.ts`);
}

async function requireFolder(root: string): Promise<void> {
  const info = await stat(root);
  if (info?.isDirectory) return;
  const fault = info === undefined ? "does not exist" : "is not a folder";
  throw new UsageError(`--root must be a folder: ${root} ${fault}.`);
}

async function stat(path: string): Promise<Deno.FileInfo | undefined> {
  try {
    return await Deno.stat(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return undefined;
  }
}

function environment(): Record<string, string> {
  return Object.fromEntries(PASSED_ON.flatMap((name) => {
    const value = Deno.env.get(name);
    return value === undefined ? [] : [[name, value]];
  }));
}

async function serveApp(
  module: string,
  args: Arguments,
  options: DevelopmentOptions,
  stop: AbortSignal,
): Promise<void> {
  await using app = new ReloadingApp(module, {
    flags: args.text("app-flags"),
    envFile: args.text("env-file"),
    requestTimeout: args.number("request-timeout", 0),
    shutdownTimeout: args.number("shutdown-timeout", 0),
  });
  stop.addEventListener("abort", () => app.stop());
  const load = async () => {
    const loaded = await app.reload();
    if (loaded === "fails") logLine("The app does not start. Correct it and save it");
  };
  const path = await Deno.realPath(module);
  const changed = (path: string) => {
    writeLine(Deno.stdout, `${path} has changed`);
    load();
  };
  using _ = watchSources(dirname(path), changed, cacheFolder(grantedVariable("HOME") ?? "/"));
  await load();
  const handler: Handler = (request, info) => {
    const { pathname, search } = new URL(request.url);
    return pathname === RELOAD_PATH
      ? app.respondToPage(search.slice(1))
      : app.respond(request, info);
  };
  await serveDevelopment(handler, options, stop);
}
