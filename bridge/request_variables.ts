/**
 * `Request` -> CGI meta-variables: what a gateway tells an application. Read back by `request.ts`, they make the same
 * request. Rules are those of docs/protocols.md.
 *
 * @module
 */

import { toByteString } from "../wire/byte_string.ts";
import { NO_VARIABLE } from "./request.ts";

/** What the variables say beside the request itself. */
export interface VariableOptions {
  /** The part of the path that names the script, decoded, a byte string. @default "" */
  scriptName?: string;
  /** The rest of the path, decoded, a byte string. */
  pathInfo: string;
  /** The script's file. */
  scriptFilename?: string;
  /** The directory that paths are looked up in. */
  documentRoot?: string;
  /** The length of the body, if it is known. */
  contentLength?: number;
  /** Where the client is. */
  remoteAddr?: Deno.Addr;
  /** The version of HTTP that the client speaks. @default "HTTP/1.1" */
  serverProtocol?: string;
  /** What the server calls itself. @default "Gatehouse" */
  serverSoftware?: string;
  /** Leaves the Authorization header out. @default false */
  dropAuthorization?: boolean;
  /** More variables, texts; they replace those of the same name. */
  variables?: Record<string, string>;
}

/** Tells a request as meta-variables (RFC 3875 section 4.1), names and values as byte strings. */
export function createVariables(
  request: Request,
  options: VariableOptions,
): [name: string, value: string][] {
  const url = new URL(request.url);
  const secure = url.protocol === "https:";
  const scriptName = options.scriptName ?? "";
  const variables: [string, string][] = [];
  const given = options.variables ?? {};
  const set = (name: string, value: string | undefined) => {
    if (value !== undefined && !Object.hasOwn(given, name)) variables.push([name, value]);
  };
  // SCGI wants it first.
  set("CONTENT_LENGTH", options.contentLength?.toString() ?? "");
  set("GATEWAY_INTERFACE", "CGI/1.1");
  set("SERVER_PROTOCOL", options.serverProtocol ?? "HTTP/1.1");
  set("SERVER_SOFTWARE", options.serverSoftware ?? "Gatehouse");
  set("REQUEST_METHOD", request.method);
  set("REQUEST_SCHEME", url.protocol.slice(0, -1));
  // Not of the URL's parts, which do not tell an empty query from none.
  set("REQUEST_URI", url.href.replace(/^[a-z]+:\/\/[^/?#]*/, "").replace(/#.*/s, ""));
  set("QUERY_STRING", url.search.slice(1));
  set("SCRIPT_NAME", scriptName);
  set("PATH_INFO", options.pathInfo);
  set("SCRIPT_FILENAME", options.scriptFilename && toByteString(options.scriptFilename));
  set("DOCUMENT_ROOT", options.documentRoot && toByteString(options.documentRoot));
  if (options.documentRoot && options.pathInfo) {
    set("PATH_TRANSLATED", toByteString(options.documentRoot) + options.pathInfo);
  }
  set("SERVER_NAME", url.hostname.replace(/^\[(.*)\]$/, "$1"));
  set("SERVER_PORT", url.port || (secure ? "443" : "80"));
  if (secure) set("HTTPS", "on");
  const { remoteAddr } = options;
  if (remoteAddr !== undefined && "hostname" in remoteAddr) {
    set("REMOTE_ADDR", remoteAddr.hostname);
    set("REMOTE_PORT", String(remoteAddr.port));
  }
  set("CONTENT_TYPE", request.headers.get("content-type") ?? undefined);
  let host = false;
  request.headers.forEach((value, name) => {
    // "a_b" and "a-b" would be one variable.
    if (NO_VARIABLE.has(name) || name.includes("_")) return;
    if (name === "authorization" && options.dropAuthorization) return;
    if (name === "host") host = true;
    set(`HTTP_${name.replaceAll("-", "_").toUpperCase()}`, value);
  });
  if (!host) set("HTTP_HOST", url.host);
  for (const [name, value] of Object.entries(given)) variables.push([name, toByteString(value)]);
  return variables;
}
