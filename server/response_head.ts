/**
 * The head of a response to the web server, with all of its rules. Rules are those of docs/protocols.md.
 *
 * @module
 */

import { checkValue, CONNECTION_FIELDS, encodeHead } from "../wire/cgi.ts";
import { cancelSoon } from "../io/cancel_soon.ts";
import { describeValue } from "../io/describe.ts";
import { bufferedResponse, fieldList, isBodyDecoded, readNative } from "../io/private_fields.ts";
import type { Exchange } from "./exchange.ts";
import { serverQuirks } from "../bridge/server_quirks.ts";

/** Deno's own class: an app or a test may replace the global one. */
const { Response } = globalThis;

/** Fields that are removed: those of the connection, and `Status`, which the head has already (B10). */
const DROPPED = new Set([...CONNECTION_FIELDS, "status"]);
/** The type of a body without one, which browsers save as a file, and that of a text, which they show (B7). */
const UNKNOWN_TYPE = "application/octet-stream";
const SHOWN_TYPE = "text/plain; charset=utf-8";
/** The type that `Response` gives to a string body. */
const TEXT_TYPE = "text/plain;charset=UTF-8";
/** The length beyond which a header block is logged: servers reject long ones, nginx at the lowest limit (B14). */
const HEAD_WARNING = 4096;
const DIGITS = /^\d+$/;
/** Control characters that do not occur in text: all but tab, line feed, form feed and carriage return. */
// deno-lint-ignore no-control-regex
const CONTROL = /[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]/;
const strictDecoder = new TextDecoder("utf-8", { fatal: true });

/**
 * Rejects a response that cannot be sent.
 *
 * @throws {TypeError} If it is not a `Response`, or its body was read.
 * @throws {RangeError} If its status is not from 200 to 599, as that of `Response.error()` (B4).
 */
export function checkResponse(response: unknown): asserts response is Response {
  if (!(response instanceof Response)) {
    throw new TypeError(
      `Cannot send response as it must be a Response: current value is ${describeValue(response)}`,
    );
  }
  const status = statusOf(response);
  if (status < 200 || status > 599) {
    throw new RangeError(
      `Cannot send response as its status must be from 200 to 599: current value is ${status}`,
    );
  }
  if (readNative(response, "bodyUsed")) {
    throw new TypeError(
      "Cannot send response: its body was read or sent already. Return a clone to send it twice",
    );
  }
}

/** @throws {TypeError} If the response is of a class that only inherits from Deno's, as srvx has for Node. */
function statusOf(response: Response): number {
  try {
    return readNative(response, "status");
  } catch (cause) {
    throw new TypeError(
      `Cannot send response as it must be a Response of Deno: current value is of the class ${
        describeValue(response.constructor?.name)
      }. Return new Response(response.body, response)`,
      { cause },
    );
  }
}

/**
 * Rejects a response with a header that cannot be sent, and cancels its body. For HTTP: {@linkcode encodeHead} does the
 * same for other transports.
 *
 * @throws {TypeError} If a value has a control character other than TAB (B9).
 */
export function checkHeaders(response: Response): void {
  // Reading the headers would make the response of most apps slower.
  const type = bufferedResponse(response)?.contentType;
  if (type === TEXT_TYPE || type === null) return;
  try {
    if (type !== undefined) checkValue("content-type", type);
    else readNative(response, "headers").forEach((value, name) => checkValue(name, value));
  } catch (error) {
    const body = readNative(response, "body");
    if (body !== null) cancelSoon(body, error);
    throw error;
  }
}

/** Returns whether a response with a status is sent without a body (B12). */
export function isBodyless(status: number, { method }: Exchange): boolean {
  return method === "HEAD" || status === 204 || status === 205 || status === 304;
}

/**
 * Encodes the head of a response with status 200 and no fields but type and length. Returns the same as
 * {@linkcode encodeResponseHead}, faster.
 *
 * @param body As bytes, or as an ASCII text.
 */
export function encodePlainHead(contentType: string | null, body: Uint8Array | string): string {
  const { length } = body;
  if (contentType === TEXT_TYPE) {
    return `Status: 200 OK\r\nContent-Type: ${TEXT_TYPE}\r\nContent-Length: ${length}\r\n\r\n`;
  }
  return encodeHead(200, "", [
    ["Content-Type", contentType ?? typeOf(body)],
    ["Content-Length", String(length)],
  ]);
}

/**
 * Returns the type of a body that has none (B7).
 *
 * @param body All of it, as bytes or as an ASCII text; undefined if it is not in memory.
 */
function typeOf(body: Uint8Array | string | undefined): string {
  return body !== undefined && isText(body) ? SHOWN_TYPE : UNKNOWN_TYPE;
}

/** Returns whether a body is valid UTF-8 without control characters. */
function isText(body: Uint8Array | string): boolean {
  if (typeof body === "string") return !CONTROL.test(body);
  // Four bytes at a time, but for the last ones.
  const isLong = body.length >= 64 && body.byteOffset % 4 === 0;
  const words = new Int32Array(body.buffer, body.byteOffset & ~3, isLong ? body.length >> 2 : 0);
  let isASCII = true;
  for (let i = 0; i < words.length; i++) {
    const word = words[i];
    // A byte outside of 0x20 to 0x7e sets its highest bit in one of the three terms.
    if (((word - 0x20202020 | word + 0x01010101 | word) & 0x80808080) === 0) continue;
    const kind = kindOf(body, 4 * i, 4 * i + 4);
    if (kind === "control") return false;
    isASCII &&= kind === "ASCII";
  }
  const kind = kindOf(body, 4 * words.length, body.length);
  if (kind === "control") return false;
  if (isASCII && kind === "ASCII") return true;
  try {
    return !CONTROL.test(strictDecoder.decode(body));
  } catch {
    return false;
  }
}

/** Returns the kind of some bytes. */
function kindOf(body: Uint8Array, from: number, to: number): "ASCII" | "control" | "other" {
  let kind: "ASCII" | "other" = "ASCII";
  for (let at = from; at < to; at++) {
    const byte = body[at];
    if (byte < 0x20 ? byte < 0x09 || byte > 0x0d || byte === 0x0b : byte === 0x7f) return "control";
    if (byte > 0x7f) kind = "other";
  }
  return kind;
}

/** Returns the length that a response declares for its body; undefined if it is absent, invalid, or that of an encoded body. */
export function declaredLength(response: Response): number | undefined {
  const text = readNative(response, "headers").get("content-length");
  return text !== null && DIGITS.test(text) && !isBodyDecoded(response) ? Number(text) : undefined;
}

/** How a field of a name is sent. */
interface FieldKind {
  /** The name in lower case. */
  name: string;
  /** The name as servers need it. */
  sent: string;
  /** Whether it is removed. */
  dropped: boolean;
}

/** A cache of {@linkcode fieldKind}: apps use few names. */
const kinds = new Map<string, FieldKind>();
const MAX_KINDS = 256;

/** Returns how a field is sent. @param name In lower case. */
function fieldKind(name: string): FieldKind {
  let kind = kinds.get(name);
  if (kind === undefined) {
    kind = { name, sent: sentName(name), dropped: DROPPED.has(name) };
    // Bounds the cache: an app may pass on names that clients choose.
    if (kinds.size >= MAX_KINDS) kinds.clear();
    kinds.set(name, kind);
  }
  return kind;
}

/**
 * Returns a field's name as servers need it. Yaws recognizes those of CGI in their own spelling only (B7), and mod_fcgid
 * does not change those of an authorizer (C28).
 */
function sentName(name: string): string {
  if (name === "content-type") return "Content-Type";
  if (name === "location") return "Location";
  return name.startsWith("variable-")
    ? "Variable-" + name.slice("variable-".length).toUpperCase()
    : name;
}

/** Up to this many fields, comparing each with each is faster than sorting them. */
const FEW = 64;

/**
 * Returns the fields of headers. Those of one name are joined, except for cookies. They are in the order in which
 * the app has added them, as sorting costs more than the rest; many are sorted.
 */
function fieldsOf(headers: Headers): [kind: FieldKind, value: string][] {
  const list = fieldList(headers);
  const fields: [kind: FieldKind, value: string][] = [];
  if (list === undefined || list.length > FEW) {
    headers.forEach((value, name) => fields.push([fieldKind(name), value]));
    return fields;
  }
  for (const [given, value] of list) {
    const kind = fieldKind(given.toLowerCase());
    const same = kind.name === "set-cookie"
      ? undefined
      : fields.find(([{ name }]) => name === kind.name);
    if (same === undefined) fields.push([kind, value]);
    else same[1] = same[1] === "" ? value : `${same[1]}, ${value}`;
  }
  return fields;
}

/**
 * Encodes the head of a response.
 *
 * @param hasBody Whether the app's response has a body, and so needs a type.
 * @param known The length of the body, if it is known. Replaces the length that the app declares (B11).
 * @param body All of the body, as bytes or as an ASCII text, if it is in memory.
 */
export function encodeResponseHead(
  response: Response,
  exchange: Exchange,
  hasBody: boolean,
  known: number | undefined,
  body?: Uint8Array | string,
): string {
  const status = readNative(response, "status");
  const fields: [string, string][] = [];
  let hasType = false;
  let hasLocation = false;
  let length: string | undefined;
  let decoded = false;
  for (const [{ name, sent, dropped }, value] of fieldsOf(readNative(response, "headers"))) {
    if (dropped) continue;
    if (name === "content-encoding" && isBodyDecoded(response)) {
      decoded = true;
      continue;
    }
    if (name === "content-length") {
      length = value;
      continue;
    }
    if (name === "content-type") hasType = true;
    else if (name === "location") hasLocation = true;
    fields.push([sent, value]);
  }
  if (decoded) length = undefined;
  const redirects = hasLocation && status >= 300 && status < 400;
  if (hasBody && !hasType && !redirects) fields.push(["Content-Type", typeOf(body)]);
  // The body of HEAD may be absent, so that only the app can know the length that GET would have (B12).
  const counts = known !== undefined && !(known === 0 && exchange.method === "HEAD");
  if (status !== 204 && status !== 205 && status !== 304 && counts) {
    if (length !== undefined && DIGITS.test(length) && Number(length) !== known) {
      exchange.log(
        `Content-Length was ${length}, but the body has ${known} bytes: sent as ${known}`,
      );
    }
    length = String(known);
  }
  if (length !== undefined && DIGITS.test(length) && status !== 204 && status !== 205) {
    fields.push(["Content-Length", length]);
  }
  if (status === 200 && hasLocation) {
    exchange.log("A response with status 200 has a Location: some servers treat it as a redirect");
  }
  const first = hasLocation && exchange.protocol === "cgi" &&
      !serverQuirks(exchange.variables).needsLocationFirst
    ? "Status"
    : "Location";
  const head = encodeHead(status, readNative(response, "statusText"), fields, first);
  if (head.length > HEAD_WARNING) {
    exchange.log(
      `The response has ${head.length} bytes of headers: nginx rejects more than its fastcgi_buffer_size, 4096 or 8192`,
    );
  }
  return head;
}
