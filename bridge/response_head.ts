/**
 * The head of a response to the web server: every rule of it. Rules are those of docs/protocols.md.
 *
 * @module
 */

import { CONNECTION_FIELDS, encodeHead } from "../wire/cgi.ts";
import { isBodyDecoded, readNative } from "./buffered_response.ts";
import type { Exchange } from "./exchange.ts";

/** The class as Deno created it: an app or a test may replace the global one. */
const { Response } = globalThis;

/** Fields of the connection to the web server, and one that the head has already (B10). */
const DROPPED = new Set([...CONNECTION_FIELDS, "status"]);
const DEFAULT_TYPE = "application/octet-stream";
/** The type of a response whose body is a string. */
const TEXT_TYPE = "text/plain;charset=UTF-8";
/** Servers reject longer header blocks, each from another length on; nginx's limit is the lowest (B14). */
const HEAD_WARNING = 4096;
const DIGITS = /^\d+$/;

/**
 * Rejects what cannot be sent.
 *
 * @throws {TypeError} If it is no `Response`, or its body was read.
 * @throws {RangeError} If its status is out of range, as that of `Response.error()` is.
 */
export function checkResponse(response: unknown): asserts response is Response {
  if (!(response instanceof Response)) {
    throw new TypeError(
      `Cannot send response as it must be a Response: current value is ${response}`,
    );
  }
  const status = readNative(response, "status");
  if (status < 200 || status > 599) {
    throw new RangeError(
      `Cannot send response as its status must be from 200 to 599: current value is ${status}`,
    );
  }
  if (readNative(response, "bodyUsed")) {
    throw new TypeError(
      "Cannot send response as its body must be unread: it was read or sent already. Return a clone to send it twice",
    );
  }
}

/** Whether a response has no body (B12). */
export function isBodyless(response: Response, { method }: Exchange): boolean {
  const status = readNative(response, "status");
  return method === "HEAD" || status === 204 || status === 205 || status === 304;
}

/**
 * Encodes the head of a response with status 200 that has no fields but its type and length: what
 * {@linkcode encodeResponseHead} returns for it.
 */
export function encodePlainHead(contentType: string | null, length: number): string {
  if (contentType === TEXT_TYPE) {
    return `Status: 200 OK\r\ncontent-type: ${TEXT_TYPE}\r\ncontent-length: ${length}\r\n\r\n`;
  }
  return encodeHead(200, "", [
    ["content-type", contentType ?? DEFAULT_TYPE],
    ["content-length", String(length)],
  ]);
}

/** The length that a response declares for its body, if it is one. */
export function declaredLength(response: Response): number | undefined {
  const text = readNative(response, "headers").get("content-length");
  return text !== null && DIGITS.test(text) && !isBodyDecoded(response) ? Number(text) : undefined;
}

/** The name of an authorizer's variable: `Headers` lowercases it, and mod_fcgid does not restore the capitals. */
function variableField(name: string): string {
  return "Variable-" + name.slice("variable-".length).toUpperCase();
}

/**
 * Encodes the head of a response.
 *
 * @param hasBody Whether the response has a body, and so needs a type.
 * @param known The length of the body, if it is known, whatever the app declares.
 */
export function encodeResponseHead(
  response: Response,
  exchange: Exchange,
  hasBody: boolean,
  known: number | undefined,
): string {
  const status = readNative(response, "status");
  const fields: [string, string][] = [];
  let hasType = false;
  let hasLocation = false;
  let length: string | undefined;
  let decoded = false;
  readNative(response, "headers").forEach((value, name) => {
    if (DROPPED.has(name)) return;
    if (name === "content-encoding" && isBodyDecoded(response)) {
      decoded = true;
      return;
    }
    if (name === "content-length") {
      length = value;
      return;
    }
    if (name === "content-type") hasType = true;
    else if (name === "location") hasLocation = true;
    fields.push([name.startsWith("variable-") ? variableField(name) : name, value]);
  });
  if (decoded) length = undefined;
  if (hasBody && !hasType) fields.push(["content-type", DEFAULT_TYPE]);
  if (status !== 204 && status !== 205 && status !== 304 && known !== undefined) {
    if (length !== undefined && DIGITS.test(length) && Number(length) !== known) {
      exchange.log(
        `Content-Length was ${length}, but the body has ${known} bytes: sent as ${known}`,
      );
    }
    length = String(known);
  }
  if (length !== undefined && DIGITS.test(length) && status !== 204 && status !== 205) {
    fields.push(["content-length", length]);
  }
  if (status === 200 && hasLocation) {
    exchange.log("A response with status 200 has a Location: some servers treat it as a redirect");
  }
  const head = encodeHead(status, readNative(response, "statusText"), fields);
  if (head.length > HEAD_WARNING) {
    exchange.log(
      `The response has ${head.length} bytes of headers: nginx refuses more than its fastcgi_buffer_size, 4096 or 8192`,
    );
  }
  return head;
}
