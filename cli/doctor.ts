/**
 * `doctor`: finds out why a CGI script does not respond.
 *
 * @module
 */

import { absolutePath } from "../io/script_file.ts";
import { type Arguments, formatUsage, type Usage } from "./arguments.ts";
import { examine } from "./doctor/examine.ts";
import { type Finding, preventsStart } from "./doctor/findings.ts";
import { type Trial, tryScript } from "./doctor/trial.ts";
import { User } from "./doctor/user.ts";
import { UsageError } from "./errors.ts";

/** The PATH of scripts under most web servers. */
const SEARCH_PATH = "/usr/local/bin:/usr/bin:/bin";
/** The maximum length of the output that is shown, in characters. */
const SHOWN = 2000;

/** The options of `doctor`. */
export const usage: Usage = {
  name: "doctor",
  operands: "SCRIPT",
  about:
    `Finds out why a CGI script does not respond: looks at its file, runs it as a web server does, and prints what is
wrong, each with the line that fixes it. Ends with 0 if nothing is wrong, else with 1.`,
  options: [
    {
      name: "user",
      short: "u",
      value: "NAME",
      about:
        "the user of the web server, such as www-data; to run the script as\nanother user, run doctor as root. Default: you",
    },
    {
      name: "env",
      short: "e",
      value: "NAME=VALUE",
      repeats: true,
      about: `what the web server's configuration sets for scripts, such as
DENO_DIR=/var/cache/deno. Default: PATH=${SEARCH_PATH}`,
    },
    { name: "timeout", value: "SECONDS", about: "how long the script may take. Default: 10" },
  ],
  example: "sudo gatehouse doctor /usr/lib/cgi-bin/hello.ts --user www-data",
};

/** Examines a script. @returns The exit code. */
export async function run(args: Arguments): Promise<number> {
  const [operand, extra] = args.operands;
  if (operand === undefined) {
    throw new UsageError(`Name the script, as in: doctor hello.ts\n\n${formatUsage(usage)}`);
  }
  if (extra !== undefined) {
    throw new UsageError(`One script is examined: "${extra}" is one too many.`);
  }
  const script = absolutePath(operand);
  const user = User.find(args.text("user"));
  const env = { PATH: SEARCH_PATH, ...readVariables(args.all("env")) };
  const findings = await examine({ script, user, env });
  const seconds = args.number("timeout", 1) ?? 10;
  console.log(`${script}, run by ${user.name}`);
  if (findings.some(({ id }) => id === "missing")) {
    print(findings);
    return 1;
  }
  if (user.uid !== Deno.uid() && Deno.uid() !== 0) {
    print(findings);
    console.log(`\nNot tried, as only root can run it as ${user.name}: sudo gatehouse doctor …`);
    return findings.length === 0 ? 0 : 1;
  }
  let trial: Trial;
  try {
    trial = await tryScript({ script, user, env, seconds });
  } catch (error) {
    print(findings);
    console.log(`\nThe script cannot be started: ${(error as Error).message}`);
    return 1;
  }
  if (!findings.some(preventsStart)) {
    const known = findings.map(({ id }) => id);
    findings.push(...trial.findings.filter(({ id }) => !known.includes(id)));
  }
  print(findings);
  printTrial(trial);
  return findings.length === 0 ? 0 : 1;
}

function readVariables(list: string[]): Record<string, string> {
  return Object.fromEntries(list.map((text) => {
    const at = text.indexOf("=");
    if (at < 1) {
      throw new UsageError(`--env must be NAME=VALUE: current value is "${text}".`);
    }
    return [text.slice(0, at), text.slice(at + 1)];
  }));
}

function print(findings: Finding[]): void {
  if (findings.length === 0) console.log("\nNothing is wrong.");
  for (const { id, what, fix } of findings) console.log(`\n${what} [${id}]\n    ${fix}`);
}

function printTrial({ end, stdout, stderr, verdict }: Trial): void {
  console.log(`\nThe trial: ${end}. A web server makes of it: ${verdict}`);
  for (const [name, text] of [["stdout", new TextDecoder().decode(stdout)], ["stderr", stderr]]) {
    if (text !== "") console.log(`\n${name}:\n${quote(text)}`);
  }
}

/** Indents the output of a script, without control characters. */
function quote(text: string): string {
  const shown = text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text;
  return shown.trimEnd().split(/\r?\n/).map((line) =>
    // deno-lint-ignore no-control-regex
    `    ${line.replaceAll(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, "\u{fffd}")}`
  ).join("\n");
}
