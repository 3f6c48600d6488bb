/**
 * The command line: serves an app, and helps to set up and check its web server.
 *
 * ```sh
 * deno run --allow-read --allow-net=127.0.0.1:9000 jsr:@gatehouse/cgi@0.3/cli \
 *   serve app.ts --protocol fastcgi --listen 127.0.0.1:9000
 * ```
 *
 * To install it as `gatehouse`:
 *
 * ```sh
 * deno install --global --allow-all --name gatehouse jsr:@gatehouse/cgi@0.3/cli
 * ```
 *
 * @module
 */

import { Arguments, formatUsage, type Usage } from "./cli/arguments.ts";
import { closest } from "./cli/closest.ts";
import { Failure, formatFailure, UsageError } from "./cli/errors.ts";
import { SPECIFIER, VERSION } from "./cli/version.ts";
import { logLine } from "./io/log.ts";
import { requireDeno } from "./io/runtime.ts";
import { exit } from "./process/exit.ts";

/** The module of a command. */
interface Command {
  usage: Usage;
  run(args: Arguments): Promise<number>;
}

/** A command, whose module is imported when it runs. */
interface Entry {
  name: string;
  summary: string;
  load(): Promise<Command>;
}

const COMMANDS: Entry[] = [
  {
    name: "serve",
    summary: "serves an app over FastCGI, SCGI or HTTP",
    load: () => import("./cli/serve.ts"),
  },
  {
    name: "dev",
    summary: "serves an app while it is written, and loads it again on save",
    load: () => import("./cli/dev.ts"),
  },
  {
    name: "fetch",
    summary: "sends one request to a FastCGI or SCGI application",
    load: () => import("./cli/fetch.ts"),
  },
  {
    name: "config",
    summary: "prints a configuration of a web server or systemd",
    load: () => import("./cli/config.ts"),
  },
  {
    name: "doctor",
    summary: "finds out why a CGI script does not respond",
    load: () => import("./cli/doctor.ts"),
  },
];

const HELP = `gatehouse COMMAND [options]

One fetch handler, any web server.

${COMMANDS.map(({ name, summary }) => `  ${name.padEnd(8)}${summary}`).join("\n")}
  help    prints this, or what a command takes: gatehouse help serve

  -h, --help     print this
  -V, --version  print the version

Exit codes: 0, 1 if a command fails, 2 if its arguments are wrong, 3 if no worker of serve starts.

Example:

  deno run --allow-read --allow-net=127.0.0.1:9000 ${SPECIFIER} serve app.ts

To install it as gatehouse:

  deno install --global --allow-all --name gatehouse ${SPECIFIER}`;

/**
 * Runs the command line.
 *
 * @param args The arguments after the program's name.
 * @returns The exit code: 0, 1 if the command fails, 2 if the arguments are wrong, 3 if no worker of `serve` starts.
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
    return await runCommand(args);
  } catch (error) {
    logLine(formatFailure(error));
    if (error instanceof UsageError) return 2;
    return error instanceof Failure ? error.exitCode : 1;
  }
}

async function runCommand([name, ...rest]: string[]): Promise<number> {
  if (name === undefined) {
    logLine(HELP);
    return 2;
  }
  if (name === "--version" || name === "-V") {
    console.log(VERSION);
    return 0;
  }
  const helps = name === "help" || name === "--help" || name === "-h";
  if (helps && rest.length === 0) {
    console.log(HELP);
    return 0;
  }
  const command = await load(helps ? rest[0] : name);
  const options = optionsOf(rest);
  if (helps || options.includes("--help") || options.includes("-h")) {
    console.log(formatUsage(command.usage));
    return 0;
  }
  // What is wrong with other options is a message of the daemon, too.
  const at = options.indexOf("--log-format");
  if (options.includes("--log-format=json") || at >= 0 && options[at + 1] === "json") {
    const { setLogFormat } = await import("./io/daemon_log.ts");
    setLogFormat("json");
  }
  try {
    return await command.run(Arguments.parse(command.usage, rest));
  } catch (error) {
    const { explainDenied } = await import("./cli/denied.ts");
    throw explainDenied(error, command.usage) ?? error;
  }
}

/** Returns the arguments that may be options. */
function optionsOf(args: string[]): string[] {
  const end = args.indexOf("--");
  return args.slice(0, end < 0 ? undefined : end);
}

async function load(name: string): Promise<Command> {
  const entry = COMMANDS.find((entry) => entry.name === name);
  if (entry !== undefined) return await entry.load();
  const similar = similarCommand(name);
  throw new UsageError(
    `There is no command "${name}".${similar === undefined ? "" : ` Did you mean ${similar}?`} ` +
      `Type --help for all commands.`,
  );
}

function similarCommand(name: string): string | undefined {
  if (/[./]/.test(name)) return `serve ${name}`;
  if (name === "-v" || name === "version") return "--version";
  if (name === "start" || name === "run") return "serve";
  const options = ["--help", "--version"];
  return closest(name, name.startsWith("-") ? options : COMMANDS.map(({ name }) => name));
}

if (import.meta.main) {
  requireDeno(
    "run this command line",
    "Install Deno, https://deno.com; to serve an app here, call serve() or serveFastCGI() in a file and run that",
  );
  // Without a code, Deno.exitCode applies: a worker that lost its supervisor sets it.
  exit(await main(Deno.args) || undefined);
}
