/**
 * `doctor`: finds out why a CGI script does not respond.
 *
 * @module
 */

import { resolve } from "node:path";
import { printable, printableLines } from "../io/printable.ts";
import { shellQuote } from "../debug/shell_command.ts";
import { type Arguments, formatUsage, type Usage } from "./arguments.ts";
import { examine, unsafeFor } from "./doctor/examine.ts";
import {
  type Finding,
  findingsOf,
  isUnstartable,
  preventsStart,
  survivesTrial,
} from "./doctor/findings.ts";
import { findCompiling } from "./doctor/compiled.ts";
import { judge, startFailure } from "./doctor/judge.ts";
import { printFinding, printFindings } from "./doctor/finding.ts";
import { examineScriptLabels } from "./doctor/selinux.ts";
import { isServer, runServer } from "./doctor/servers.ts";
import {
  scriptNameOf,
  type Trial,
  type TrialOptions,
  type TrialRequest,
  tryScript,
} from "./doctor/trial.ts";
import { User } from "./doctor/user.ts";
import { UsageError } from "./errors.ts";
import { DATA, HEADER, readData, readHeaders, split } from "./request_options.ts";
import { SPECIFIER } from "./version.ts";

/** The PATH of scripts under most web servers. */
const SEARCH_PATH = "/usr/local/bin:/usr/bin:/bin";
/** The maximum length of the output that is shown, in characters. */
const SHOWN = 2000;
const ROOT = 0;

/** The options of `doctor`. */
export const usage: Usage = {
  name: "doctor",
  operands: "SCRIPT | nginx|apache|lighttpd | URL",
  about:
    `Finds out why a CGI script does not respond: looks at its file, runs it as a web server does, and prints what is
wrong, each with the line of shell that fixes it, if there is one. Ends with 0 if nothing is wrong, else with 1.
Runs a script that responds to a GET a few more times, to find out whether Deno compiles it at each start.
With the name of a web server it reads that server's configuration, and connects to the daemons that it names.
With a URL of this machine, such as http://localhost/, it sends a request to the web server and the daemons; with
--listen it takes the place of the daemon for some seconds, and finds what the web server passes on to it.`,
  options: [
    {
      name: "user",
      short: "u",
      value: "NAME",
      about:
        "the user of the web server, such as www-data; to run the script as\nanother user, run doctor as root, which needs it. Default: you",
    },
    {
      name: "env",
      short: "e",
      value: "NAME=VALUE",
      repeats: true,
      about: `what the web server's configuration sets for scripts, such as
DENO_DIR=/var/cache/deno. Default: PATH=${SEARCH_PATH}`,
    },
    { name: "path", value: "PATH", about: "what follows the script in the URL, such as /users/7" },
    { name: "query", value: "QUERY", about: "the query, such as id=7" },
    HEADER,
    DATA,
    {
      name: "memory",
      value: "SIZE",
      about: "the web server's limit of memory for scripts, such as 512m: Apache's\nRLimitMEM",
    },
    {
      name: "timeout",
      value: "SECONDS",
      about: "how long the script, or an app, may take to respond. Default: 10",
    },
    {
      name: "conf",
      value: "FILE",
      about: "the web server's configuration. Default: that of Debian or Fedora",
    },
    {
      name: "script",
      value: "FILE",
      about: "with a web server: find out why it does not run this script",
    },
    {
      name: "listen",
      short: "l",
      value: "ADDR",
      about: `with a URL: where the daemon listens, host:port or unix:/path. Stop it
before: visitors get 503 meanwhile`,
    },
    {
      name: "protocol",
      short: "p",
      value: "P",
      about: "with --listen: fastcgi (default), scgi or http",
    },
    {
      name: "upload",
      value: "SIZE",
      about: "with --listen: the largest upload that the app takes. Default: 10m",
    },
  ],
  example: `deno run --allow-all ${SPECIFIER} doctor hello.ts
sudo gatehouse doctor /usr/lib/cgi-bin/hello.ts --user www-data`,
};

/** Examines a script. @returns The exit code. */
export async function run(args: Arguments): Promise<number> {
  const [operand, extra] = args.operands;
  if (operand === undefined) {
    throw new UsageError(`Name the script, as in: doctor hello.ts\n\n${formatUsage(usage)}`);
  }
  if (extra !== undefined) {
    const option = isServer(operand)
      ? ` Its configuration is --conf ${extra}, and a script --script ${extra}`
      : "";
    throw new UsageError(`One operand is examined: "${extra}" is one too many.${option}`);
  }
  if (/^https?:/i.test(operand)) {
    const { runSite } = await import("./doctor/site.ts");
    return await runSite(operand, args);
  }
  const site = ["listen", "protocol", "upload"].find((name) => args.has(name));
  if (site !== undefined) {
    throw new UsageError(`--${site} is for a site: doctor http://localhost/ --listen ADDR`);
  }
  if (isServer(operand)) return await runServer(operand, args);
  const other = ["conf", "script"].find((name) => args.has(name));
  if (other !== undefined) {
    throw new UsageError(`--${other} is for a web server: doctor nginx --${other} FILE`);
  }
  const name = args.text("user");
  if (name === undefined && Deno.uid() === ROOT) {
    throw new UsageError(
      `Name the user of the web server, as root may do everything: doctor ${
        shellQuote(operand)
      } --user www-data`,
    );
  }
  return await examineScript(await readOptions(args, resolve(operand), User.find(name)));
}

async function readOptions(args: Arguments, script: string, user: User): Promise<TrialOptions> {
  const env = {
    PATH: SEARCH_PATH,
    ...Object.fromEntries(args.all("env").map((text) => split(text, "=", "env"))),
  };
  return {
    script,
    user,
    env,
    ...await readRequest(args, script),
    seconds: args.number("timeout", 1) ?? 10,
    memory: args.bytes("memory"),
  };
}

/** Prints the faults of a script. @returns The exit code. */
async function examineScript(options: TrialOptions): Promise<number> {
  const { script, user, body } = options;
  const find = findingsOf({ script, user: user.name });
  const { findings, ...known } = await examine(options, find);
  console.log(`${printable(script)}, run by ${user.name}`);
  const { file } = known;
  // What this user runs itself is none of a web server's.
  const labels = file === undefined || user.uid === Deno.uid()
    ? []
    : examineScriptLabels(file, known.first);
  const refusal = file === undefined ? "" : refuseTrial(file, user, findings);
  if (file === undefined || refusal !== undefined) {
    const all = [...findings, ...labels];
    printFindings(all);
    if (refusal) console.log(`\nNot tried, ${printable(refusal)}`);
    return all.length === 0 ? 0 : 1;
  }
  const trial = await tryScript(options);
  const shown = { ...options, ...known, ...trial, file, find };
  const cause = judge(shown);
  const all = cause === undefined
    // It starts, whatever its mode says.
    ? findings.filter(survivesTrial)
    : findings.some(preventsStart) || findings.some(({ id }) => id === cause.id)
    ? findings
    : [...findings, cause];
  printFindings([...all, ...labels]);
  // A request that changes something is not repeated.
  if (all.length === 0 && body === undefined) {
    const slow = await findCompiling(shown);
    if (slow !== undefined) printFinding(slow);
  }
  printTrial(trial);
  return all.length + labels.length === 0 ? 0 : 1;
}

/** Returns why a script must not be run, or undefined if it may. */
function refuseTrial(file: string, user: User, findings: Finding[]): string | undefined {
  if (findings.some(isUnstartable)) return "as the system cannot start it";
  if (user.uid !== Deno.uid() && Deno.uid() !== ROOT) {
    return `as only root can run it as ${user.name}: sudo gatehouse doctor …`;
  }
  const unsafe = unsafeFor(user, file);
  return unsafe === undefined
    ? undefined
    : `as others may change ${unsafe}, and so what ${user.name} would run`;
}

/** Creates the request of the trial. */
async function readRequest(args: Arguments, script: string): Promise<TrialRequest> {
  const pathInfo = args.text("path") ?? "";
  if (!/^(?:\/|$)/.test(pathInfo)) {
    throw new UsageError(`--path must begin with /: current value is "${pathInfo}".`);
  }
  const headers = readHeaders(args);
  const body = await readData(args, headers);
  const url = new URL("http://localhost");
  url.pathname = (scriptNameOf(script) + pathInfo).split("/").map(encodeURIComponent).join("/");
  url.search = args.text("query") ?? "";
  const method = body === undefined ? "GET" : "POST";
  return { request: new Request(url, { method, headers, body }), body, pathInfo };
}

function printTrial(trial: Trial): void {
  const { end, stdout, stderr, verdict } = trial;
  const failure = startFailure(trial);
  if (failure !== undefined) {
    console.log(`\nThe script cannot be started: ${printable(failure)}`);
    return;
  }
  console.log(`\nThe trial: ${end}. A web server makes of it: ${printable(verdict)}`);
  for (const [name, text] of [["stdout", stdout], ["stderr", stderr]]) {
    if (text !== "") console.log(`\n${name}:\n${indent(text)}`);
  }
}

/** Indents the output of a script, without control characters. */
function indent(text: string): string {
  const shown = text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text;
  return printableLines(shown.trimEnd()).replaceAll(/^/gm, "    ");
}
