/**
 * CGI meta-variables -> `Request`. Rules are those of docs/protocols.md.
 *
 * @module
 */

import { ProtocolError } from "../wire/protocol_error.ts";
import { encodeByteString, toByteString } from "../wire/byte_string.ts";
import { CONNECTION_FIELDS, TOKEN } from "../wire/cgi.ts";
import type { Variables } from "../wire/variables.ts";
import type { AppOptions, Protocol } from "./app.ts";
import { serverQuirks } from "./server_quirks.ts";

/** Methods that no `Request` can have (A5). */
export const NO_REQUEST: RegExp = /^(?:CONNECT|TRACE|TRACK)$/i;
/** Methods that `Request` capitalizes. It keeps the case of others (A5). */
const CAPITALS = /^(?:DELETE|GET|HEAD|OPTIONS|POST|PUT)$/i;
const AUTHORITY = /^(?:[\w.~!$&'()*+,;=%-]+|\[[0-9a-f:.]+\])(?::\d{0,5})?$/i;
/** Methods whose requests usually have a body. */
const HAS_BODY = /^P(?:OST|UT|ATCH)$/i;
/**
 * Header fields without an `HTTP_*` variable: those of the connection (A23), those that have variables of
 * their own (A25), and `Proxy` (A27).
 */
export const NO_VARIABLE: ReadonlySet<string> = new Set([
  ...CONNECTION_FIELDS,
  "content-length",
  "content-type",
  "proxy",
]);

/**
 * Returns the method of a request (A2, A5).
 *
 * @throws {ProtocolError} If it is absent (status 500), is not a token (400), or no `Request` can have it (501).
 */
export function requestMethod(variables: Variables): string {
  const method = variables.byteString("REQUEST_METHOD");
  if (method === undefined) {
    throw new ProtocolError(
      "Cannot create request: REQUEST_METHOD is absent. " +
        "In nginx one fastcgi_param in a location drops all inherited ones: include fastcgi_params there",
      500,
    );
  }
  if (method === "GET" || method === "POST" || method === "HEAD") return method;
  if (!TOKEN.test(method)) {
    throw new ProtocolError(
      `Cannot create request as REQUEST_METHOD must be a token: current value is ${
        JSON.stringify(method)
      }`,
    );
  }
  if (NO_REQUEST.test(method)) {
    throw new ProtocolError(
      `Cannot create request as its method must be one that fetch allows: current value is ${method}`,
      501,
    );
  }
  return CAPITALS.test(method) ? method.toUpperCase() : method;
}

/**
 * Returns the declared length of the body, or undefined if there is none (A19).
 *
 * @throws {ProtocolError} If it is not a safe integer in decimal digits.
 */
export function contentLength(variables: Variables): number | undefined {
  const text = variables.byteString("CONTENT_LENGTH");
  if (text === undefined || text === "-1") return undefined;
  const length = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(length)) {
    throw new ProtocolError(
      `Cannot create request as CONTENT_LENGTH must be a whole number: current value is ${
        JSON.stringify(text)
      }`,
    );
  }
  return length;
}

function isChunked(variables: Variables): boolean {
  return /chunked/i.test(variables.byteString("HTTP_TRANSFER_ENCODING") ?? "");
}

/** Returns whether the input is a body of unknown length, which the web server has decoded (A20). */
export function isDecoded(variables: Variables): boolean {
  return isChunked(variables) && serverQuirks(variables).needsLength === undefined;
}

/**
 * Rejects a body that the web server does not pass on to a script as the client sent it, as it has no length (A22).
 *
 * @throws {ProtocolError} With status 411.
 */
export function requireLength(variables: Variables, method: string): void {
  const { software, needsLength } = serverQuirks(variables);
  if (needsLength === undefined || method === "GET" || method === "HEAD") return;
  const isLost = contentLength(variables) === undefined &&
    ((variables.byteString("HTTP_CONTENT_LENGTH") ?? "0") !== "0" ||
      needsLength === "hidden" && HAS_BODY.test(method));
  // With a length too, which RFC 9112 section 6.3 ignores, a body that such a server passes on is still chunked.
  if (isLost || isChunked(variables)) {
    throw new ProtocolError(
      `Cannot create request: "${software}" does not pass on a body without CONTENT_LENGTH, or in chunked coding. ` +
        "Send the body with a Content-Length",
      411,
    );
  }
}

/** Returns whether the client used HTTPS (A7). */
function isSecure(variables: Variables, { proto }: Forwarded): boolean {
  if (proto !== undefined) return proto.toLowerCase() === "https";
  const https = variables.byteString("HTTPS");
  if (https !== undefined && !/^(?:off|0)$/i.test(https)) return true;
  return variables.byteString("REQUEST_SCHEME")?.toLowerCase() === "https";
}

/** The last valid authority: the next request usually has the same. */
let lastAuthority: string | undefined;

/** Returns whether a Host field is a host with an optional port, and cannot change the rest of a URL. */
export function isAuthority(host: string): boolean {
  if (host === lastAuthority) return true;
  const isValid = AUTHORITY.test(host) && URL.canParse(`http://${host}/`);
  if (isValid) lastAuthority = host;
  return isValid;
}

/** Returns the authority of an absolute target and what follows it, or null if the target is not absolute (A11). */
function splitAbsolute(uri: string): { authority: string; rest: string } | null {
  const match = /^[a-z][a-z0-9+.-]*:\/\/([^/?#]*)(.*)$/is.exec(uri);
  return match && { authority: match[1], rest: match[2] };
}

/** Returns the authority of an absolute target, which replaces Host, or undefined if the target is not absolute (A11). */
function targetAuthority(variables: Variables): string | undefined {
  const uri = variables.byteString("REQUEST_URI");
  return uri === undefined || uri.startsWith("/") ? undefined : splitAbsolute(uri)?.authority;
}

/** Returns the scheme and authority of the URL (A7 to A9, A11). */
function requestOrigin(variables: Variables, forwarded: Forwarded): string {
  const scheme = isSecure(variables, forwarded) ? "https" : "http";
  const authority = forwarded.host ?? targetAuthority(variables) ??
    variables.byteString("HTTP_HOST") ??
    serverAuthority(variables, scheme);
  if (!isAuthority(authority)) {
    throw new ProtocolError(
      `Cannot create request as its host must be a valid one: current value is ${
        JSON.stringify(authority)
      }`,
    );
  }
  return `${scheme}://${authority}`;
}

/** Returns the authority of a request without a Host field, from SERVER_NAME, which may be a placeholder (A8, A9). */
function serverAuthority(variables: Variables, scheme: string): string {
  const name = variables.byteString("SERVER_NAME");
  if (name === undefined || name === "_") return "localhost";
  const host = name.includes(":") && /^[0-9a-f:.]+$/i.test(name) && name.split(":").length > 2
    ? `[${name}]`
    : name;
  if (/:\d+$/.test(host.replace(/^\[.*\]/, ""))) return AUTHORITY.test(host) ? host : "localhost";
  const port = variables.byteString("SERVER_PORT");
  const usual = scheme === "https" ? "443" : "80";
  const authority = port === undefined || port === usual || !/^\d{1,5}$/.test(port)
    ? host
    : `${host}:${port}`;
  return isAuthority(authority) ? authority : "localhost";
}

/** Returns the path and query of the URL (A10 to A13). */
function requestTarget(variables: Variables): string {
  const uri = serverQuirks(variables).decodesTarget
    ? undefined
    : variables.byteString("REQUEST_URI");
  const query = variables.byteString("QUERY_STRING");
  if (uri === undefined) {
    const script = scriptName(variables);
    const path = encodePath(script.name + (variables.byteString("PATH_INFO") ?? ""));
    return encodeUnsafe(withQuery(path.startsWith("/") ? path : "/" + path, query ?? script.query));
  }
  return encodeUnsafe(withQuery(originForm(uri), query));
}

/** Returns the path and query of REQUEST_URI. */
function originForm(uri: string): string {
  if (uri.startsWith("/")) return uri;
  const absolute = splitAbsolute(uri);
  if (absolute === null) {
    throw new ProtocolError(
      `Cannot create request as REQUEST_URI must be a path or an absolute URL: current value is ${
        JSON.stringify(uri)
      }`,
    );
  }
  return absolute.rest.startsWith("/") ? absolute.rest : "/" + absolute.rest;
}

/** Returns a target with QUERY_STRING as its query, unless it has that already, encoded or not (A10). */
function withQuery(target: string, query: string | undefined): string {
  if (query === undefined) return target;
  const at = target.indexOf("?");
  if (at < 0) return `${target}?${query}`;
  const sent = target.slice(at + 1);
  const same = sent === query || decodePercent(sent) === query ||
    decodePercent(sent.replaceAll("+", " ")) === query;
  return same ? target : target.slice(0, at + 1) + query;
}

/** Returns SCRIPT_NAME, and apart from it the query that a server adds to it (A13). */
function scriptName(variables: Variables): { name: string; query?: string } {
  const name = variables.byteString("SCRIPT_NAME") ?? "";
  const at = name.indexOf("?");
  return at >= 0 && serverQuirks(variables).addsQuery
    ? { name: name.slice(0, at), query: name.slice(at + 1) }
    : { name };
}

/** Percent-encodes characters that `URL` would drop or interpret (A12). */
function encodeUnsafe(text: string): string {
  return text.replace(/[^!$-;=?-[\]_a-z~]/g, percent);
}

/** Percent-encodes a decoded path, a byte string (A13). */
function encodePath(text: string): string {
  return text.replace(/[^\w.~!$&'()*+,:@/-]/g, percent);
}

function percent(char: string): string {
  return "%" + char.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0");
}

/** Decodes percent-encoding into a byte string. */
export function decodePercent(text: string): string {
  if (!text.includes("%")) return text;
  return text.replace(
    /%([0-9a-f]{2})/gi,
    (_, hex: string) => String.fromCharCode(parseInt(hex, 16)),
  );
}

/**
 * Returns the part of the path that SCRIPT_NAME names, if the decoded path begins with it at a segment's boundary and
 * PATH_INFO is the rest, else an empty string (A17). Over FastCGI and SCGI a server that does not split the path
 * sends all of it as SCRIPT_NAME, so without PATH_INFO it counts only if SCRIPT_FILENAME is the running program. The
 * same holds behind Apache's mod_proxy, which splits a path after the longest part that exists as a file or folder.
 *
 * @param path The URL's path, encoded.
 * @param program The path of the running program, or undefined if it has no file.
 */
export function mountPrefix(
  variables: Variables,
  path: string,
  protocol: Protocol,
  program: string | undefined,
): string {
  const script = trimSlashes(scriptName(variables).name);
  if (script === "") return "";
  const info = variables.byteString("PATH_INFO");
  const prefix = serverQuirks(variables).dropsContext === true
    ? contextPrefix(path, script, info ?? "")
    : encodedPrefix(path, script);
  if (prefix === undefined) return "";
  const rest = path.slice(prefix.length);
  if (rest !== "" && !decodePercent(rest).startsWith("/")) return "";
  if (protocol === "cgi" && info === undefined) return prefix;
  const file = variables.byteString("SCRIPT_FILENAME") ?? "";
  const proxied = file.startsWith("proxy:");
  if (info === undefined || proxied) {
    const path = proxied ? file.replace(/^.*?:\/\/[^/]*/, "") : file;
    if (program === undefined || path !== program) return "";
  }
  return samePath(rest, info ?? "") || repeatsScript(rest, info ?? "", script, variables)
    ? prefix
    : "";
}

/**
 * Returns whether PATH_INFO is SCRIPT_NAME and the rest of the path, as some servers send it. Where both are equal,
 * the path is unsplit.
 */
function repeatsScript(rest: string, info: string, script: string, variables: Variables): boolean {
  return info.startsWith(`${script}/`) && serverQuirks(variables).repeatsScript === true &&
    samePath(rest, info.slice(script.length));
}

/** Returns the path before PATH_INFO if it ends with SCRIPT_NAME, which lacks the path of a context. */
function contextPrefix(path: string, script: string, info: string): string | undefined {
  const decoded = decodePercent(path);
  const end = script + info;
  if (!decoded.endsWith(end)) return undefined;
  return encodedPrefix(path, decoded.slice(0, decoded.length - info.length));
}

/** Removes slashes at the end. A regular expression would take quadratic time. */
function trimSlashes(path: string): string {
  let end = path.length;
  while (end > 0 && path[end - 1] === "/") end--;
  return path.slice(0, end);
}

/**
 * Returns whether the rest of the URL's path is PATH_INFO, in which servers may merge slashes (A14) and Apache may
 * leave an encoded slash (A15).
 *
 * @param rest The end of the URL's path, encoded.
 */
function samePath(rest: string, info: string): boolean {
  if (rest === info && !rest.includes("%")) return true;
  return [rest, rest.replace(/%(?=2f)/gi, "%25")].map(decodePercent)
    .some((path) => path === info || path.replace(/\/{2,}/g, "/") === info);
}

/** Returns the beginning of an encoded path that decodes to `decoded`, or undefined if there is none. */
function encodedPrefix(path: string, decoded: string): string | undefined {
  if (path.startsWith(decoded) && !decoded.includes("%")) return decoded;
  let at = 0;
  for (const char of decoded) {
    if (path[at] === "%" && decodePercent(path.slice(at, at + 3)) === char) at += 3;
    else if (path[at] === char) at++;
    else return undefined;
  }
  return path.slice(0, at);
}

/** A target that `URL` does not change, unless it has dot segments: it has nothing to encode. */
const PLAIN_TARGET = /^\/[\w~!$&()*+,;=:@/%.-]*(?:\?[\w~!$&()*+,;=:@/%.?-]*)?$/;
/** Matches a plain target that is ambiguous if a server has decoded its path: one with an encoded or reserved character. */
const AMBIGUOUS = /^[^?]*[%;=]/;
const DOT_SEGMENT = /\/(?:\.|%2e)/i;
/** A host that `URL` does not change: no IP address, no Punycode, no port that may be the scheme's default. */
const PLAIN_HOST = /^(?:(?!xn--)[a-z][a-z0-9-]*\.)*(?!xn--)[a-z][a-z0-9-]*(?::[1-9]\d{3})?$/;
/** The last authority and its origin, which are usually those of the next request too. */
const lastHost = { secure: false, host: "", origin: "" };

/** The parts of a URL that are used. */
type URLParts = Pick<URL, "href" | "origin" | "pathname" | "search">;

/** Returns the target of an ordinary request, which `URL` does not change. Returns undefined if it may. */
function plainTarget(variables: Variables): string | undefined {
  const target = variables.byteString("REQUEST_URI");
  if (target === undefined || !PLAIN_TARGET.test(target) || DOT_SEGMENT.test(target)) {
    return undefined;
  }
  const at = target.indexOf("?");
  const query = variables.byteString("QUERY_STRING");
  if (at < 0 ? query !== undefined : target.slice(at + 1) !== query) return undefined;
  // A target without these characters is the same decoded and encoded.
  return AMBIGUOUS.test(target) && serverQuirks(variables).decodesTarget ? undefined : target;
}

/** Returns the origin of a request with a plain target. Returns undefined if no variable has its authority. */
function plainOrigin(variables: Variables, forwarded: Forwarded): string | undefined {
  const host = forwarded.host ?? variables.byteString("HTTP_HOST");
  if (host === undefined) return undefined;
  const secure = isSecure(variables, forwarded);
  if (host !== lastHost.host || secure !== lastHost.secure) {
    lastHost.origin = PLAIN_HOST.test(host)
      ? `${secure ? "https" : "http"}://${host}`
      : new URL(requestOrigin(variables, forwarded)).origin;
    lastHost.host = host;
    lastHost.secure = secure;
  }
  return lastHost.origin;
}

/**
 * Returns the URL of an ordinary request without parsing it: the same as {@linkcode requestURL} without `basePath`,
 * faster.
 *
 * @returns The URL, or undefined if it must be parsed.
 * @throws {ProtocolError} If the host is invalid.
 */
export function requestHref(variables: Variables, forwarded: Forwarded = {}): string | undefined {
  const target = plainTarget(variables);
  const origin = target && plainOrigin(variables, forwarded);
  return origin && origin + target;
}

/** Does the same in parts. */
function plainURL(variables: Variables, forwarded: Forwarded): URLParts | undefined {
  const target = plainTarget(variables);
  const origin = target && plainOrigin(variables, forwarded);
  if (!target || !origin) return undefined;
  const at = target.indexOf("?");
  const pathname = at < 0 ? target : target.slice(0, at);
  // As in URL, an empty query has no question mark.
  const search = at < 0 || at === target.length - 1 ? "" : target.slice(at);
  return { href: origin + target, origin, pathname, search };
}

/** What the nearest proxy says of the client's request, if it is trusted. */
export interface Forwarded {
  /** The scheme that the client used. */
  proto?: string;
  /** The host that the client addressed. */
  host?: string;
  /** The client, which may be no address. */
  client?: string;
}

/** The URL of a request as the app sees it, and how its path is split. */
export interface RequestURL {
  /** The normalized URL, without the mount prefix if `basePath` removes it. */
  href: string;
  /** The mount prefix, encoded as in the URL. */
  prefix: string;
  /** The rest of the path, encoded. */
  rest: string;
}

/**
 * Returns the URL and its parts (A7 to A17).
 *
 * @throws {ProtocolError} If the host or the target is invalid.
 */
export function requestURL(
  variables: Variables,
  basePath: AppOptions["basePath"],
  forwarded: Forwarded,
  protocol: Protocol,
  program: string | undefined,
): RequestURL {
  // By concatenation: as the base of a URL, "//evil.example/x" would be another host.
  const url = plainURL(variables, forwarded) ??
    new URL(requestOrigin(variables, forwarded) + requestTarget(variables));
  let prefix: string;
  if (basePath !== undefined && basePath !== "auto") {
    prefix = encodedPrefix(url.pathname, toByteString(trimSlashes(basePath))) ?? "";
    if (!/^(?:\/|$)/.test(url.pathname.slice(prefix.length))) prefix = "";
  } else {
    prefix = mountPrefix(variables, url.pathname, protocol, program);
  }
  const rest = url.pathname.slice(prefix.length);
  if (basePath === undefined || prefix === "") return { href: url.href, prefix, rest };
  return { href: url.origin + (rest || "/") + url.search, prefix, rest };
}

/** A cache of {@linkcode fieldName}. */
const fieldNames = new Map<string, string | null>();
const MAX_FIELD_NAMES = 256;

/** Returns the name of the header field that an `HTTP_*` variable stands for, or null if none (A23, A24). */
function fieldName(variable: string): string | null {
  let name = fieldNames.get(variable);
  if (name === undefined) {
    const field = variable.slice(5).replaceAll("_", "-").toLowerCase();
    name = TOKEN.test(field) && !NO_VARIABLE.has(field) ? field : null;
    // Bounds the cache: clients choose the names.
    if (fieldNames.size >= MAX_FIELD_NAMES) fieldNames.clear();
    fieldNames.set(variable, name);
  }
  return name;
}

/**
 * Returns the header fields of a request as byte strings (A23 to A28). The names are tokens in lower case, and may repeat.
 */
export function requestFields(
  variables: Variables,
  options: AppOptions,
): [name: string, value: string][] {
  const fields: [name: string, value: string][] = [];
  let host: string | undefined;
  let cookie: string | undefined;
  const append = (name: string, value: string | undefined) => {
    if (value !== undefined) fields.push([name, value]);
  };
  const { inventsEmpty } = serverQuirks(variables);
  variables.forEachPair((variable, value) => {
    if (inventsEmpty && value === "") return;
    const name = fieldName(variable);
    // Headers joins repeated values with commas, which would be wrong for these two (A26).
    if (name === "host") host = value;
    else if (name === "cookie") cookie = cookie === undefined ? value : `${cookie}; ${value}`;
    else if (name !== null) fields.push([name, value]);
  }, "HTTP_");
  append("host", targetAuthority(variables) ?? host);
  append("cookie", cookie);
  append("content-type", contentType(variables));
  const length = contentLength(variables);
  if (length !== undefined && !isFiller(length, variables)) {
    append("content-length", String(length));
  }
  if (options.redirectAuthorization && !variables.byteString("HTTP_AUTHORIZATION")) {
    append("authorization", variables.byteString("REDIRECT_HTTP_AUTHORIZATION"));
  }
  return fields;
}

/** Returns whether a length of 0 is a filler: SCGI requires one on GET and HEAD too, and lighttpd sends it (A23). */
function isFiller(length: number, variables: Variables): boolean {
  return length === 0 && /^(?:GET|HEAD)$/i.test(variables.byteString("REQUEST_METHOD") ?? "");
}

/** Returns the type of the body that the client sent (A25). */
function contentType(variables: Variables): string | undefined {
  const { inventsType, hidesType } = serverQuirks(variables);
  if (!inventsType && !hidesType) return variables.byteString("CONTENT_TYPE");
  const sent = variables.byteString("HTTP_CONTENT_TYPE");
  return hidesType || sent === undefined ? sent : variables.byteString("CONTENT_TYPE");
}

/** Decodes percent-encoding into text. Bytes that are not UTF-8 become U+FFFD. */
export function decodePath(encoded: string): string {
  const bytes = encodeByteString(decodePercent(encoded));
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
}
