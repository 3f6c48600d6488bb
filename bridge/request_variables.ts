/**
 * `Request` -> CGI meta-variables, which a gateway sends to an application. `request.ts` turns them back into the same
 * request. Rules are those of docs/protocols.md.
 *
 * @module
 */

import { toByteString } from "../wire/byte_string.ts";
import { NO_VARIABLE } from "./request.ts";

/** What the variables contain besides the request. */
export interface VariableOptions {
  /** The part of the path that names the script, a decoded byte string. @default "" */
  scriptName?: string;
  /** The rest of the path, a decoded byte string. */
  pathInfo: string;
  /** The path of the script's file. */
  scriptFilename?: string;
  /** The root directory of the scripts. */
  documentRoot?: string;
  /** The length of the body in bytes, if it is known. */
  contentLength?: number;
  /** The client's address. */
  remoteAddr?: Deno.Addr;
  /** The client's HTTP version. @default "HTTP/1.1" */
  serverProtocol?: string;
  /** The name of the server software. @default "Gatehouse" */
  serverSoftware?: string;
  /** Whether to leave out the Authorization header. @default false */
  dropAuthorization?: boolean;
  /** Additional variables, as text. They replace those of the same name. */
  variables?: Record<string, string>;
}

/** Creates the meta-variables of a request (RFC 3875 section 4.1): names and values as byte strings, in order. */
export function createVariables(
  request: Request,
  options: VariableOptions,
): [name: string, value: string][] {
  const url = new URL(request.url);
  const secure = url.protocol === "https:";
  const scriptName = options.scriptName ?? "";
  const variables: [string, string][] = [];
  const overrides = options.variables ?? {};
  const set = (name: string, value: string | undefined) => {
    if (value !== undefined && !Object.hasOwn(overrides, name)) variables.push([name, value]);
  };
  // SCGI requires it to be first (D3).
  set("CONTENT_LENGTH", options.contentLength?.toString() ?? "");
  set("GATEWAY_INTERFACE", "CGI/1.1");
  set("SERVER_PROTOCOL", options.serverProtocol ?? "HTTP/1.1");
  set("SERVER_SOFTWARE", options.serverSoftware ?? "Gatehouse");
  set("REQUEST_METHOD", request.method);
  set("REQUEST_SCHEME", url.protocol.slice(0, -1));
  // Not from the URL's parts, which do not distinguish an empty query from none.
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
  let hasHost = false;
  request.headers.forEach((value, name) => {
    // "a_b" would become the same variable as "a-b" (A24).
    if (NO_VARIABLE.has(name) || name.includes("_")) return;
    if (name === "authorization" && options.dropAuthorization) return;
    if (name === "host") hasHost = true;
    set(`HTTP_${name.replaceAll("-", "_").toUpperCase()}`, value);
  });
  if (!hasHost) set("HTTP_HOST", url.host);
  for (const [name, value] of Object.entries(overrides)) {
    variables.push([name, toByteString(value)]);
  }
  return variables;
}
