/**
 * `serve`: serves the app that a module exports as its default.
 *
 * @module
 */

import type { App } from "../bridge/app.ts";
import { shellQuote } from "../debug/shell_command.ts";
import { serveFastCGI } from "../fastcgi.ts";
import { serveHTTP } from "../http.ts";
import { LOG_FORMATS, openDaemonLog } from "../io/daemon_log.ts";
import { inheritedListener } from "../io/inherited.ts";
import { listen, removeStaleSocket } from "../io/listen.ts";
import { guardConsole, logLine } from "../io/log.ts";
import { reopenLogFiles } from "../io/log_file.ts";
import type { PreforkOptions } from "../prefork.ts";
import { EXEC_PATH } from "../process/exec_path.ts";
import { endWhileStarting, onHangup, runUntilTerminated } from "../process/signals.ts";
import { serveSCGI } from "../scgi.ts";
import type { Server } from "../server/server.ts";
import { openAccessLog } from "./access_log.ts";
import { formatAddress, readAddress } from "./address.ts";
import { type Arguments, formatUsage, names, type Usage } from "./arguments.ts";
import { Failure, formatFailure, UsageError } from "./errors.ts";
import { LIMIT_OPTIONS } from "./limit_options.ts";
import { listenFailure } from "./listen_failure.ts";
import { loadApp } from "./load_app.ts";
import { ANY_PROXY, type Plan, readPlan, readWorkers } from "./serve/plan.ts";
import { SPECIFIER } from "./version.ts";
import { readWorkerOptions, WORKER_OPTIONS } from "./worker_options.ts";

/** The options of `serve`. */
export const usage: Usage = {
  name: "serve",
  operands: "MODULE",
  about:
    `Serves the default export of MODULE, or without one its fetch or handler: a function of a Request, or
an object with a fetch method. As the value of a limit or a timeout, 0 means none.
SIGTERM and SIGINT finish the requests in progress and end it.`,
  options: [
    {
      name: "listen",
      short: "l",
      value: "ADDR",
      repeats: true,
      about: `host:port, [::1]:port, unix:/path, fd:N for an inherited socket, or systemd
for its socket; may be repeated. Default: the socket of systemd
(LISTEN_FDS), else 127.0.0.1:9000, for scgi :4000, for http :8000`,
    },
    { name: "protocol", short: "p", value: "P", about: "fastcgi (default), scgi or http" },
    {
      name: "workers",
      short: "w",
      value: "N",
      about: `N processes that share the socket, or auto for one for each core; SIGHUP
replaces them one by one. Needs --allow-run and --allow-env; takes a
socket of systemd as fd:0, with StandardInput=socket`,
    },
    ...WORKER_OPTIONS,
    {
      name: "backlog",
      value: "N",
      about: "how many connections may wait. Default: the system's, with workers its maximum",
    },
    { name: "mode", value: "M", about: "the permissions of a Unix socket, octal. Default: 660" },
    { name: "group", value: "G", about: "the group of a Unix socket, by name or number" },
    {
      name: "base-path",
      value: "P",
      about: "the part of the path that the app does not see: auto, or such as /app",
    },
    {
      name: "trust-forwarded",
      value: "PROXIES",
      bare: ANY_PROXY,
      about: `take scheme, host and client from X-Forwarded-Proto, -Host and -For,
or from Forwarded. PROXIES may set them: addresses, ranges such as
10.0.0.0/8, loopback or unix, with commas between. Default: any`,
    },
    { name: "allow-remote", about: "listen where other machines can connect" },
    ...LIMIT_OPTIONS,
    {
      name: "access-log",
      value: "FORMAT",
      bare: "common",
      about: "a line for each request, on stdout: common, combined or json",
    },
    {
      name: "access-log-file",
      value: "PATH",
      about: "append these lines to a file, opened again at SIGHUP (needs --allow-write)",
    },
    {
      name: "log",
      value: "TO",
      about: "where errors of the app go: server (the web server's log), stderr or both\n(default)",
    },
    {
      name: "log-format",
      value: "FORMAT",
      about: `of messages on stderr: text (default) or json, one object a line with time,
pid, message, and in what info.log writes requestId`,
    },
    { name: "redact-query", about: "hide the values in the URL's query from OpenTelemetry" },
    { name: "debug", about: "show errors to every client; for development only" },
    {
      name: "serve-failure",
      about: "if the app cannot be loaded, respond with its error, as dev does",
    },
    { name: "check", about: "load the app and end, with 0 if it can be served" },
  ],
  instead: {
    ...names(["port"], (port = "PORT") => `Use --listen 127.0.0.1:${port}`),
    ...names(["host", "hostname", "address", "addr", "bind", "interface"], (host = "HOST") => {
      return `Use --listen ${/:\d+$/.test(host) ? host : `${host}:PORT`}`;
    }),
    ...names(["socket", "sock", "unix", "path"], (path = "PATH") => `Use --listen unix:${path}`),
    ...names(["fastcgi", "fcgi"], () => "Use --protocol fastcgi, which is the default"),
    ...names(["scgi"], () => "Use --protocol scgi"),
    ...names(["http"], () => "Use --protocol http"),
    ...names(
      ["processes", "threads", "children", "instances", "jobs", "parallel"],
      (count = "N") => `Use --workers ${count}`,
    ),
    ...names(
      ["reload", "watch", "hot", "dev"],
      () => "Use dev, which loads the app again when it changes, as in: dev app.ts",
    ),
  },
  example: `deno run --allow-read --allow-net=127.0.0.1:9000 ${SPECIFIER} \\
  serve app.ts --protocol fastcgi --listen 127.0.0.1:9000`,
};

/** Serves until a signal arrives. @returns The exit code. */
export async function run(args: Arguments): Promise<number> {
  endWhileStarting();
  const plan = readPlan(args, readModule(args));
  const logFormat = args.choice("log-format", LOG_FORMATS) ?? "text";
  await using _log = openDaemonLog(logFormat);
  const workers = readWorkers(args, plan);
  const workerOptions = readWorkerOptions(args, workers);
  if (args.has("check")) {
    if (workers !== undefined) return await checkWorker(plan, args);
    await loadApp(plan.module, plan.addresses);
    console.log(`${plan.module} is an app`);
  } else if (workers === undefined) await serve(plan);
  else await supervise(plan, { ...workerOptions, workers, logFormat }, args);
  return 0;
}

function readModule({ operands: [module, extra] }: Arguments): string {
  if (module === undefined) {
    throw new UsageError(`Name the app's module, as in: serve app.ts\n\n${formatUsage(usage)}`);
  }
  if (extra !== undefined) {
    throw new UsageError(`One module is served: "${extra}" is one too many.`);
  }
  return module;
}

/** Serves in this process. */
async function serve(plan: Plan): Promise<void> {
  guardConsole();
  const { accessLog, servesFailure } = plan;
  let failure: App | undefined;
  const app = await loadApp(plan.module, plan.addresses).catch((error) => {
    if (!servesFailure) throw error;
    logLine(formatFailure(error));
    return failure = failedApp(error);
  });
  await using log = accessLog && openAccessLog(accessLog.format, accessLog.path);
  plan.options.onCompleted = log?.onCompleted;
  using _ = onHangup(() => {
    if (reopenLogFiles()) return;
    logLine("Ignored SIGHUP as it replaces workers: it needs --workers 1 or more");
  });
  const servers: Awaited<ReturnType<typeof startServing>>[] = [];
  for (const address of plan.addresses) {
    try {
      servers.push(await startServing(app, address, plan));
    } catch (error) {
      await Promise.all(servers.map((server) => server.shutdown()));
      throw listenFailure(error, address);
    }
  }
  if (failure !== undefined) logLine("The app does not start. Correct it and save it");
  else {for (const { addr } of servers) {
      logLine(`Serving ${plan.module} over ${plan.protocol} on ${formatAddress(addr)}`);
    }}
  const shutdown = async () => void await Promise.all(servers.map((server) => server.shutdown()));
  const { reportReady } = await import("../process/worker.ts");
  const finished = Promise.all(servers.map((server) => server.finished)).then(() => {});
  // Listens for signals before the supervisor may send one.
  await Promise.all([runUntilTerminated({ finished, shutdown }), reportReady(shutdown)]);
}

/** Returns an app that responds with why another one does not start. */
function failedApp(error: unknown): App {
  return async (request, info) => {
    const { debugPage } = await import("../debug/debug_page.ts");
    return await debugPage(error, request, info);
  };
}

async function startServing(
  app: App,
  address: string,
  plan: Plan,
): Promise<Server | Deno.HttpServer<Deno.Addr>> {
  const { protocol, mode, group, backlog } = plan;
  const options = { ...plan.options, onListen: () => {} };
  if (protocol !== "http") {
    const descriptor = /^fd:(\d+)$/.exec(address)?.[1];
    const listener = descriptor === undefined
      ? await listen(address, { mode, group, backlog })
      : await inheritedListener({ fd: Number(descriptor) });
    return (protocol === "fastcgi" ? serveFastCGI : serveSCGI)(app, listener, options);
  }
  const parsed = readAddress(address);
  if (parsed.transport === "tcp") {
    return serveHTTP(app, { ...options, ...parsed, tcpBacklog: backlog });
  }
  const { path } = parsed;
  await removeStaleSocket(path);
  return serveHTTP(app, { ...options, path, mode, group });
}

/** Starts workers that share the socket: each runs this command on descriptor 0. */
async function supervise(
  plan: Plan,
  options: Omit<PreforkOptions, "command">,
  args: Arguments,
): Promise<void> {
  checkWorkerPermissions();
  const { NoWorkerError, prefork } = await import("../prefork.ts");
  const { NO_WORKER } = await import("../process/supervisor.ts");
  const { module, addresses: [address], mode, group, backlog } = plan;
  const command = await workerCommand(plan, args, ["--listen=fd:0"]);
  try {
    await prefork({
      ...options,
      listen: address,
      mode,
      group,
      backlog,
      shutdownTimeout: plan.options.shutdownTimeout,
      command,
      onListen: (addr) =>
        logLine(`Workers: ${options.workers}, for ${module} on ${formatAddress(addr)}`),
    });
  } catch (error) {
    if (error instanceof NoWorkerError) throw new Failure(error.message, { exitCode: NO_WORKER });
    throw listenFailure(error, address);
  }
}

/** Loads the app as a worker does. @returns The exit code. */
async function checkWorker(plan: Plan, args: Arguments): Promise<number> {
  checkWorkerPermissions();
  const command = new Deno.Command(EXEC_PATH, {
    args: await workerCommand(plan, args, []),
    stdin: "null",
  });
  return (await command.spawn().status).code;
}

/** Returns the arguments that Deno runs a worker with. */
async function workerCommand(plan: Plan, args: Arguments, more: string[]): Promise<string[]> {
  const { childCommand } = await import("./child_command.ts");
  const own = args.optionsExcept([
    ...["listen", "mode", "group", "workers", "backlog"],
    ...WORKER_OPTIONS.map(({ name }) => name),
  ]);
  return await childCommand(plan.module, [...own, ...more], args.text("worker-flags"));
}

function checkWorkerPermissions(): void {
  const needed = [
    { flag: `--allow-run=${EXEC_PATH}`, name: "run", command: EXEC_PATH },
    { flag: "--allow-env", name: "env" },
  ] as const;
  const missing = needed.filter((permission) =>
    Deno.permissions.querySync(permission).state !== "granted"
  );
  if (missing.length === 0) return;
  throw new Failure(
    `Cannot start workers as --workers needs ${
      missing.map(({ flag }) => shellQuote(flag)).join(" ")
    }. ` +
      `Type it after "deno run"`,
  );
}
