/**
 * Encodes and decodes the header block of a CGI response (RFC 3875 section 6).
 *
 * @module
 */

import { decodeByteString } from "./byte_string.ts";
import { ProtocolError } from "./protocol_error.ts";

/** Reason phrases (RFC 9110 section 15 and the IANA registry). A status line without one breaks servers (rule B3). */
const REASONS: Record<number, string> = {
  200: "OK",
  201: "Created",
  202: "Accepted",
  203: "Non-Authoritative Information",
  204: "No Content",
  205: "Reset Content",
  206: "Partial Content",
  207: "Multi-Status",
  208: "Already Reported",
  226: "IM Used",
  300: "Multiple Choices",
  301: "Moved Permanently",
  302: "Found",
  303: "See Other",
  304: "Not Modified",
  305: "Use Proxy",
  307: "Temporary Redirect",
  308: "Permanent Redirect",
  400: "Bad Request",
  401: "Unauthorized",
  402: "Payment Required",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  406: "Not Acceptable",
  407: "Proxy Authentication Required",
  408: "Request Timeout",
  409: "Conflict",
  410: "Gone",
  411: "Length Required",
  412: "Precondition Failed",
  413: "Content Too Large",
  414: "URI Too Long",
  415: "Unsupported Media Type",
  416: "Range Not Satisfiable",
  417: "Expectation Failed",
  418: "I'm a teapot",
  421: "Misdirected Request",
  422: "Unprocessable Content",
  423: "Locked",
  424: "Failed Dependency",
  425: "Too Early",
  426: "Upgrade Required",
  428: "Precondition Required",
  429: "Too Many Requests",
  431: "Request Header Fields Too Large",
  451: "Unavailable For Legal Reasons",
  500: "Internal Server Error",
  501: "Not Implemented",
  502: "Bad Gateway",
  503: "Service Unavailable",
  504: "Gateway Timeout",
  505: "HTTP Version Not Supported",
  506: "Variant Also Negotiates",
  507: "Insufficient Storage",
  508: "Loop Detected",
  510: "Not Extended",
  511: "Network Authentication Required",
};

/** Fields that apply to one connection, not to the request or response (RFC 9110 section 7.6.1), in lower case. */
export const CONNECTION_FIELDS: readonly string[] = [
  "connection",
  "keep-alive",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
];

/** A token, such as a field name or a method (RFC 9110 section 5.6.2). */
export const TOKEN: RegExp = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const NOT_A_VALUE = /[^\t\x20-\x7e\x80-\xff]/;
const NOT_A_REASON = /[^\x20-\x7e]/g;
const EMPTY_LINE = /\r?\n\r?\n/;
const EMPTY_LINE_OR_BLOCK = /^\r?\n|\r?\n\r?\n/;

/** Returns the standard reason phrase of a status, or `Unassigned`. */
export function reasonPhrase(status: number): string {
  return REASONS[status] ?? "Unassigned";
}

/** Names that are tokens, as far as they were checked. */
const tokens = new Set<string>();
const MAX_TOKENS = 256;

function isToken(name: string): boolean {
  if (tokens.has(name)) return true;
  if (!TOKEN.test(name)) return false;
  // Bounds the cache: names may be long, or chosen by clients.
  if (tokens.size >= MAX_TOKENS) tokens.clear();
  tokens.add(name);
  return true;
}

/**
 * Encodes a header block as a byte string, with CRLF line ends and the empty line. `Status` is always present, since
 * servers differ on what its absence means (rule B1).
 *
 * @param status The status code; not checked here.
 * @param reason The reason phrase. All but printable ASCII is removed; the standard phrase replaces an empty one.
 * @param fields Names and values, as byte strings, in order.
 * @param first The field that comes first if both are present: some servers replace the status of a `Location` that
 * comes before or after it (rule B1).
 * @throws {TypeError} If a name is not a token, or a value has a control character other than TAB.
 */
export function encodeHead(
  status: number,
  reason: string,
  fields: Iterable<readonly [name: string, value: string]>,
  first: "Status" | "Location" = "Location",
): string {
  const phrase = reason && reason.replace(NOT_A_REASON, "").trim() || reasonPhrase(status);
  let location = "";
  let head = `Status: ${status} ${phrase}\r\n`;
  for (const [name, value] of fields) {
    if (!isToken(name)) {
      throw new TypeError(
        `Cannot encode header as its name must be a token: current value is ${
          JSON.stringify(name)
        }`,
      );
    }
    checkValue(name, value);
    if (first === "Location" && name.length === 8 && name.toLowerCase() === "location") {
      location += `${name}: ${value}\r\n`;
    } else head += `${name}: ${value}\r\n`;
  }
  return location + head + "\r\n";
}

/**
 * Checks the value of a header.
 *
 * @throws {TypeError} If it has a control character other than TAB.
 */
export function checkValue(name: string, value: string): void {
  if (!NOT_A_VALUE.test(value)) return;
  throw new TypeError(
    `Cannot encode header "${name}" as its value must have no control characters: current value is ${
      JSON.stringify(value)
    }`,
  );
}

/** A decoded header block. */
export interface ResponseHead {
  /** The status, or undefined if the block has none. */
  status: number | undefined;
  /** The reason phrase, empty if there is none. */
  reason: string;
  /** All fields except `Status`, as byte strings, in order. */
  fields: [name: string, value: string][];
  /** Lines that are dropped since their names are no tokens, such as `<!--: spam` of Python's cgitb. */
  dropped: string[];
  /** Whether it begins with an HTTP status line: a non-parsed header script wrote it (section 5, rule B21). */
  nonParsed: boolean;
}

/** Decodes the header block of a CGI response from chunks of any size. Lines end in CRLF or LF (rule B13). */
export class HeadDecoder {
  #parts: string[] = [];
  #length = 0;
  /** The last bytes so far. */
  #tail = "";
  #maxBytes: number;

  /** @param maxBytes How many bytes the block may have, the empty line included. */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /**
   * Decodes the next chunk.
   *
   * @returns The head and the first bytes of the body, or null while the block is incomplete.
   * @throws {ProtocolError} If a line is not a header, or the block is longer than allowed (status 502).
   */
  push(chunk: Uint8Array): { head: ResponseHead; rest: Uint8Array } | null {
    const before = this.#length;
    const text = decodeByteString(chunk.subarray(0, this.#maxBytes + 1));
    // The empty line may begin in the chunks before.
    const searched = this.#tail + text;
    const end = (before > 3 ? EMPTY_LINE : EMPTY_LINE_OR_BLOCK).exec(searched);
    const length = end === null
      ? before + text.length
      : before - this.#tail.length + end.index + end[0].length;
    if (length > this.#maxBytes) {
      throw new ProtocolError(
        `Cannot decode response: its header block has more than ${this.#maxBytes} bytes`,
        502,
      );
    }
    this.#parts.push(text);
    this.#length += text.length;
    this.#tail = searched.slice(-3);
    if (end === null) return null;
    return {
      head: decodeHead(this.#parts.join("").slice(0, length)),
      rest: chunk.subarray(length - before),
    };
  }

  /**
   * Reports that the response ended inside the header block.
   *
   * @throws {ProtocolError} Always (status 502).
   */
  end(): never {
    throw new ProtocolError(
      this.#length === 0
        ? "Cannot decode response: it is empty, without a header block"
        : `Cannot decode response as its header block must end with an empty line: it ends after ${
          JSON.stringify(this.#parts.join("").slice(-40))
        }`,
      502,
    );
  }
}

function decodeHead(block: string): ResponseHead {
  const head: ResponseHead = {
    status: undefined,
    reason: "",
    fields: [],
    dropped: [],
    nonParsed: false,
  };
  const lines = block.split(/\r?\n/);
  for (const [index, line] of lines.entries()) {
    if (line === "") continue;
    const statusLine = index === 0 && /^HTTP\/\d\.\d +(\d{3})(?= |$)/.exec(line);
    if (statusLine) {
      head.nonParsed = true;
      head.status = decodeStatus(statusLine[1]);
      head.reason = trimBlanks(line.slice(statusLine[0].length));
      continue;
    }
    const colon = line.indexOf(":");
    const name = line.slice(0, Math.max(colon, 0));
    const value = trimBlanks(line.slice(colon + 1));
    // One that begins with a blank continues the line before.
    if (colon < 0 || isBlank(line.charCodeAt(0)) || NOT_A_VALUE.test(line)) {
      throw new ProtocolError(
        `Cannot decode response as its header line must be "Name: value": current line is ${
          JSON.stringify(line.slice(0, 80))
        }`,
        502,
      );
    }
    if (!isToken(name)) {
      head.dropped.push(line);
      continue;
    }
    if (name.toLowerCase() !== "status") {
      head.fields.push([name, value]);
      continue;
    }
    const text = /^(\d{3})(?=[ \t]|$)/.exec(value)?.[1] ?? value;
    const status = decodeStatus(text);
    if (head.status !== undefined && head.status !== status && !head.nonParsed) {
      throw new ProtocolError(
        `Cannot decode response as it must have one status: it has ${head.status} and ${status}`,
        502,
      );
    }
    head.status = status;
    head.reason = trimBlanks(value.slice(3));
  }
  return head;
}

/** Trims spaces and tabs. A regular expression for the end would take quadratic time. */
function trimBlanks(text: string): string {
  let start = 0;
  let end = text.length;
  while (start < end && isBlank(text.charCodeAt(start))) start++;
  while (end > start && isBlank(text.charCodeAt(end - 1))) end--;
  return text.slice(start, end);
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09;
}

function decodeStatus(text: string): number {
  const status = Number(text);
  if (!/^\d{3}$/.test(text) || status < 200 || status > 599) {
    throw new ProtocolError(
      `Cannot decode response as its status must be a number from 200 to 599: current value is ${
        JSON.stringify(text)
      }`,
      502,
    );
  }
  return status;
}
