/**
 * Encodes and decodes FastCGI 1.0 records and name-value pairs, for both sides of the protocol. Section numbers refer
 * to the FastCGI specification.
 *
 * @module
 */

import { ByteBuffer } from "./byte_buffer.ts";
import { decodeByteString } from "./byte_string.ts";
import { ProtocolError } from "./protocol_error.ts";
import { Variables } from "./variables.ts";

/** Record types (section 8). */
export const RecordType = {
  beginRequest: 1,
  abortRequest: 2,
  endRequest: 3,
  params: 4,
  stdin: 5,
  stdout: 6,
  stderr: 7,
  data: 8,
  getValues: 9,
  getValuesResult: 10,
  unknownType: 11,
} as const;

/** Roles of an application, one of which each request names (section 6). */
export const Role = { responder: 1, authorizer: 2, filter: 3 } as const;

/** The protocol status of FCGI_END_REQUEST (section 5.5). */
export const ProtocolStatus = {
  requestComplete: 0,
  cantMultiplex: 1,
  overloaded: 2,
  unknownRole: 3,
} as const;

/** The flag of FCGI_BEGIN_REQUEST that keeps the connection open after the response (section 5.1). */
export const KEEP_CONNECTION = 1;

const VERSION = 1;
const HEADER_LENGTH = 8;
const MAX_RECORD_CONTENT = 65528;
const EMPTY = new Uint8Array(0);

/** Receives decoded records. */
export interface RecordSink {
  /**
   * Called for each record or part of one. A stream record is passed on in parts as it arrives, and empty content
   * ends the stream. Other known types are passed on whole. Records of unknown types are passed on without content.
   *
   * @param content A view of the pushed chunk, or a copy.
   */
  record(type: number, requestId: number, content: Uint8Array): void;
}

/** Returns whether a type is a stream: cut into records anywhere, and ended by an empty record (section 3.3). */
function isStream(type: number): boolean {
  return type >= RecordType.params && type <= RecordType.data;
}

/** Decodes records from chunks of any size (section 3.3). */
export class RecordDecoder {
  /** A header that is cut across chunks. */
  #header: Uint8Array = EMPTY;
  #headerLength = 0;
  #type = 0;
  #requestId = 0;
  #contentLeft = 0;
  #paddingLeft = 0;
  /** The content so far of a record that is passed on whole. */
  #partial: Uint8Array | null = null;
  #partialLength = 0;

  /** Whether the decoder is between records. */
  get idle(): boolean {
    return this.#headerLength === 0;
  }

  /**
   * Decodes the next chunk.
   *
   * @throws {ProtocolError} If the version is not 1.
   */
  push(chunk: Uint8Array, sink: RecordSink): void {
    let at = 0;
    const end = chunk.length;
    while (at < end) {
      if (this.#headerLength < HEADER_LENGTH) {
        at = this.#pushHeader(chunk, at);
        if (this.#headerLength < HEADER_LENGTH) return;
        if (this.#contentLeft === 0) {
          // An empty stream record ends its stream.
          sink.record(this.#type, this.#requestId, EMPTY);
          if (this.#paddingLeft === 0) this.#headerLength = 0;
          continue;
        }
        // Without this, empty content would end the stream.
        if (at === end) return;
      }
      if (this.#contentLeft > 0) {
        const taken = Math.min(this.#contentLeft, end - at);
        this.#contentLeft -= taken;
        this.#pushContent(chunk.subarray(at, at + taken), sink);
        at += taken;
        if (this.#contentLeft > 0) return;
      }
      const skipped = Math.min(this.#paddingLeft, end - at);
      this.#paddingLeft -= skipped;
      at += skipped;
      if (this.#paddingLeft === 0) this.#headerLength = 0;
    }
  }

  #pushHeader(chunk: Uint8Array, start: number): number {
    let at = start;
    let header = chunk;
    let from = at;
    if (this.#headerLength > 0 || chunk.length - at < HEADER_LENGTH) {
      if (this.#header === EMPTY) this.#header = new Uint8Array(HEADER_LENGTH);
      while (this.#headerLength < HEADER_LENGTH && at < chunk.length) {
        this.#header[this.#headerLength++] = chunk[at++];
      }
      checkVersion(this.#header[0]);
      if (this.#headerLength < HEADER_LENGTH) return at;
      header = this.#header;
      from = 0;
    } else {
      checkVersion(chunk[at]);
      at += HEADER_LENGTH;
      this.#headerLength = HEADER_LENGTH;
    }
    this.#type = header[from + 1];
    this.#requestId = header[from + 2] << 8 | header[from + 3];
    this.#contentLeft = header[from + 4] << 8 | header[from + 5];
    this.#paddingLeft = header[from + 6];
    return at;
  }

  #pushContent(content: Uint8Array, sink: RecordSink): void {
    const type = this.#type;
    if (isStream(type)) return sink.record(type, this.#requestId, content);
    const whole = this.#contentLeft === 0;
    if (type < RecordType.beginRequest || type > RecordType.unknownType) {
      if (whole) sink.record(type, this.#requestId, EMPTY);
      return;
    }
    if (this.#partial === null) {
      if (whole) return sink.record(type, this.#requestId, content);
      this.#partial = new Uint8Array(content.length + this.#contentLeft);
      this.#partialLength = 0;
    }
    this.#partial.set(content, this.#partialLength);
    this.#partialLength += content.length;
    if (!whole) return;
    const record = this.#partial;
    this.#partial = null;
    sink.record(type, this.#requestId, record);
  }
}

function checkVersion(version: number): void {
  if (version !== VERSION) {
    throw new ProtocolError(
      `Cannot decode FastCGI record as version must be ${VERSION}: current value is ${version}`,
    );
  }
}

/** Returns whether bytes begin as an HTTP request does: with a method in capitals and a space. */
export function isHTTP(bytes: Uint8Array): boolean {
  const space = bytes.indexOf(0x20);
  return space > 0 && bytes.subarray(0, space).every((byte) => byte >= 0x41 && byte <= 0x5a);
}

/** Returns how many bytes pad a record to a multiple of 8, as section 3.3 recommends. */
function paddingOf(length: number): number {
  return -length & 7;
}

/**
 * Appends a record's header, room for its content, and its padding (section 3.3). Clears the padding, as the storage
 * may contain bytes of other requests.
 *
 * @returns The offset of the content.
 */
function beginRecord(out: ByteBuffer, type: number, requestId: number, length: number): number {
  const padding = paddingOf(length);
  const at = out.reserve(HEADER_LENGTH + length + padding);
  const bytes = out.bytes;
  bytes[at] = VERSION;
  bytes[at + 1] = type;
  bytes[at + 2] = requestId >> 8;
  bytes[at + 3] = requestId;
  bytes[at + 4] = length >> 8;
  bytes[at + 5] = length;
  bytes[at + 6] = padding;
  bytes[at + 7] = 0;
  for (let i = out.length - padding; i < out.length; i++) bytes[i] = 0;
  return at + HEADER_LENGTH;
}

/** Appends stream content, in as many records as it needs. Empty content needs none. */
export function encodeStream(
  out: ByteBuffer,
  type: number,
  requestId: number,
  content: Uint8Array,
): void {
  for (let at = 0; at < content.length; at += MAX_RECORD_CONTENT) {
    const part = content.length - at > MAX_RECORD_CONTENT || at > 0
      ? content.subarray(at, at + MAX_RECORD_CONTENT)
      : content;
    const start = beginRecord(out, type, requestId, part.length);
    out.bytes.set(part, start);
  }
}

/** Appends a byte string as stream content: one record if it fits, so that the peer reads it whole, else several. */
export function encodeStreamText(
  out: ByteBuffer,
  type: number,
  requestId: number,
  text: string,
): void {
  for (let at = 0; at < text.length; at += MAX_RECORD_CONTENT) {
    const part = text.length > MAX_RECORD_CONTENT ? text.slice(at, at + MAX_RECORD_CONTENT) : text;
    const start = beginRecord(out, type, requestId, part.length);
    out.writeByteString(part, start);
  }
}

/**
 * Starts a stream record whose content the caller appends.
 *
 * @returns The offset of the content, for {@linkcode finishStream}.
 */
export function startStream(out: ByteBuffer): number {
  return out.reserve(HEADER_LENGTH) + HEADER_LENGTH;
}

/** Finishes the record that {@linkcode startStream} started. Content that is too long for one record becomes several. */
export function finishStream(
  out: ByteBuffer,
  type: number,
  requestId: number,
  start: number,
): void {
  const length = out.length - start;
  const content = length > MAX_RECORD_CONTENT ? out.bytes.slice(start, out.length) : null;
  out.length = start - HEADER_LENGTH;
  if (content === null) beginRecord(out, type, requestId, length);
  else encodeStream(out, type, requestId, content);
}

/** Appends the empty record that ends a stream (section 3.3). */
export function encodeStreamEnd(out: ByteBuffer, type: number, requestId: number): void {
  beginRecord(out, type, requestId, 0);
}

/** Appends FCGI_BEGIN_REQUEST (section 5.1). */
export function encodeBeginRequest(
  out: ByteBuffer,
  requestId: number,
  role: number,
  flags: number,
): void {
  const at = beginRecord(out, RecordType.beginRequest, requestId, 8);
  out.bytes.fill(0, at, at + 8);
  out.bytes[at] = role >> 8;
  out.bytes[at + 1] = role;
  out.bytes[at + 2] = flags;
}

/** The content of FCGI_BEGIN_REQUEST (section 5.1). */
export interface BeginRequest {
  /** The role of the application for this request; see {@linkcode Role}. */
  role: number;
  /** Whether the connection stays open after the response. */
  keepConnection: boolean;
}

/**
 * Decodes the content of FCGI_BEGIN_REQUEST.
 *
 * @throws {ProtocolError} If it is shorter than 8 bytes.
 */
export function decodeBeginRequest(content: Uint8Array): BeginRequest {
  if (content.length < 8) {
    throw new ProtocolError(
      `Cannot decode FCGI_BEGIN_REQUEST as its content must be 8 bytes: current length is ${content.length}`,
    );
  }
  return {
    role: content[0] << 8 | content[1],
    keepConnection: (content[2] & KEEP_CONNECTION) !== 0,
  };
}

/** Appends FCGI_ABORT_REQUEST (section 5.4). */
export function encodeAbortRequest(out: ByteBuffer, requestId: number): void {
  beginRecord(out, RecordType.abortRequest, requestId, 0);
}

/** Appends FCGI_END_REQUEST (section 5.5). */
export function encodeEndRequest(
  out: ByteBuffer,
  requestId: number,
  appStatus: number,
  protocolStatus: number,
): void {
  const at = beginRecord(out, RecordType.endRequest, requestId, 8);
  const bytes = out.bytes;
  bytes[at] = appStatus >>> 24;
  bytes[at + 1] = appStatus >>> 16;
  bytes[at + 2] = appStatus >>> 8;
  bytes[at + 3] = appStatus;
  bytes[at + 4] = protocolStatus;
  bytes.fill(0, at + 5, at + 8);
}

/** The content of FCGI_END_REQUEST (section 5.5). */
export interface EndRequest {
  /** The application's status, like the exit code of a process. */
  appStatus: number;
  /** How the request ended; see {@linkcode ProtocolStatus}. */
  protocolStatus: number;
}

/**
 * Decodes the content of FCGI_END_REQUEST.
 *
 * @throws {ProtocolError} If it is shorter than 8 bytes.
 */
export function decodeEndRequest(content: Uint8Array): EndRequest {
  if (content.length < 8) {
    throw new ProtocolError(
      `Cannot decode FCGI_END_REQUEST as its content must be 8 bytes: current length is ${content.length}`,
    );
  }
  return {
    appStatus: (content[0] << 24 | content[1] << 16 | content[2] << 8 | content[3]) >>> 0,
    protocolStatus: content[4],
  };
}

/** Appends FCGI_UNKNOWN_TYPE, the response to a management record of an unknown type (section 4.2). */
export function encodeUnknownType(out: ByteBuffer, type: number): void {
  const at = beginRecord(out, RecordType.unknownType, 0, 8);
  out.bytes.fill(0, at, at + 8);
  out.bytes[at] = type;
}

/** Appends FCGI_GET_VALUES or FCGI_GET_VALUES_RESULT (section 4.1). */
export function encodeValues(
  out: ByteBuffer,
  type: typeof RecordType.getValues | typeof RecordType.getValuesResult,
  pairs: Iterable<readonly [name: string, value: string]>,
): void {
  const content = new ByteBuffer();
  for (const [name, value] of pairs) encodePair(content, name, value);
  const start = beginRecord(out, type, 0, content.length);
  out.bytes.set(content.take(), start);
}

/** Appends one name-value pair of byte strings (section 3.4). */
export function encodePair(out: ByteBuffer, name: string, value: string): void {
  encodeLength(out, name.length);
  encodeLength(out, value.length);
  out.appendByteString(name);
  out.appendByteString(value);
}

function encodeLength(out: ByteBuffer, length: number): void {
  if (length < 128) {
    const at = out.reserve(1);
    out.bytes[at] = length;
    return;
  }
  const at = out.reserve(4);
  out.bytes[at] = length >>> 24 | 0x80;
  out.bytes[at + 1] = length >>> 16;
  out.bytes[at + 2] = length >>> 8;
  out.bytes[at + 3] = length;
}

/**
 * Decodes name-value pairs to byte strings (section 3.4).
 *
 * @param bytes The whole stream or content.
 * @param maxPairs How many pairs there may be.
 * @throws {ProtocolError} If a pair is cut off (status 400), or there are more than `maxPairs` (status 431).
 */
export function decodePairs(
  bytes: Uint8Array,
  maxPairs = Number.MAX_SAFE_INTEGER,
): [name: string, value: string][] {
  return decodeVariables(decodeByteString(bytes), maxPairs).pairs();
}

/**
 * Decodes name-value pairs to variables (section 3.4).
 *
 * @param text The whole stream, as a byte string.
 * @param maxPairs How many pairs there may be.
 * @throws {ProtocolError} If a pair is cut off (status 400), or there are more than `maxPairs` (status 431).
 */
export function decodeVariables(text: string, maxPairs: number): Variables {
  const ranges: number[] = [];
  const end = text.length;
  let at = 0;
  while (at < end) {
    if (ranges.length === maxPairs * 3) {
      throw new ProtocolError(
        `Cannot decode name-value pairs: there are more than ${maxPairs}`,
        431,
      );
    }
    let name = text.charCodeAt(at++);
    if (name >= 128) {
      name = decodeLongLength(text, at - 1, "a name's length");
      at += 3;
    }
    if (at >= end) throw cutOff("a value's length", 1, 0);
    let value = text.charCodeAt(at++);
    if (value >= 128) {
      value = decodeLongLength(text, at - 1, "a value's length");
      at += 3;
    }
    if (name + value > end - at) throw cutOff("a name and its value", name + value, end - at);
    ranges.push(at, at + name, at + name + value);
    at += name + value;
  }
  return Variables.cutFrom(text, ranges);
}

function decodeLongLength(text: string, at: number, what: string): number {
  if (at + 4 > text.length) throw cutOff(what, 4, text.length - at);
  return (text.charCodeAt(at) & 0x7f) << 24 | text.charCodeAt(at + 1) << 16 |
    text.charCodeAt(at + 2) << 8 | text.charCodeAt(at + 3);
}

function cutOff(what: string, needed: number, left: number): ProtocolError {
  return new ProtocolError(
    `Cannot decode name-value pairs as ${what} must have ${needed} bytes: ${left} are left`,
  );
}
