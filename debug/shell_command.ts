import { isPrintable, printable } from "../io/printable.ts";
import { addressOf } from "../io/address.ts";
import { type DebugInfo, developmentVersion } from "./development.ts";
import type { Redactor } from "./redact.ts";
import type { Addr } from "../io/addr.ts";

/** The variables that a script needs to reproduce this request. */
const NEEDED =
  /^(?:HTTP|HTTPS|REQUEST|REMOTE|SERVER|SCRIPT|PATH|CONTENT|GATEWAY|QUERY|DOCUMENT|REDIRECT|AUTH)(?:_|$)|^(?:HOME|DENO_DIR)$/;
/** Headers that curl sets by itself. */
const OWN_HEADERS = new Set(["host", "content-length", "accept-encoding", "connection"]);

/** Returns a shell command that repeats the request, with its secrets redacted. */
export function shellCommand(
  method: string,
  url: string,
  headers: [name: string, value: string][],
  info: DebugInfo,
  redactor: Redactor,
  address: Addr | undefined,
): string {
  const words = info.protocol === "cgi"
    ? scriptWords(info, redactor)
    : clientWords(method, url, headers, info, redactor, address);
  return words.join(" \\\n  ");
}

function scriptWords(info: DebugInfo, redactor: Redactor): string[] {
  const { variables } = info;
  const assignments = [...variables].filter(([name]) => /^\w+$/.test(name) && NEEDED.test(name))
    .sort(([a], [b]) => a < b ? -1 : 1)
    .map(([name, value]) => `${name}=${shellQuote(redactor.value(name, value))}`);
  const script = shellQuote(variables.get("SCRIPT_FILENAME") ?? "./script.ts");
  return ["env -i", ...assignments, hasBody(info) ? `${script} < body` : script];
}

function clientWords(
  method: string,
  url: string,
  headers: [name: string, value: string][],
  info: DebugInfo,
  redactor: Redactor,
  address: Addr | undefined,
): string[] {
  // Behind dev an app has another address after each change.
  const isHTTP = info.protocol === "http" || developmentVersion(info) !== undefined;
  const options = headers.filter(([name]) => !OWN_HEADERS.has(name)).map(([name, value]) =>
    `-H ${shellQuote(fieldOf(name, redactor.value(name, value), isHTTP))}`
  );
  if (hasBody(info)) options.unshift(isHTTP ? "--data-binary @body" : "-d @body");
  if (method !== "GET") options.unshift(`-X ${shellQuote(method)}`);
  // Without -g, curl takes brackets and braces for a list of URLs.
  if (isHTTP) return ["curl -g -i", ...options, shellQuote(redactor.text(url))];
  const protocol = info.protocol === "scgi" ? " -p scgi" : "";
  return [
    `deno run --allow-net --allow-read --allow-write jsr:@gatehouse/cgi@0.3/cli fetch${protocol} -i`,
    ...options,
    `${shellQuote(addressText(address))} ${shellQuote(redactor.text(pathOf(url)))}`,
  ];
}

/** Returns a header field for an option of curl, or of `fetch`. */
function fieldOf(name: string, value: string, isCurl: boolean): string {
  // curl removes a field that is given as a name and a colon only.
  return value === "" && isCurl ? `${name};` : `${name}: ${value}`;
}

function hasBody({ variables }: DebugInfo): boolean {
  return !["", "0"].includes(variables.get("CONTENT_LENGTH") ?? "");
}

function addressText(address: Addr | undefined): string {
  return address && addressOf(address) || "ADDRESS";
}

/** Returns path and query of a URL. */
function pathOf(url: string): string {
  return url.replace(/^[a-z]+:\/\/[^/?#]*/, "");
}

/**
 * Quotes a word for a shell. All text that is printed for a shell goes through it.
 *
 * A word with control characters becomes `$'\033'`, which bash, zsh, ksh and busybox know (POSIX.1-2024 section 2.2.4), so
 * that a terminal does not obey them.
 */
export function shellQuote(word: string): string {
  if (/^[\w./:@%+,-][\w./:@%+=,-]*$/.test(word)) return word;
  if (isPrintable(word)) return `'${word.replaceAll("'", `'\\''`)}'`;
  // Shells with a history replace an exclamation mark even here.
  return `$'${printable(word.replace(/[\\'!]/g, toOctal), toOctal)}'`;
}

function toOctal(char: string): string {
  return [...new TextEncoder().encode(char)]
    .map((byte) => `\\${byte.toString(8).padStart(3, "0")}`).join("");
}
