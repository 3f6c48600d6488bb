/**
 * The faults of a CGI script that `doctor` can find, and the line that fixes each. Words in braces are replaced.
 *
 * @module
 */

/** One kind of finding. */
export interface FindingKind {
  /** The fault. */
  what: string;
  /** The line that fixes it. */
  fix: string;
}

/** All kinds of findings, in the order of the checks. */
export const FINDINGS = {
  "missing": {
    what: "There is no file {script}",
    fix: "ls -l {folder}",
  },
  "unreadable": {
    what: "{user} may not read {path}",
    fix: "chmod o+rX {path}",
  },
  "run-bit": {
    what: "{user} may not run {script}: it lacks the run bit",
    fix: "chmod 755 {script}",
  },
  "writable": {
    what: "All users may change {path}, which web servers with suexec refuse to run",
    fix: "chmod o-w {path}",
  },
  "bom": {
    what: "{script} begins with a byte order mark, so that the system does not see its first line",
    fix: String.raw`sed -i '1s/^\xef\xbb\xbf//' {script}`,
  },
  "crlf": {
    what:
      'The first line of {script} ends in CR LF, so that the system looks for a program named "{program}\\r"',
    fix: String.raw`sed -i 's/\r$//' {script}`,
  },
  "first-line": {
    what: "The first line of {script} does not name the program that runs it",
    fix: "sed -i '1i #!/usr/bin/env -S deno run --allow-env' {script}",
  },
  "env-s": {
    what:
      "The system passes what follows the program in the first line as one argument, not as several",
    fix: "sed -i '1s|.*|#!/usr/bin/env -S {command}|' {script}",
  },
  "interpreter": {
    what: "{program} is not on the web server's PATH, {searchPath}",
    fix: 'sudo install -m 755 "$(command -v {program})" /usr/local/bin/{program}',
  },
  "interpreter-denied": {
    what: "{user} may not run {file}",
    fix: "sudo install -m 755 {file} /usr/local/bin/{program}",
  },
  "allow-env": {
    what:
      "The first line does not have --allow-env, without which a script cannot read its request",
    fix: "sed -i '1s/deno run/& --allow-env/' {script}",
  },
  "deno-dir": {
    what:
      "{user} may neither read nor write Deno's cache, {path}, so that each request compiles the script again, and modules from elsewhere are missing",
    fix:
      "sudo install -d -o {user} /var/cache/deno # and in Apache: SetEnv DENO_DIR /var/cache/deno",
  },
  "syntax": {
    what: "Deno cannot parse a module: {error}",
    fix: "deno check {script}",
  },
  "extension": {
    what: "The name of {script} does not mark it as TypeScript: {error}",
    fix: "sed -i '1s/deno run/& --ext=ts/' {script}",
  },
  "import": {
    what: "A module cannot be loaded: {error}",
    fix: "sudo -u {user} env DENO_DIR={denoDir} deno cache {script}",
  },
  "permission": {
    what: "The first line does not grant what the script needs: {error}",
    fix: "sed -i '1s|deno run|& {flag}|' {script}",
  },
  "throws": {
    what: "The script ends with an error before its response: {error}",
    fix: "Correct the line that the stack below names",
  },
  "slow": {
    what: "The script does not end within {seconds} seconds",
    fix: "Let the app return a Response, and look for what waits forever",
  },
  "printed": {
    what: "The script prints {text} before the response, which takes it for a header",
    fix: "Print to the web server's log instead: replace console.log by console.error",
  },
  "no-serve": {
    what: "The script ends without a response: it does not call serve()",
    fix: "echo 'await serve(app);' >> {script}",
  },
  "invalid": {
    what: "What the script prints is no CGI response: {error}",
    fix: "Let serve() write the response, and print nothing else to stdout",
  },
  "status": {
    what: "The app responds with {status}",
    fix: "Correct what the log below says",
  },
} as const satisfies Record<string, FindingKind>;

/** The name of a kind of finding. */
export type FindingId = keyof typeof FINDINGS;

/** A fault of a script. */
export interface Finding extends FindingKind {
  /** Its kind. */
  id: FindingId;
}

/** Findings with which a script starts nevertheless. They do not explain a failed trial. */
const HARMLESS: FindingId[] = ["writable", "allow-env", "deno-dir"];

/** Whether a finding keeps a script from starting. */
export function preventsStart({ id }: Finding): boolean {
  return !HARMLESS.includes(id);
}

/** Creates a finding. @param values The replacements of the words in braces. */
export function createFinding(id: FindingId, values: Record<string, string>): Finding {
  const fill = (text: string) =>
    text.replaceAll(/\{(\w+)\}/g, (braces, name: string) => values[name] ?? braces);
  const { what, fix } = FINDINGS[id];
  return { id, what: fill(what), fix: fill(fix) };
}
