/**
 * Access log lines for stdout, in the formats that log analyzers read.
 *
 * @module
 */

import type { CompletedRequest } from "../bridge/app.ts";
import { printable } from "../io/printable.ts";
import { writeLine } from "../io/log.ts";

/** The formats of {@linkcode accessLog}. */
export const ACCESS_LOGS = ["common", "combined", "json"] as const;

const FORMATS = { common: formatCommon, combined: formatCombined, json: formatJSON };
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/**
 * Returns an option `onCompleted` that writes a line for each request.
 *
 * @param write Writes a line. @default to stdout
 */
export function accessLog(
  format: typeof ACCESS_LOGS[number],
  write: (line: string) => void = (line) => writeLine(Deno.stdout, line),
): (completed: CompletedRequest) => void {
  const formatLine = FORMATS[format];
  return (completed) => write(formatLine(completed));
}

function formatCommon(completed: CompletedRequest): string {
  const { info, started, status, bytes } = completed;
  const host = wordOf(info.remoteAddr.hostname);
  const user = wordOf(info.variables.get("REMOTE_USER"));
  const line = quotable(requestLine(completed));
  return `${host} - ${user} [${dateOf(started)}] "${line}" ${status} ${bytes || "-"}`;
}

function formatCombined(completed: CompletedRequest): string {
  const [referrer, agent] = ["referer", "user-agent"].map((name) =>
    quotable(fieldOf(completed, name) ?? "-")
  );
  return `${formatCommon(completed)} "${referrer}" "${agent}"`;
}

function formatJSON(completed: CompletedRequest): string {
  const { request, info, started, status, bytes, duration } = completed;
  const line = JSON.stringify({
    time: started.toISOString(),
    remote: info.remoteAddr.hostname,
    user: info.variables.get("REMOTE_USER"),
    method: request?.method ?? info.variables.get("REQUEST_METHOD"),
    url: request?.url ?? info.variables.get("REQUEST_URI"),
    status,
    bytes,
    milliseconds: Math.round(duration * 10) / 10,
    referrer: fieldOf(completed, "referer"),
    agent: fieldOf(completed, "user-agent"),
  });
  // JSON.stringify() escapes the first 32 characters only.
  return printable(line, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);
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

function fieldOf({ request, info }: CompletedRequest, name: string): string | undefined {
  return request === undefined
    ? info.variables.get(`HTTP_${name.toUpperCase().replaceAll("-", "_")}`)
    : request.headers.get(name) ?? undefined;
}

/** Escapes what would end a quoted field or a line, or control a terminal. */
function quotable(text = ""): string {
  return printable(text.replace(/["\\]/g, "\\$&"));
}

/** Does the same for a field that ends at a space. */
function wordOf(text?: string): string {
  return quotable(text).replaceAll(" ", "%20") || "-";
}

/** Formats a date as web servers do, in UTC. */
function dateOf(date: Date): string {
  const [, year, day, time] = /^(\d+)-\d+-(\d+)T([\d:]+)/.exec(date.toISOString())!;
  return `${day}/${MONTHS[date.getUTCMonth()]}/${year}:${time} +0000`;
}
