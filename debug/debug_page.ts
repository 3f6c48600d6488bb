/**
 * The page that the option `debug` shows when an app fails (rule F6).
 *
 * @module
 */

import { describeValue, isError, readProperty } from "../io/describe.ts";
import { printable, printableLines } from "../io/printable.ts";
import { plainResponse } from "../bridge/plain_response.ts";
import { isLoopback } from "../wire/ip_address.ts";
import { type DebugInfo, developmentVersion, reloadScript } from "./development.ts";
import { Redactor } from "./redact.ts";
import { hintsFor } from "./server_hints.ts";
import { shellCommand } from "./shell_command.ts";
import { ownSources, type SourceReader } from "./source_file.ts";
import { type StackFrame, stackOf } from "./stack.ts";
import type { Addr } from "../io/addr.ts";

/** An error of the chain, and its relation to the others. */
interface ShownError {
  /** Its relation to the previous error; empty for the first. */
  relation: string;
  title: string;
  app: ShownFrame[];
  library: StackFrame[];
}

interface ShownFrame extends StackFrame {
  excerpt: SourceLine[];
}

interface SourceLine {
  number: number;
  text: string;
  current: boolean;
}

type Row = [name: string, value: string];

interface Report {
  errors: ShownError[];
  request: string;
  quirks: string[];
  command: string;
  headers: Row[];
  variables: Row[];
}

/** The maximum number of errors shown, and of frames with source lines in each. */
const MAX_ERRORS = 20;
const MAX_EXCERPTS = 10;
/** The number of source lines shown before and after that of a frame. */
const CONTEXT = 3;
const MAX_TITLE = 4000;
const MAX_LINE = 300;
/** The maximum length of a line that is searched for secrets, and the maximum number of lines of a literal. */
const MAX_READ_LINE = 10_000;
const MAX_LITERAL_LINES = 100;
const MAX_VALUE = 2000;
const FOOTER = "The option debug shows this page. Do not set it where others can see the page.";

/**
 * Creates a response that shows a developer the error, its sources and the request: as HTML, or as text if the client
 * prefers it. Redacts values that look secret. Through `dev`, clients on other machines get a plain 500.
 *
 * @param request The request, undefined if it is invalid.
 * @param address The address that the server listens on, if it does.
 * @param reader Reads sources and stacks.
 */
export async function debugPage(
  error: unknown,
  request: Request | undefined,
  info: DebugInfo,
  address?: Addr,
  reader: SourceReader = ownSources,
): Promise<Response> {
  const version = developmentVersion(info);
  // dev --host lets other machines see the app, but not this.
  if (version !== undefined && !isLoopback(info.remoteAddr.hostname)) return plainResponse(500);
  const report = await createReport(error, request, info, address, reader);
  const isHTML = prefersHTML(info.variables.get("HTTP_ACCEPT") ?? "");
  const reload = version !== undefined && request?.method === "GET"
    ? await reloadScript(version)
    : { html: "", policy: "" };
  return new Response(isHTML ? toHTML(report) + reload.html : toText(report), {
    status: 500,
    headers: {
      "content-type": `text/${isHTML ? "html" : "plain"};charset=UTF-8`,
      "cache-control": "no-store",
      "content-security-policy": `default-src 'none'; style-src 'unsafe-inline'${reload.policy}`,
      "referrer-policy": "no-referrer",
      "x-content-type-options": "nosniff",
      "x-robots-tag": "noindex",
    },
  });
}

async function createReport(
  error: unknown,
  request: Request | undefined,
  info: DebugInfo,
  address: Addr | undefined,
  reader: SourceReader,
): Promise<Report> {
  const redactor = new Redactor();
  const cut = ([name, value]: Row): Row => [name, truncate(value, MAX_VALUE)];
  const headers = [...request?.headers ?? []].map(cut);
  const variables = [...info.variables].map(cut).sort(([a], [b]) => a < b ? -1 : 1);
  // Finds all secrets first, so that each is redacted everywhere.
  for (const [name, value] of [...headers, ...variables]) redactor.learn(name, value);
  const redactRow = ([name, value]: Row): Row => [name, redactor.value(name, value)];
  const { method = info.variables.get("REQUEST_METHOD") ?? "?", url = "(no URL)" } = request ?? {};
  return {
    errors: await showErrors(error, redactor, reader),
    request: redactor.text(`${method} ${truncate(url, MAX_VALUE)} over ${info.protocol}`),
    quirks: hintsFor(info),
    command: shellCommand(method, url, headers, info, redactor, address),
    headers: headers.map(redactRow),
    variables: variables.map(redactRow),
  };
}

/** Collects an error, its causes and the errors that it aggregates, in display order. */
async function showErrors(
  error: unknown,
  redactor: Redactor,
  reader: SourceReader,
): Promise<ShownError[]> {
  const shown: ShownError[] = [];
  const seen = new Set<unknown>();
  const queue: [relation: string, error: unknown][] = [["", error]];
  for (const [relation, error] of queue) {
    if (seen.has(error) || shown.length === MAX_ERRORS) continue;
    if (typeof error === "object") seen.add(error);
    const { frames, isCertain } = stackOf(error, reader.readFrames);
    const app: ShownFrame[] = [];
    for (const frame of frames.filter(({ isApp }) => isApp)) {
      // A client's text must not choose the lines that are shown.
      const isShown = isCertain && app.length < MAX_EXCERPTS;
      app.push({ ...frame, excerpt: isShown ? await readExcerpt(frame, redactor, reader) : [] });
    }
    shown.push({
      relation,
      title: redactor.text(truncate(titleOf(error), MAX_TITLE)),
      app,
      library: frames.filter(({ isApp }) => !isApp),
    });
    const next: typeof queue = [];
    if (!isError(error)) continue;
    const cause = readProperty(error, "cause");
    if (cause !== undefined) next.push(["caused by", cause]);
    const errors = readProperty(error, "errors");
    if (Array.isArray(errors)) {
      errors.slice(0, MAX_ERRORS).forEach((error, i) => next.push([`error ${i + 1} of it`, error]));
    }
    queue.splice(shown.length === 1 ? 1 : queue.length, 0, ...next);
  }
  return shown;
}

async function readExcerpt(
  { url, line }: StackFrame,
  redactor: Redactor,
  reader: SourceReader,
): Promise<SourceLine[]> {
  const source = await reader.readSource(url);
  if (source === undefined) return [];
  const lines = source.split("\n").map((line) => truncate(line, MAX_READ_LINE));
  const start = Math.max(line - 1 - CONTEXT, 0);
  // A secret may begin in an earlier line.
  const from = Math.max(start - MAX_LITERAL_LINES, 0);
  const redacted = redactor.source(lines.slice(from, line + CONTEXT).join("\n")).split("\n");
  return redacted.slice(start - from).map((text, i) => ({
    number: start + i + 1,
    text: truncate(text, MAX_LINE),
    current: start + i + 1 === line,
  }));
}

/** Returns the message of a thrown value. Never throws. */
function titleOf(error: unknown): string {
  if (!isError(error)) return `Thrown: ${describeValue(error)}`;
  const [name, message] = ["name", "message"].map((key) => describeValue(readProperty(error, key)));
  return `${name}: ${message}`;
}

/** Returns whether HTML is acceptable and at least as preferred as plain text (RFC 9110 section 12.5.1). */
function prefersHTML(accept: string): boolean {
  if (accept.trim() === "") return true;
  const qualities = new Map<string, number>();
  for (const range of accept.toLowerCase().split(",")) {
    const [type, ...parameters] = range.split(";").map((part) => part.trim());
    const q = parameters.find((parameter) => parameter.startsWith("q="));
    qualities.set(type, q === undefined ? 1 : Number(q.slice(2)) || 0);
  }
  const qualityOf = (type: string) =>
    qualities.get(type) ?? qualities.get("text/*") ?? qualities.get("*/*") ?? 0;
  const html = qualityOf("text/html");
  return html > 0 && html >= qualityOf("text/plain");
}

function truncate(text: string, length: number): string {
  return text.length > length ? `${text.slice(0, length)}…` : text;
}

function locationOf({ name, url, line, column }: StackFrame): string {
  return printable(`${name || "(top level)"} ${url}:${line}:${column}`);
}

function toText(report: Report): string {
  const lines: string[] = [];
  for (const { relation, title, app, library } of report.errors) {
    // A line of the message must not look like one of the page's own.
    const [first, ...rest] = printableLines(title).split("\n");
    lines.push(
      relation === "" ? first : `${relation}: ${first}`,
      ...rest.map((line) => `| ${line}`),
    );
    for (const frame of app) {
      lines.push(`    at ${locationOf(frame)}`);
      for (const { number, text, current } of frame.excerpt) {
        lines.push(`    ${current ? ">" : " "} ${number} | ${printableLines(text)}`);
      }
    }
    if (library.length > 0) lines.push("  in libraries:");
    for (const frame of library) lines.push(`    at ${locationOf(frame)}`);
    lines.push("");
  }
  const section = (heading: string, content: string[]) => {
    if (content.length > 0) lines.push(heading, ...content.map((line) => `  ${line}`), "");
  };
  const toLines = (rows: Row[]) => rows.map(([name, value]) => printable(`${name}: ${value}`));
  section("Request", [printable(report.request)]);
  section("Notes on this web server", report.quirks);
  section("Run it again", report.command.split("\n"));
  section("Headers", toLines(report.headers));
  section("Variables", toLines(report.variables));
  return [...lines, FOOTER, ""].join("\n");
}

const STYLE =
  `:root{color-scheme:light dark;--line:#8884;--soft:#8881;--mark:#e5484d33;--error:light-dark(#b42318,#ff8d85)}
body{font:15px/1.5 system-ui,sans-serif;margin:0 auto;max-width:64rem;padding:1.5rem}
h1,h2{line-height:1.3;overflow-wrap:anywhere;white-space:pre-wrap}h1{font-size:1.4rem;color:var(--error)}
h2{font-size:1.05rem;margin:2rem 0 .5rem}h2 small{font-weight:normal;opacity:.7}
pre,code,td{font:13px/1.6 ui-monospace,monospace}pre{background:var(--soft);overflow:auto;padding:.5rem .75rem;margin:.25rem 0 1rem}
pre mark{background:var(--mark);color:inherit;display:block;width:max-content;min-width:100%}p,li,td{overflow-wrap:anywhere}
ol{list-style:none;padding:0}table{border-collapse:collapse;width:100%;table-layout:fixed}
th{font-weight:normal;text-align:left;vertical-align:top;width:30%;padding:.2rem 1rem .2rem 0;overflow-wrap:anywhere}
td{padding:.2rem 0}tr{border-top:1px solid var(--line)}summary{cursor:pointer}footer{margin-top:2rem;opacity:.7}`;

function toHTML(report: Report): string {
  const table = (heading: string, rows: Row[]) =>
    rows.length === 0 ? "" : `<h2>${heading}</h2>
<table>${
      rows.map(([name, value]) => `<tr><th>${escapeHTML(name)}<td>${escapeHTML(value)}`).join("\n")
    }</table>`;
  const [{ title }] = report.errors;
  const quirks = report.quirks.map((quirk) => `<li>${escapeHTML(quirk)}`).join("\n");
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${escapeHTML(title)}</title>
<style>${STYLE}</style>
${report.errors.map(errorToHTML).join("\n")}
<h2>Request</h2>
<p><code>${escapeHTML(report.request)}</code></p>
${quirks === "" ? "" : `<h2>Notes on this web server</h2>\n<ul>${quirks}</ul>`}
<h2>Run it again</h2>
<pre>${escapeHTML(report.command)}</pre>
${table("Headers", report.headers)}
${table("Variables", report.variables)}
<footer>${escapeHTML(FOOTER)}</footer>
`;
}

function errorToHTML({ relation, title, app, library }: ShownError): string {
  const heading = relation === ""
    ? `<h1>${escapeHTML(title)}</h1>`
    : `<h2><small>${escapeHTML(relation)}</small> ${escapeHTML(title)}</h2>`;
  const frames = app.map((frame) => {
    const excerpt = frame.excerpt.map(({ number, text, current }) => {
      const line = escapeHTML(`${String(number).padStart(5)}  ${text}`);
      return current ? `<mark>${line}</mark>` : `${line}\n`;
    }).join("");
    return `<li><code>${escapeHTML(locationOf(frame))}</code>${
      excerpt === "" ? "" : `<pre>${excerpt}</pre>`
    }`;
  });
  const folded = library.map((frame) => `<li><code>${escapeHTML(locationOf(frame))}</code>`);
  const count = `${library.length} ${library.length === 1 ? "frame" : "frames"} in libraries`;
  return [
    heading,
    frames.length === 0 ? "" : `<ol>${frames.join("\n")}</ol>`,
    folded.length === 0
      ? ""
      : `<details><summary>${count}</summary><ol>${folded.join("\n")}</ol></details>`,
  ].join("\n");
}

/** Escapes text for HTML, and what controls a terminal. */
export function escapeHTML(text: string): string {
  return printableLines(text).replace(/[&<>"'`]/g, (char) => `&#${char.charCodeAt(0)};`);
}
