/**
 * Access log lines for stdout, in the formats that log analyzers read.
 *
 * @module
 */

import type { App, AppObject, Handler, HandlerInfo } from "../bridge/app.ts";
import { bufferedResponse } from "../bridge/buffered_response.ts";
import { printable } from "../bridge/printable.ts";
import { writeLine } from "../io/log.ts";
import { ProtocolError } from "../wire/protocol_error.ts";

/** The formats of {@linkcode logAccess}. */
export const ACCESS_LOGS = ["common", "combined", "json"] as const;

const FORMATS = { common: formatCommon, combined: formatCombined, json: formatJSON };
/** The logged status of a request whose client disconnected before the response, as in nginx. */
const CLIENT_CLOSED = 499;
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** A request and its outcome. */
interface Access {
  request: Request;
  info: HandlerInfo;
  started: Date;
  status: number;
  /** The length of the response's body in bytes, if it is known. */
  bytes: number | undefined;
  milliseconds: number;
}

/**
 * Wraps an app so that it writes a line for each request once the response is sent.
 *
 * @param write Writes a line.
 */
export function logAccess(
  app: App,
  format: typeof ACCESS_LOGS[number],
  write: (line: string) => void = (line) => writeLine(Deno.stdout, line),
): App {
  const formatLine = FORMATS[format];
  const wrap = <Info extends HandlerInfo>(
    handler: (request: Request, info: Info) => Response | Promise<Response>,
  ) =>
  async (request: Request, info: Info): Promise<Response> => {
    const started = new Date();
    const clock = performance.now();
    let status = CLIENT_CLOSED;
    let bytes: number | undefined;
    const end = () => {
      const milliseconds = performance.now() - clock;
      write(formatLine({ request, info, started, status, bytes, milliseconds }));
    };
    info.completed.then(end, end);
    try {
      const response = await handler(request, info);
      status = response.status;
      if (request.method !== "HEAD") bytes = lengthOf(response);
      return response;
    } catch (error) {
      status = error instanceof ProtocolError ? error.status : 500;
      throw error;
    }
  };
  if (typeof app === "function") return wrap(app);
  const logged: AppObject = {
    fetch: wrap<HandlerInfo>((request, info) => app.fetch(request, info)),
  };
  const { authorize, filter } = app;
  if (authorize) logged.authorize = wrap<HandlerInfo>(authorize.bind(app) as Handler);
  if (filter) logged.filter = wrap(filter.bind(app));
  return logged;
}

/** Returns the length of a response's body in bytes, or undefined if it is not known before the body is sent. */
function lengthOf(response: Response): number | undefined {
  const body = bufferedResponse(response)?.body;
  if (typeof body === "string") return new TextEncoder().encode(body).length;
  if (body !== undefined) return body.length;
  if (response.headers.has("content-encoding")) return undefined;
  const length = response.headers.get("content-length");
  return length === null ? undefined : Number(length);
}

function formatCommon({ request, info, started, status, bytes }: Access): string {
  const host = wordOf("hostname" in info.remoteAddr ? info.remoteAddr.hostname : "");
  const user = wordOf(info.variables.get("REMOTE_USER"));
  const protocol = info.variables.get("SERVER_PROTOCOL") ?? "HTTP/1.1";
  const line = quotable(`${request.method} ${targetOf(request)} ${protocol}`);
  return `${host} - ${user} [${dateOf(started)}] "${line}" ${status} ${bytes ?? "-"}`;
}

function formatCombined(access: Access): string {
  const { headers } = access.request;
  const [referrer, agent] = ["referer", "user-agent"].map((name) =>
    quotable(headers.get(name) ?? "-")
  );
  return `${formatCommon(access)} "${referrer}" "${agent}"`;
}

function formatJSON({ request, info, started, status, bytes, milliseconds }: Access): string {
  const line = JSON.stringify({
    time: started.toISOString(),
    remote: "hostname" in info.remoteAddr ? info.remoteAddr.hostname : "",
    user: info.variables.get("REMOTE_USER"),
    method: request.method,
    url: request.url,
    status,
    bytes,
    milliseconds: Math.round(milliseconds * 10) / 10,
    referrer: request.headers.get("referer") ?? undefined,
    agent: request.headers.get("user-agent") ?? undefined,
  });
  // JSON.stringify() escapes the first 32 characters only.
  return printable(line, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

function targetOf(request: Request): string {
  const { pathname, search } = new URL(request.url);
  return pathname + search;
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
