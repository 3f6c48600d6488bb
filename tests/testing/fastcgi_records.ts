/**
 * Encodes and decodes FastCGI records and name-value pairs, by hand from the specification. It uses nothing of
 * `wire/`, so that an error in that codec shows. Section numbers are those of the FastCGI specification.
 */
import { bytes, concat, text } from "./bytes.ts";

export type Pairs = [name: string, value: string][];

/** Record types (section 8). */
export const Type = {
  beginRequest: 1,
  abortRequest: 2,
  endRequest: 3,
  params: 4,
  stdin: 5,
  stdout: 6,
  stderr: 7,
  getValues: 9,
  getValuesResult: 10,
} as const;

/** How a request ended (section 5.5). */
export const ProtocolStatus = {
  requestComplete: 0,
  cantMultiplex: 1,
  overloaded: 2,
  unknownRole: 3,
} as const;

/** Encodes a record. Its padding has bytes that the receiver must ignore (section 3.3). */
export function record(
  type: number,
  id: number,
  content: Uint8Array = new Uint8Array(),
  padding = 0,
): Uint8Array<ArrayBuffer> {
  const header = [
    1,
    type,
    id >> 8,
    id & 255,
    content.length >> 8,
    content.length & 255,
    padding,
    0,
  ];
  return concat([new Uint8Array(header), content, new Uint8Array(padding).fill(0xee)]);
}

/** Encodes a stream's content in the longest records possible; in none if there is no content. */
export function stream(type: number, id: number, content: Uint8Array): Uint8Array<ArrayBuffer> {
  const records: Uint8Array[] = [];
  for (let at = 0; at < content.length; at += 65535) {
    records.push(record(type, id, content.subarray(at, at + 65535)));
  }
  return concat(records);
}

/** Encodes the empty record that ends a stream. */
export function streamEnd(type: number, id: number): Uint8Array<ArrayBuffer> {
  return record(type, id);
}

/** Encodes FCGI_BEGIN_REQUEST (section 5.1). */
export function beginRequest(
  id: number,
  { role = 1, keep = false } = {},
): Uint8Array<ArrayBuffer> {
  return record(
    Type.beginRequest,
    id,
    new Uint8Array([role >> 8, role & 255, keep ? 1 : 0, 0, 0, 0, 0, 0]),
  );
}

/** Encodes name-value pairs, the content of FCGI_PARAMS (section 3.4). */
export function nameValuePairs(pairs: Pairs): Uint8Array<ArrayBuffer> {
  const length = ({ length }: string) =>
    length < 128
      ? [length]
      : [0x80 | length >> 24, length >> 16 & 255, length >> 8 & 255, length & 255];
  return concat(pairs.flatMap(([name, value]) => [
    new Uint8Array([...length(name), ...length(value)]),
    bytes(name),
    bytes(value),
  ]));
}

/** Encodes FCGI_PARAMS with the end of that stream. */
export function params(id: number, pairs: Pairs): Uint8Array<ArrayBuffer> {
  return concat([stream(Type.params, id, nameValuePairs(pairs)), streamEnd(Type.params, id)]);
}

/** Encodes FCGI_STDIN without the end of that stream. */
export function stdin(id: number, content: Uint8Array): Uint8Array<ArrayBuffer> {
  return stream(Type.stdin, id, content);
}

/** Encodes the end of FCGI_STDIN. */
export function stdinEnd(id: number): Uint8Array<ArrayBuffer> {
  return streamEnd(Type.stdin, id);
}

/** Encodes FCGI_ABORT_REQUEST (section 5.4). */
export function abortRequest(id: number): Uint8Array<ArrayBuffer> {
  return record(Type.abortRequest, id);
}

/** Encodes FCGI_GET_VALUES (section 4.1). */
export function getValues(...names: string[]): Uint8Array<ArrayBuffer> {
  return record(Type.getValues, 0, nameValuePairs(names.map((name) => [name, ""])));
}

/** Encodes FCGI_END_REQUEST, by default for a request that is complete (section 5.5). */
export function endRequest(
  id: number,
  { appStatus = 0, protocolStatus = 0 }: Partial<EndRequest> = {},
): Uint8Array<ArrayBuffer> {
  const content = new Uint8Array(8);
  new DataView(content.buffer).setUint32(0, appStatus);
  content[4] = protocolStatus;
  return record(Type.endRequest, id, content);
}

/** A decoded record. */
export interface Received {
  type: number;
  id: number;
  content: Uint8Array;
}

/** Decodes the first record and returns the bytes after it; undefined while it is incomplete (section 3.3). */
export function firstRecord(
  from: Uint8Array,
): { record: Received; padding: number; rest: Uint8Array } | undefined {
  if (from.length < 8) return undefined;
  const [version, type, high, low, lengthHigh, lengthLow, padding] = from;
  if (version !== 1) throw new Error(`A record must have version 1: current value is ${version}`);
  const end = 8 + lengthHigh * 256 + lengthLow;
  if (from.length < end + padding) return undefined;
  return {
    record: { type, id: high * 256 + low, content: from.slice(8, end) },
    padding,
    rest: from.subarray(end + padding),
  };
}

/** Decodes name-value pairs (section 3.4). */
export function readPairs(from: Uint8Array): Pairs {
  const pairs: Pairs = [];
  let at = 0;
  const length = () => {
    if (from[at] < 128) return from[at++];
    const [a, b, c, d] = from.subarray(at, at += 4);
    return (a - 128) * 0x1000000 + b * 0x10000 + c * 0x100 + d;
  };
  while (at < from.length) {
    const name = length();
    const value = length();
    pairs.push([
      text(from.subarray(at, at += name)),
      text(from.subarray(at, at += value)),
    ]);
  }
  if (at !== from.length) {
    throw new Error(`Pairs must be whole: ${at - from.length} bytes are missing`);
  }
  return pairs;
}

/** The content of FCGI_END_REQUEST (section 5.5). */
export interface EndRequest {
  appStatus: number;
  protocolStatus: number;
}

export function readEndRequest(content: Uint8Array): EndRequest {
  if (content.length !== 8) {
    throw new Error(`FCGI_END_REQUEST must have 8 bytes: current length is ${content.length}`);
  }
  const [a, b, c, d, protocolStatus] = content;
  return { appStatus: a * 0x1000000 + b * 0x10000 + c * 0x100 + d, protocolStatus };
}
