/**
 * The faults of a CGI script that `doctor` can find. Words in braces are replaced.
 *
 * @module
 */

import { type Command, formatLine } from "./commands.ts";
import { createFinding, type FindingKind, type FindingOf } from "./finding.ts";

/** All kinds of findings, in the order of the checks. */
export const FINDINGS = {
  "missing": {
    what: "There is no file {script}",
    advice: "Name a script that exists: {folder} has {names}.",
  },
  "folder": {
    what: "{script} is a folder",
    advice: "Name a script in it: it has {names}.",
  },
  "foreign-link": {
    what: "{path} is a link to another user's file, {target}, which web servers may refuse to run",
    advice: "Remove the link, or let the owner of the file put it there.",
  },
  "unreadable": {
    what: "{user} may not read {path}",
    advice: "Let the owner of {path} give {user} that right.",
  },
  "run-bit": {
    what: "{user} may not run {script}: it is not executable",
    advice: "Let the owner of {script} make it executable.",
  },
  "writable": {
    what: "All users may change {path}, which web servers with suexec refuse to run",
    advice: "Move the script to a folder that only its owner may change.",
  },
  "bom": {
    what: "{script} begins with a byte order mark, so that the system does not see its first line",
    advice: "Save it as UTF-8 without a byte order mark.",
  },
  "crlf": {
    what:
      'The first line of {script} ends in CR LF, so that the system looks for a program named "{program}\\r"',
    advice: "Save it with the line ends of Unix.",
  },
  "first-line": {
    what: "The first line of {script} does not name the program that runs it",
    advice: "Begin it with a line such as #!/usr/bin/python3.",
  },
  "env-s": {
    what: "The system passes all that follows the program in the first line as one argument",
    advice: "Begin the line with #!/usr/bin/env -S.",
  },
  "interpreter": {
    what: "{program} is not {where}",
    advice: "Install {program} for all users, or name another program in the first line.",
  },
  "interpreter-denied": {
    what: "{user} may not run {file}",
    advice: "Install {program} for all users, and name it by its path in the first line.",
  },
  "allow-env": {
    what: "The first line lacks --allow-env, which a script needs to read its request",
    advice: "Add --allow-env to the first line.",
  },
  "node-name": {
    what: "Node runs no module whose name ends in {end}",
    advice: "Let the name end in .mjs or have no end, or let {script} be a link to such a file.",
  },
  "syntax": {
    what: "Deno cannot parse a module: {error}",
    advice: "Correct the line that the error below names.",
  },
  "extension": {
    what: "The name of {script} does not mark it as TypeScript: {error}",
    advice: "Add --ext=ts to the first line.",
  },
  "deno-dir": {
    what: "{user} may not write Deno's cache, {path}, which needs the script's imports: {error}",
    advice: "Bundle the script into one file: deno bundle --output bundle.js {name}",
  },
  "import": {
    what: "An import cannot be downloaded: {error}",
    advice: "Bundle the script into one file: deno bundle --output bundle.js {name}",
  },
  "module": {
    what: "An import is not found: {error}",
    advice: "Correct the import that the error below names.",
  },
  "permission": {
    what: "The first line does not grant what the script needs: {error}",
    advice: "Add {flag} to the first line.",
  },
  "listens": {
    what: "The script listens on a port, but a web server starts it for each request",
    advice: "Pass its handler to serve() of {module}.",
  },
  "storage": {
    what: "{user} may not {right} {path}: {error}",
    advice: "Store the data in a folder of its own, which {user} may read and write.",
  },
  "memory": {
    what:
      "The web server limits the script's memory (RLimitMEM, ulimit -v), but Deno reserves 32 GiB of addresses: {error}",
    advice: "Raise the limit, as in Apache: RLimitMEM max",
  },
  "node-version": {
    what: "Node {version}, which runs the script, is too old for Gatehouse: {error}",
    advice: "Name Node 24 or later by its path in the first line.",
  },
  "throws": {
    what: "The script ends with an error before its response: {error}",
    advice: "Correct the line that the log below names.",
  },
  "telemetry": {
    what:
      "The script has responded, but waits for a receiver of its telemetry that does not respond",
    advice: "Set OTEL_EXPORTER_OTLP_TIMEOUT=300 where OTEL_DENO is set.",
  },
  "slow": {
    what: "The script does not end within {seconds} seconds",
    advice: "Return a Response, and look for a promise that never settles.",
  },
  "left-open": {
    what:
      "The script ends, but a process that it has started keeps its output open, and web servers wait for that",
    advice: "Start that process with an output of its own, as in: job >/dev/null 2>&1 &",
  },
  "printed": {
    what: "The script prints {text} before the response, where web servers expect a header",
    advice: "Print it to stderr, which is the web server's log.",
  },
  "no-serve": {
    what: "The script ends without a response: it does not call serve()",
    advice:
      'Import serve() and pass it the app: import { serve } from "{module}"; await serve(app);',
  },
  "silent": {
    what: "The script ends without printing a response",
    advice:
      "Print a header such as Content-Type: text/plain, an empty line, and the body of the response.",
  },
  "invalid": {
    what: "The output of the script is not a CGI response: {error}",
    advice: "Print a header such as Content-Type: text/plain and an empty line before the body.",
  },
  "status": {
    what: "The app responds with {status}",
    advice: "Correct the error that the log below shows.",
  },
  "compiles": {
    what:
      "Each start compiles again: Deno's cache, {path}, has no compiled code of {script}, and {user} may not write it.{gain}",
    advice: "Let the owner of {script} run it twice with a DENO_DIR that {user} may read.",
  },
} as const satisfies Record<string, FindingKind>;

/** The name of a kind of finding. */
export type FindingId = keyof typeof FINDINGS;

/** A fault of a script. */
export type Finding = FindingOf<FindingId>;

/** Findings with which a script starts nevertheless. They do not explain a failed trial. */
const HARMLESS: FindingId[] = ["writable", "allow-env"];

/** Findings with which the system does not start a script, though shells do. */
const UNSTARTABLE: FindingId[] = ["bom", "first-line"];

/** Returns whether the system cannot start a script, so that there is nothing to try. */
export function isUnstartable({ id }: Finding): boolean {
  return UNSTARTABLE.includes(id);
}

/** Returns whether a finding keeps a script from starting. */
export function preventsStart({ id }: Finding): boolean {
  return !HARMLESS.includes(id);
}

/** Returns whether a finding is a fault of a script that responds. */
export function survivesTrial({ id }: Finding): boolean {
  return id === "writable";
}

/** Creates findings of one script. */
export type Find = (
  id: FindingId,
  values?: Record<string, string>,
  commands?: (Command | undefined)[],
) => Finding;

/**
 * Returns a function that creates findings.
 *
 * @param common The replacements of words in braces that all findings share.
 */
export function findingsOf(common: Record<string, string>): Find {
  return (id, values = {}, commands = []) => {
    const safe = commands.filter((command) => command !== undefined);
    const isFixed = safe.length > 0 && safe.length === commands.length;
    const line = isFixed ? formatLine(safe) : undefined;
    return createFinding(FINDINGS, id, { ...common, ...values }, line);
  };
}
