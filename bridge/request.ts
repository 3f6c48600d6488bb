/**
 * CGI meta-variables -> `Request`. Rules are those of docs/protocols.md.
 *
 * @module
 */

import { ProtocolError } from "../wire/protocol_error.ts";
import { encodeByteString } from "../wire/byte_string.ts";
import { CONNECTION_FIELDS, TOKEN } from "../wire/cgi.ts";
import type { Variables } from "../wire/variables.ts";
import type { AppOptions, Protocol } from "./app.ts";

/** Methods that no `Request` can have (A5). */
export const NO_REQUEST: RegExp = /^(?:CONNECT|TRACE|TRACK)$/i;
/** Methods that fetch writes in capitals; of others the case is kept. */
const CAPITALS = /^(?:DELETE|GET|HEAD|OPTIONS|POST|PUT)$/i;
const AUTHORITY = /^(?:[\w.~!$&'()*+,;=%-]+|\[[0-9a-f:.]+\])(?::\d{0,5})?$/i;
/**
 * Fields that no `HTTP_*` variable tells of: those of the connection (A23), those that have variables of their own (A25),
 * and one that harms (A27).
 */
export const NO_VARIABLE: ReadonlySet<string> = new Set([
  ...CONNECTION_FIELDS,
  "content-length",
  "content-type",
  "proxy",
]);

/**
 * Reads the request's method (A2, A5).
 *
 * @throws {ProtocolError} If there is none (status 500), if it is no token (400), or no `Request` can have it (501).
 */
export function requestMethod(variables: Variables): string {
  const method = variables.byteString("REQUEST_METHOD");
  if (method === undefined) {
    throw new ProtocolError(
      "Cannot create request as REQUEST_METHOD must be set: it is absent. " +
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

/** Reads the declared body length, or undefined where none is (A19). */
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

/** Whether the client spoke TLS to the web server (A7). */
function isSecure(variables: Variables, options: AppOptions): boolean {
  if (options.trustForwarded) {
    const forwarded = variables.byteString("HTTP_X_FORWARDED_PROTO");
    if (forwarded !== undefined) return /^\s*https\s*(?:,|$)/i.test(forwarded);
  }
  const https = variables.byteString("HTTPS");
  if (https !== undefined && !/^(?:off|0)$/i.test(https)) return true;
  return variables.byteString("REQUEST_SCHEME")?.toLowerCase() === "https";
}

/** Whether a Host field is a host with perhaps a port, and nothing that changes the URL around it. */
export function isAuthority(host: string): boolean {
  return AUTHORITY.test(host) && URL.canParse(`http://${host}/`);
}

/** The URL's scheme and authority (A7 to A9). */
function requestOrigin(variables: Variables, options: AppOptions): string {
  const scheme = isSecure(variables, options) ? "https" : "http";
  const forwarded = options.trustForwarded
    ? variables.byteString("HTTP_X_FORWARDED_HOST")?.split(",")[0].trim()
    : undefined;
  const host = forwarded || variables.byteString("HTTP_HOST");
  const authority = host ?? serverAuthority(variables, scheme);
  if (!isAuthority(authority)) {
    throw new ProtocolError(
      `Cannot create request as its host must be a valid one: current value is ${
        JSON.stringify(authority)
      }`,
    );
  }
  return `${scheme}://${authority}`;
}

/** The authority of a request without a Host field: SERVER_NAME is the server's own word, and may be a placeholder. */
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

/** Path and query as they stand in the URL (A10 to A13). */
function requestTarget(variables: Variables): string {
  const uri = variables.byteString("REQUEST_URI");
  if (uri === undefined) {
    const path = encodePath(
      (variables.byteString("SCRIPT_NAME") ?? "") + (variables.byteString("PATH_INFO") ?? ""),
    );
    const query = variables.byteString("QUERY_STRING");
    return (path.startsWith("/") ? path : "/" + path) +
      (query === undefined ? "" : "?" + encodeUnsafe(query));
  }
  if (uri.startsWith("/")) return encodeUnsafe(uri);
  const absolute = /^[a-z][a-z0-9+.-]*:\/\/[^/?#]*(.*)$/is.exec(uri);
  if (absolute === null) {
    throw new ProtocolError(
      `Cannot create request as REQUEST_URI must be a path or an absolute URL: current value is ${
        JSON.stringify(uri)
      }`,
    );
  }
  return encodeUnsafe(absolute[1].startsWith("/") ? absolute[1] : "/" + absolute[1]);
}

/** Encodes what `URL` would drop or read as something else, so that nothing sent is lost (A12). */
function encodeUnsafe(text: string): string {
  return text.replace(/[^!$-;=?-[\]_a-z~]/g, percent);
}

/** Encodes a decoded path, byte by byte (A13). */
function encodePath(text: string): string {
  return text.replace(/[^\w.~!$&'()*+,:@/-]/g, percent);
}

function percent(char: string): string {
  return "%" + char.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0");
}

/** Decodes percent-encoding into a byte string. */
export function decodePercent(text: string): string {
  return text.replace(
    /%([0-9a-f]{2})/gi,
    (_, hex: string) => String.fromCharCode(parseInt(hex, 16)),
  );
}

/**
 * Finds the part of the path that SCRIPT_NAME names (A17): only where the decoded path begins with it at a segment's
 * boundary and PATH_INFO is the rest. A FastCGI or SCGI server that does not split the path sends all of it as
 * SCRIPT_NAME; then, without PATH_INFO, it counts only if SCRIPT_FILENAME is the running program.
 *
 * @param path The URL's path, encoded.
 * @param program The file of the running program, if it is one.
 */
export function mountPrefix(
  variables: Variables,
  path: string,
  protocol: Protocol,
  program: string | undefined,
): string {
  const script = trimSlashes(variables.byteString("SCRIPT_NAME") ?? "");
  if (script === "") return "";
  const info = variables.byteString("PATH_INFO");
  const prefix = encodedPrefix(path, script);
  if (prefix === undefined) return "";
  const rest = path.slice(prefix.length);
  if (rest !== "" && !decodePercent(rest).startsWith("/")) return "";
  if (protocol === "cgi" && info === undefined) return prefix;
  if (info === undefined && !namesProgram(variables, program)) return "";
  return samePath(rest, info ?? "") ? prefix : "";
}

/** Whether SCRIPT_FILENAME is the running program: not where it is absent, or the program is no file. */
function namesProgram(variables: Variables, program: string | undefined): boolean {
  return program !== undefined && variables.byteString("SCRIPT_FILENAME") === program;
}

/** Trims slashes at the end. A regular expression would take quadratic time. */
function trimSlashes(path: string): string {
  let end = path.length;
  while (end > 0 && path[end - 1] === "/") end--;
  return path.slice(0, end);
}

/**
 * Servers merge slashes and resolve dots in PATH_INFO, each in its own way (A14), and Apache may leave an encoded slash
 * as it is (A15): what they agree on counts.
 *
 * @param rest The end of the URL's path, encoded.
 */
function samePath(rest: string, info: string): boolean {
  return [rest, rest.replace(/%(?=2f)/gi, "%25")].map(decodePercent)
    .some((path) => path === info || path.replace(/\/{2,}/g, "/") === info);
}

/** The shortest part of an encoded path that decodes to `decoded`. */
function encodedPrefix(path: string, decoded: string): string | undefined {
  let at = 0;
  for (const char of decoded) {
    if (path[at] === "%" && decodePercent(path.slice(at, at + 3)) === char) at += 3;
    else if (path[at] === char) at++;
    else return undefined;
  }
  return path.slice(0, at);
}

/** A target that `URL` leaves as it is: nothing to encode, no dots to resolve. */
const PLAIN_TARGET = /^\/[\w~!$&()*+,;=:@/%.-]*(?:\?[\w~!$&()*+,;=:@/%.?-]*)?$/;
const DOT_SEGMENT = /\/(?:\.|%2e)/i;
/** A host that `URL` leaves as it is: no address, no Punycode, no port that may be the scheme's own. */
const PLAIN_HOST = /^(?:(?!xn--)[a-z][a-z0-9-]*\.)*(?!xn--)[a-z][a-z0-9-]*(?::[1-9]\d{3})?$/;
/** The last Host that was asked for, and its origin: usually the next one as well. */
const lastHost = { secure: false, host: "", origin: "" };

/**
 * The URL of an ordinary request, without parsing it: the same as {@linkcode requestURL}'s.
 *
 * @returns The URL, or undefined if it is not ordinary.
 */
export function requestHref(variables: Variables, options: AppOptions): string | undefined {
  if (options.basePath !== undefined || options.trustForwarded) return undefined;
  const target = variables.byteString("REQUEST_URI");
  const host = variables.byteString("HTTP_HOST");
  if (target === undefined || host === undefined) return undefined;
  if (!PLAIN_TARGET.test(target) || DOT_SEGMENT.test(target)) return undefined;
  const secure = isSecure(variables, options);
  if (host !== lastHost.host || secure !== lastHost.secure) {
    lastHost.origin = PLAIN_HOST.test(host)
      ? `${secure ? "https" : "http"}://${host}`
      : new URL(requestOrigin(variables, options)).origin;
    lastHost.host = host;
    lastHost.secure = secure;
  }
  return lastHost.origin + target;
}

/** The URL of a request as the app sees it, and how its path was split. */
export interface RequestURL {
  /** The normalized URL, less the mount prefix if the options say so. */
  href: string;
  /** The mount prefix, encoded as in the URL. */
  prefix: string;
  /** The rest of the path, encoded. */
  rest: string;
}

/**
 * Builds the URL (A7 to A17).
 *
 * @throws {ProtocolError} If the host or the target is invalid.
 */
export function requestURL(
  variables: Variables,
  options: AppOptions,
  protocol: Protocol,
  program: string | undefined,
): RequestURL {
  // By concatenation: as the base of a URL, "//evil.example/x" would be another host.
  const url = new URL(requestOrigin(variables, options) + requestTarget(variables));
  const base = options.basePath;
  let prefix: string;
  if (base !== undefined && base !== "auto") {
    const path = trimSlashes(base);
    prefix = url.pathname === path || url.pathname.startsWith(path + "/") ? path : "";
  } else {
    prefix = mountPrefix(variables, url.pathname, protocol, program);
  }
  const rest = url.pathname.slice(prefix.length);
  if (base === undefined || prefix === "") return { href: url.href, prefix, rest };
  return { href: url.origin + (rest || "/") + url.search, prefix, rest };
}

/** Of which variable's name which field's is made, null for none; filled as they come. */
const fieldNames = new Map<string, string | null>();
const MOST_FIELD_NAMES = 256;

/** The field that a variable tells of, or null (A23, A24). */
function fieldName(variable: string): string | null {
  let name = fieldNames.get(variable);
  if (name === undefined) {
    const field = variable.slice(5).replaceAll("_", "-").toLowerCase();
    name = TOKEN.test(field) && !NO_VARIABLE.has(field) ? field : null;
    if (fieldNames.size < MOST_FIELD_NAMES) fieldNames.set(variable, name);
  }
  return name;
}

/**
 * Turns header variables into headers (A23 to A28).
 *
 * @throws {ProtocolError} If a value has NUL, CR or LF.
 */
export function requestHeaders(variables: Variables, options: AppOptions): Headers {
  const headers = new Headers();
  let host: string | undefined;
  let cookie: string | undefined;
  const append = (name: string, value: string | undefined) => {
    if (value !== undefined) appendHeader(headers, name, value);
  };
  variables.forEachPair((variable, value) => {
    const name = fieldName(variable);
    // Of names that come twice, headers join all values with commas but these.
    if (name === "host") host = value;
    else if (name === "cookie") cookie = cookie === undefined ? value : `${cookie}; ${value}`;
    else if (name !== null) appendHeader(headers, name, value);
  }, "HTTP_");
  append("host", host);
  append("cookie", cookie);
  if (!isInvented(variables)) append("content-type", variables.byteString("CONTENT_TYPE"));
  const length = contentLength(variables);
  if (length !== undefined && !isFiller(length, variables)) {
    headers.append("content-length", String(length));
  }
  if (options.redirectAuthorization && !variables.byteString("HTTP_AUTHORIZATION")) {
    append("authorization", variables.byteString("REDIRECT_HTTP_AUTHORIZATION"));
  }
  return headers;
}

/** The field of `Headers` that says who may change them; undefined if this version of Deno has none of that name. */
let guard: symbol | undefined;

/**
 * Makes headers immutable, as those of a request from `Deno.serve` are. Sets a private field, as no public function does
 * this.
 *
 * @param headers The headers.
 * @returns Whether this version of Deno has that field; if not, the headers stay as they are.
 */
export function makeImmutable(headers: Headers): boolean {
  guard ??= Object.getOwnPropertySymbols(headers).find(({ description }) =>
    description === "guard"
  );
  return guard !== undefined && Reflect.set(headers, guard, "immutable");
}

function appendHeader(headers: Headers, name: string, value: string): void {
  try {
    headers.append(name, value);
  } catch {
    throw new ProtocolError(
      `Cannot create request as the value of header "${name}" must have no NUL, CR or LF: it has one`,
    );
  }
}

/** SCGI demands a length, and lighttpd always sends one: with these methods the client sent none. */
function isFiller(length: number, variables: Variables): boolean {
  return length === 0 && /^(?:GET|HEAD)$/i.test(variables.byteString("REQUEST_METHOD") ?? "");
}

/** Caddy makes up a form's type where the client sent none (A25). */
function isInvented(variables: Variables): boolean {
  return variables.byteString("SERVER_SOFTWARE")?.startsWith("Caddy") === true &&
    variables.byteString("HTTP_CONTENT_TYPE") === undefined;
}

/** The client's address (A30). */
export function remoteAddress(variables: Variables, options: AppOptions): Deno.NetAddr {
  let hostname = variables.byteString("REMOTE_ADDR") ?? "";
  let port = Number(variables.byteString("REMOTE_PORT"));
  if (options.trustForwarded) {
    const forwarded = variables.byteString("HTTP_X_FORWARDED_FOR")?.split(",").at(-1)?.trim();
    if (forwarded) {
      hostname = forwarded.replace(/^\[(.*)\]$/, "$1");
      port = 0;
    }
  }
  return { transport: "tcp", hostname, port: Number.isInteger(port) ? port : 0 };
}

/** The text of a decoded path. */
export function decodePath(encoded: string): string {
  const bytes = encodeByteString(decodePercent(encoded));
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
}
