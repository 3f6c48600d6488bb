/**
 * `Request` -> CGI meta-variables, which a gateway sends to an application. `request.ts` turns them back into the same
 * request. Rules are those of docs/protocols.md.
 *
 * @module
 */

import { toByteString } from "../wire/byte_string.ts";
import { NO_VARIABLE } from "./request.ts";
import type { Addr } from "../io/addr.ts";

/** What the variables contain besides the request. */
export interface VariableOptions {
  /** The URL of the request, if the caller has parsed it. */
  url?: URL;
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
  remoteAddr?: Addr;
  /** The client's HTTP version. @default "HTTP/1.1" */
  serverProtocol?: string;
  /** The name of the server software. @default "Gatehouse" */
  serverSoftware?: string;
  /** Whether to leave out the Authorization header. @default false */
  dropAuthorization?: boolean;
  /** Header fields in place of those of the request, by names in lower case; null for none. */
  fields?: ReadonlyMap<string, string | null>;
  /** Additional variables, as text. They replace those of the same name. */
  variables?: Record<string, string>;
}

/** Receives variables: names and values as byte strings. */
export type VariableSink = (name: string, value: string) => void;

/** How many names are cached. */
const MAX_NAMES = 1000;
/** A cache of {@linkcode fieldVariable}. */
const fieldVariables = new Map<string, string | null>();

/** Returns the variable of a header field, or null if it becomes none. @param name The field's name, in lower case. */
function fieldVariable(name: string): string | null {
  let variable = fieldVariables.get(name);
  if (variable === undefined) {
    // Other characters would become "_" in an application, and "a.b" or "a_b" the same variable as "a-b" (A24).
    const none = NO_VARIABLE.has(name) || !/^[a-z0-9-]+$/.test(name);
    variable = none ? null : `HTTP_${name.replaceAll("-", "_").toUpperCase()}`;
    // Bounds the cache: clients choose the names.
    if (fieldVariables.size >= MAX_NAMES) fieldVariables.clear();
    fieldVariables.set(name, variable);
  }
  return variable;
}

/**
 * Returns a URL with the scheme and host that a request is addressed to. Over a Unix socket, the URL of `Deno.serve` has
 * the scheme "http+unix" and, without Host, the socket's path as its host.
 */
function originOf(url: URL, headers: Headers): URL {
  if (url.protocol === "http:" || url.protocol === "https:") return url;
  return URL.parse(`http://${headers.get("host") ?? ""}`) ?? new URL("http://localhost");
}

/** Returns the host that a request is addressed to: that of an absolute target, else Host (A11). */
function addressedHost(host: string, url: URL): string {
  if (host === url.host) return host;
  const named = `${url.protocol}//${host}`;
  return URL.canParse(named) && new URL(named).host === url.host ? host : url.host;
}

/** Creates the meta-variables of a request (RFC 3875 section 4.1): names and values as byte strings, in order. */
export function createVariables(
  request: Request,
  options: VariableOptions,
): [name: string, value: string][] {
  const variables: [string, string][] = [];
  writeVariables(request, options, (name, value) => variables.push([name, value]));
  return variables;
}

/** Passes the variables that {@linkcode createVariables} returns to a function. */
export function writeVariables(
  request: Request,
  options: VariableOptions,
  write: VariableSink,
): void {
  const { url = new URL(request.url), variables: overrides } = options;
  const origin = originOf(url, request.headers);
  const secure = origin.protocol === "https:";
  const set = overrides === undefined ? write : (name: string, value: string) => {
    if (!Object.hasOwn(overrides, name)) write(name, value);
  };
  // SCGI requires it to be first (D3).
  set("CONTENT_LENGTH", options.contentLength?.toString() ?? "");
  set("GATEWAY_INTERFACE", "CGI/1.1");
  set("SERVER_PROTOCOL", options.serverProtocol ?? "HTTP/1.1");
  set("SERVER_SOFTWARE", options.serverSoftware ?? "Gatehouse");
  set("REQUEST_METHOD", request.method);
  set("REQUEST_SCHEME", origin.protocol.slice(0, -1));
  set("REQUEST_URI", requestURI(url));
  set("QUERY_STRING", url.search.slice(1));
  set("SCRIPT_NAME", options.scriptName ?? "");
  set("PATH_INFO", options.pathInfo);
  const { scriptFilename, documentRoot, remoteAddr } = options;
  if (scriptFilename !== undefined) set("SCRIPT_FILENAME", toByteString(scriptFilename));
  if (documentRoot !== undefined) set("DOCUMENT_ROOT", toByteString(documentRoot));
  if (documentRoot && options.pathInfo) {
    const root = toByteString(documentRoot).replace(/\/+$/, "");
    set("PATH_TRANSLATED", root + options.pathInfo.replace(/^\/*/, "/"));
  }
  set("SERVER_NAME", origin.hostname.replace(/^\[(.*)\]$/, "$1"));
  set("SERVER_PORT", origin.port || (secure ? "443" : "80"));
  if (secure) set("HTTPS", "on");
  if (remoteAddr !== undefined && "hostname" in remoteAddr) {
    set("REMOTE_ADDR", remoteAddr.hostname);
    set("REMOTE_PORT", String(remoteAddr.port));
  }
  const { headers } = request;
  const type = headers.get("content-type");
  if (type !== null) set("CONTENT_TYPE", type);
  let hasHost = false;
  const { fields } = options;
  fields?.forEach((value, name) => {
    const variable = fieldVariable(name);
    if (value !== null && variable !== null) set(variable, value);
  });
  headers.forEach((value, name) => {
    const variable = fieldVariable(name);
    if (variable === null || fields?.has(name)) return;
    if (name === "authorization" && options.dropAuthorization) return;
    if (name === "host") {
      hasHost = true;
      value = addressedHost(value, origin);
    }
    set(variable, value);
  });
  if (!hasHost) set("HTTP_HOST", origin.host);
  if (overrides === undefined) return;
  for (const [name, value] of Object.entries(overrides)) write(name, toByteString(value));
}

/** Returns REQUEST_URI. Not from the URL's parts, which do not distinguish an empty query from none. */
export function requestURI({ href }: URL): string {
  return href.replace(/^[a-z+]+:\/\/[^/?#]*/, "").replace(/#.*/s, "");
}
