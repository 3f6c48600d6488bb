/**
 * `doctor nginx` and its like: reads the configuration of a web server, and connects to the daemons that it names.
 *
 * @module
 */

import { resolve } from "node:path";
import { shellQuote } from "../../debug/shell_command.ts";
import { printable } from "../../io/printable.ts";
import type { Arguments } from "../arguments.ts";
import { Failure, UsageError } from "../errors.ts";
import { readStart } from "./examine.ts";
import { printFindings } from "./finding.ts";
import { parseFirstLine } from "./first_line.ts";
import { realPath } from "./programs.ts";
import type { Examined, Report } from "./report.ts";
import { examineConnections, examineScriptLabels } from "./selinux.ts";
import { stat } from "./user.ts";

/** A web server whose configuration can be read. */
interface Server {
  /** Where its configuration is: on Debian, on Fedora. */
  files: string[];
  examine(examined: Examined): Promise<Report>;
}

/** The web servers by their names on the command line. */
const SERVERS: Record<string, Server> = {
  nginx: {
    files: ["/etc/nginx/nginx.conf"],
    examine: async (examined) => await (await import("./nginx.ts")).examineNginx(examined),
  },
  apache: {
    files: ["/etc/apache2/apache2.conf", "/etc/httpd/conf/httpd.conf"],
    examine: async (examined) => await (await import("./apache.ts")).examineApache(examined),
  },
  lighttpd: {
    files: ["/etc/lighttpd/lighttpd.conf"],
    examine: async (examined) => await (await import("./lighttpd.ts")).examineLighttpd(examined),
  },
};

/** The options that are for scripts. */
const SCRIPT_OPTIONS = ["env", "path", "query", "header", "data", "memory"];

/** Returns whether an operand names a web server. */
export function isServer(operand: string): boolean {
  return Object.hasOwn(SERVERS, operand);
}

/** Returns the configuration of a web server on this machine. */
function configurationOf(name: string, conf: string | undefined): string {
  if (conf !== undefined) return resolve(conf);
  const { files } = SERVERS[name];
  const file = files.find((file) => stat(file) !== undefined);
  if (file !== undefined) return file;
  throw new Failure(
    `Cannot find the configuration of ${name}: there is no ${
      files.join(" or ")
    }. Name it: --conf FILE`,
  );
}

/** Returns whether the configuration of a web server can be read. */
export function hasConfiguration(name: string, args: Arguments): boolean {
  return isServer(name) &&
    (args.has("conf") || SERVERS[name].files.some((file) => stat(file) !== undefined));
}

/** Examines a web server. */
export async function examineServer(
  name: string,
  args: Arguments,
  script?: string,
): Promise<{ file: string; report: Report }> {
  const file = configurationOf(name, args.text("conf"));
  const ms = (args.number("timeout", 1) ?? 10) * 1000;
  const examined = { file, userName: args.text("user"), script, ms };
  const report = await SERVERS[name].examine(examined);
  // fcgiwrap, which runs scripts for nginx, is a daemon.
  const labels = script === undefined || name === "nginx"
    ? []
    : examineScriptLabels(realPath(script), parseFirstLine(await readFirstLine(script)));
  const findings = [...report.findings, ...labels, ...examineConnections(report.addresses)];
  return { file, report: { ...report, findings } };
}

async function readFirstLine(script: string): Promise<string> {
  return (await readStart(script))?.split("\n", 1)[0] ?? "";
}

/** Examines a web server. @returns The exit code. */
export async function runServer(name: string, args: Arguments): Promise<number> {
  const other = SCRIPT_OPTIONS.find((option) => args.has(option));
  if (other !== undefined) {
    throw new UsageError(
      `--${other} is for scripts. Name a script of this name by its path: ./${name}`,
    );
  }
  const path = args.text("script");
  const script = path === undefined ? undefined : resolve(path);
  if (script !== undefined && stat(script)?.isFile !== true) {
    throw new UsageError(`--script must be a file: there is none at ${script}`);
  }
  const { file, report: { user, passes, findings } } = await examineServer(name, args, script);
  if (script !== undefined) {
    console.log(`${printable(script)}, by ${printable(file)}`);
    printFindings(findings);
    if (findings.length > 0) return 1;
    console.log(
      `${name} runs it. To examine the script: gatehouse doctor ${
        printable(shellQuote(script))
      } --user ${user.name}`,
    );
    return 0;
  }
  console.log(`${printable(file)}: ${passes} ${passes === 1 ? "address" : "addresses"}`);
  if (passes === 0 && findings.length === 0) {
    console.log(`\nNothing is passed to a daemon. What to write: gatehouse config ${name}`);
    console.log(`If a CGI script responds: gatehouse doctor ${name} --script FILE`);
    return 1;
  }
  printFindings(findings);
  return findings.length === 0 ? 0 : 1;
}
