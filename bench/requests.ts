/** Encodes requests as a web server sends them. */

import { ByteBuffer } from "../wire/byte_buffer.ts";
import {
  encodeBeginRequest,
  encodePair,
  encodeStream,
  encodeStreamEnd,
  KEEP_CONNECTION,
  RecordType,
  Role,
} from "../wire/fastcgi.ts";
import { encodeSCGIHeaders } from "../wire/scgi.ts";

/** The protocol of a server. */
export type Protocol = "fastcgi" | "scgi" | "http";

/** A request to encode. */
export interface RequestSpec {
  path: string;
  /** Header fields in addition to those of a browser. */
  headers?: [name: string, value: string][];
  /** The length of the body in bytes. */
  body?: number;
  /** Whether the body is a form with one file of that length. */
  form?: boolean;
}

/** A request as bytes: `body` is sent `times` times between `head` and `tail`. */
export interface RequestBytes {
  head: Uint8Array;
  body: Uint8Array;
  times: number;
  tail: Uint8Array;
}

/** The header fields that a browser sends. */
const BROWSER: [name: string, value: string][] = [
  ["host", "localhost:8080"],
  [
    "user-agent",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/146.0 Safari/537.36",
  ],
  [
    "accept",
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
  ],
  ["accept-language", "en-US,en;q=0.5"],
  ["accept-encoding", "gzip, deflate, br, zstd"],
  ["cookie", "session=0123456789abcdef; theme=dark"],
];

/** The length of the records in which nginx sends a body. */
const RECORD = 32768;
const BLOCK = 1 << 20;
const NOTHING = new Uint8Array();

/** Header fields that make twenty with those of a browser, one with three cookies. */
export const MANY_HEADERS: [name: string, value: string][] = [
  ["cookie", "session=0123456789abcdef; theme=dark; consent=1"],
  ...Array.from(
    { length: 14 },
    (_, i): [string, string] => [`x-request-${i + 1}`, `the value of this header is ${i + 1}`],
  ),
];

const BOUNDARY = "----------------------------bench";
const FORM_BEGIN =
  `--${BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\nContent-Type: application/octet-stream\r\n\r\n`;
const FORM_END = `\r\n--${BOUNDARY}--\r\n`;

/** Returns the length and the type of a body. */
function bodyOf({ body = 0, form }: RequestSpec): { length: number; type: string } {
  return form
    ? {
      length: FORM_BEGIN.length + body + FORM_END.length,
      type: `multipart/form-data; boundary=${BOUNDARY}`,
    }
    : { length: body, type: "application/octet-stream" };
}

function fieldsOf(spec: RequestSpec): [name: string, value: string][] {
  return [...new Map([...BROWSER, ...(spec.headers ?? [])])];
}

/** Returns the variables of a request: those of nginx's fastcgi_params, and its header fields. */
export function variablesOf(
  spec: RequestSpec,
  script = "/srv/app",
): [name: string, value: string][] {
  const { path } = spec;
  const { length, type } = bodyOf(spec);
  const [name, query = ""] = path.split("?");
  return [
    ["CONTENT_LENGTH", length > 0 ? String(length) : ""],
    ["QUERY_STRING", query],
    ["REQUEST_METHOD", length > 0 ? "POST" : "GET"],
    ["CONTENT_TYPE", length > 0 ? type : ""],
    ["SCRIPT_FILENAME", script],
    ["SCRIPT_NAME", name],
    ["REQUEST_URI", path],
    ["DOCUMENT_URI", name],
    ["DOCUMENT_ROOT", "/usr/share/nginx/html"],
    ["SERVER_PROTOCOL", "HTTP/1.1"],
    ["REQUEST_SCHEME", "http"],
    ["GATEWAY_INTERFACE", "CGI/1.1"],
    ["SERVER_SOFTWARE", "nginx/1.28.0"],
    ["REMOTE_ADDR", "127.0.0.1"],
    ["REMOTE_PORT", "51234"],
    ["SERVER_ADDR", "127.0.0.1"],
    ["SERVER_PORT", "8080"],
    ["SERVER_NAME", "localhost"],
    ["REDIRECT_STATUS", "200"],
    ...fieldsOf(spec).map(([name, value]): [string, string] => [
      `HTTP_${name.toUpperCase().replaceAll("-", "_")}`,
      value,
    ]),
  ];
}

/**
 * Encodes a request.
 *
 * @param keep Whether the connection stays open for more requests.
 * @param script SCRIPT_FILENAME, which PHP runs.
 */
export function encodeRequest(
  protocol: Protocol,
  spec: RequestSpec,
  keep: boolean,
  script?: string,
): RequestBytes {
  const { length } = bodyOf(spec);
  const block = new Uint8Array(spec.form ? length : Math.min(length, BLOCK)).fill(0x78);
  if (spec.form) {
    const encoder = new TextEncoder();
    encoder.encodeInto(FORM_BEGIN, block);
    encoder.encodeInto(FORM_END, block.subarray(length - FORM_END.length));
  }
  const times = spec.form ? 1 : Math.max(length / BLOCK, 1);
  switch (protocol) {
    case "fastcgi":
      return { times, ...encodeFastCGI(variablesOf(spec, script), block, keep) };
    case "scgi":
      return {
        head: encodeSCGIHeaders([
          ["CONTENT_LENGTH", String(length)],
          ["SCGI", "1"],
          ...variablesOf(spec, script).slice(1),
        ]),
        body: block,
        times,
        tail: NOTHING,
      };
    case "http":
      return { head: encodeHTTPHead(spec, keep), body: block, times, tail: NOTHING };
  }
}

function encodeFastCGI(
  variables: [name: string, value: string][],
  block: Uint8Array,
  keep: boolean,
): Omit<RequestBytes, "times"> {
  const buffer = new ByteBuffer();
  const take = () => buffer.take().slice();
  for (const [name, value] of variables) encodePair(buffer, name, value);
  const params = take();
  encodeBeginRequest(buffer, 1, Role.responder, keep ? KEEP_CONNECTION : 0);
  encodeStream(buffer, RecordType.params, 1, params);
  encodeStreamEnd(buffer, RecordType.params, 1);
  const head = take();
  for (let at = 0; at < block.length; at += RECORD) {
    encodeStream(buffer, RecordType.stdin, 1, block.subarray(at, at + RECORD));
  }
  const body = take();
  encodeStreamEnd(buffer, RecordType.stdin, 1);
  return { head, body, tail: take() };
}

function encodeHTTPHead(spec: RequestSpec, keep: boolean): Uint8Array {
  const { path } = spec;
  const { length, type } = bodyOf(spec);
  let head = `${length > 0 ? "POST" : "GET"} ${path} HTTP/1.1\r\n`;
  for (const [name, value] of fieldsOf(spec)) head += `${name}: ${value}\r\n`;
  if (length > 0) head += `content-type: ${type}\r\ncontent-length: ${length}\r\n`;
  if (!keep) head += "connection: close\r\n";
  return new TextEncoder().encode(head + "\r\n");
}
