/**
 * Access log lines, in the formats that log analyzers read.
 *
 * @module
 */

import { dirname } from "node:path";
import type { CompletedRequest } from "../bridge/app.ts";
import { shellQuote } from "../debug/shell_command.ts";
import { flushAtEnd, LineQueue } from "../io/line_queue.ts";
import type { LineOutput } from "../io/log.ts";
import { LogFile } from "../io/log_file.ts";
import { printable, printableJSON } from "../io/printable.ts";
import { Failure } from "./errors.ts";

/** The formats of {@linkcode accessLog}. */
export const ACCESS_LOGS = ["common", "combined", "json"] as const;
/** One of them. */
export type AccessLogFormat = typeof ACCESS_LOGS[number];

const FORMATS = { common: formatCommon, combined: formatCombined, json: formatJSON };
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/** Matches what needs no escape in a quoted field. */
const QUOTED = /^[ !#-[\]-~]*$/;
/** Matches the same in a field that ends at a space. */
const WORD = /^[!#-[\]-~]+$/;
/** Matches a value that a header field has in a request as it has in the variables. */
const PLAIN_FIELD = /^[!-~](?:[ -~]*[!-~])?$/;

/**
 * Returns an option `onCompleted` that writes a line for each request.
 *
 * @param write Writes a line.
 */
export function accessLog(
  format: AccessLogFormat,
  write: (line: string) => void,
): (completed: CompletedRequest) => void {
  const formatLine = FORMATS[format];
  return (completed) => write(formatLine(completed));
}

/** An access log that is open. */
export interface OpenAccessLog extends AsyncDisposable {
  /** The option of a server. */
  onCompleted(completed: CompletedRequest): void;
}

/**
 * Opens an access log, whose lines are written without blocking. Disposing it writes what waits.
 *
 * @param path A file to append to. @default stdout
 * @throws {Failure} If the file cannot be opened.
 */
export function openAccessLog(format: AccessLogFormat, path?: string): OpenAccessLog {
  const file = path === undefined ? undefined : openFile(path);
  const output: LineOutput = file ?? Deno.stdout;
  const queue = new LineQueue(output, {
    name: "the access log",
    whole: file?.takesWhole,
    formatDropped: (count) => formatDropped(format, count),
  });
  const flushing = flushAtEnd(queue);
  return {
    onCompleted: accessLog(format, (line) => queue.write(line)),
    async [Symbol.asyncDispose]() {
      await queue.flush();
      flushing[Symbol.dispose]();
      file?.[Symbol.dispose]();
    },
  };
}

function openFile(path: string): LogFile {
  try {
    return new LogFile(path);
  } catch (error) {
    throw new Failure(`Cannot open the access log ${path}: ${explain(error as Error, path)}`);
  }
}

function explain(error: Error, path: string): string {
  if (error instanceof Deno.errors.NotCapable) {
    return `Deno denies it. Type ${shellQuote(`--allow-write=${path}`)} after "deno run"`;
  }
  if (error instanceof Deno.errors.NotFound) {
    return `its folder does not exist. Create it: mkdir -p ${shellQuote(dirname(path))}`;
  }
  if (error instanceof Deno.errors.PermissionDenied) {
    return `this user may not write it. Create the file for this user, or the folder: sudo install -d -o "$USER" ${
      shellQuote(dirname(path))
    }`;
  }
  return error.message;
}

/** Formats a line that stands for lines that were dropped. Analyzers skip one that begins with #. */
function formatDropped(format: AccessLogFormat, count: number): string {
  const time = new Date();
  return format === "json"
    ? JSON.stringify({ time: time.toISOString(), dropped: count })
    : `# [${dateOf(time)}] ${count} lines were dropped here`;
}

function formatCommon(completed: CompletedRequest): string {
  const { info, started, status, bytes } = completed;
  const host = wordOf(info.remoteAddr.hostname);
  const user = wordOf(info.variables.get("REMOTE_USER"));
  const line = quotable(requestLine(completed));
  return `${host} - ${user} [${dateOf(started)}] "${line}" ${status} ${bytes || "-"}`;
}

function formatCombined(completed: CompletedRequest): string {
  const referrer = quotable(fieldOf(completed, "referer", "HTTP_REFERER") ?? "-");
  const agent = quotable(fieldOf(completed, "user-agent", "HTTP_USER_AGENT") ?? "-");
  return `${formatCommon(completed)} "${referrer}" "${agent}"`;
}

function formatJSON(completed: CompletedRequest): string {
  const { request, info, started, status, bytes, received, duration, traceId } = completed;
  const { variables } = info;
  return `{"time":"${isoOf(started)}"` +
    member("remote", info.remoteAddr.hostname) +
    member("user", variables.get("REMOTE_USER")) +
    member("method", request?.method ?? variables.get("REQUEST_METHOD")) +
    member("url", request?.url ?? variables.get("REQUEST_URI")) +
    `,"status":${status}` +
    (bytes === undefined ? "" : `,"bytes":${bytes}`) +
    `,"milliseconds":${Math.round(duration * 10) / 10}` +
    member("referrer", fieldOf(completed, "referer", "HTTP_REFERER")) +
    member("agent", fieldOf(completed, "user-agent", "HTTP_USER_AGENT")) +
    (received === undefined ? "" : `,"received":${received}`) +
    // Neither has a character to escape.
    `,"requestId":"${info.requestId}"` +
    (traceId === undefined ? "" : `,"traceId":"${traceId}"`) + "}";
}

/** Formats a member of a JSON object, if it has a value: JSON.stringify() of the whole object costs twice as much. */
function member(name: string, value: string | undefined): string {
  if (value === undefined) return "";
  if (QUOTED.test(value)) return `,"${name}":"${value}"`;
  return `,"${name}":${printableJSON(value)}`;
}

/** Returns the line of a request as the client sent it; "-" if its variables were refused. */
function requestLine({ request, info: { variables } }: CompletedRequest): string {
  const method = request?.method ?? variables.get("REQUEST_METHOD");
  if (method === undefined) return "-";
  // The app's URL may lack a base path.
  const target = variables.get("REQUEST_URI") ?? (request === undefined ? "-" : targetOf(request));
  return `${method} ${target} ${variables.get("SERVER_PROTOCOL") ?? "HTTP/1.1"}`;
}

function targetOf(request: Request): string {
  const { pathname, search } = new URL(request.url);
  return pathname + search;
}

/** Returns a header field. Creates the request's headers only if it must: that costs more than the rest of the line. */
function fieldOf(
  { request, info }: CompletedRequest,
  name: string,
  variable: string,
): string | undefined {
  if (request !== undefined && info.protocol === "http") {
    return request.headers.get(name) ?? undefined;
  }
  const value = info.variables.get(variable);
  if (request === undefined || value === undefined || PLAIN_FIELD.test(value)) return value;
  return request.headers.get(name) ?? undefined;
}

/** Escapes what would end a quoted field or a line, or control a terminal. */
function quotable(text = ""): string {
  return QUOTED.test(text) ? text : printable(text.replace(/["\\]/g, "\\$&"));
}

/** Does the same for a field that ends at a space. */
function wordOf(text = ""): string {
  return WORD.test(text) ? text : quotable(text).replaceAll(" ", "%20") || "-";
}

/** The second that was formatted last, and how. */
let second = NaN;
let common = "";
let iso = "";

function formatSecond(date: Date): number {
  const time = date.getTime();
  const now = Math.floor(time / 1000);
  if (now !== second) {
    second = now;
    iso = date.toISOString().slice(0, -4);
    const [, year, day, clock] = /^(\d+)-\d+-(\d+)T([\d:]+)/.exec(iso)!;
    common = `${day}/${MONTHS[date.getUTCMonth()]}/${year}:${clock} +0000`;
  }
  return time;
}

/** Formats a date as web servers do, in UTC. */
function dateOf(date: Date): string {
  formatSecond(date);
  return common;
}

/** Formats a date as `toISOString()` does. */
function isoOf(date: Date): string {
  const time = formatSecond(date);
  return `${iso}${String(time - second * 1000).padStart(3, "0")}Z`;
}
