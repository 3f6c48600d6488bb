/**
 * FastCGI records and name-value pairs, laid out by hand from the specification. Nothing of `wire/` is used, so that a
 * fault of the product's codec shows. Section numbers are the FastCGI specification's.
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

/** A record, its padding filled with bytes that nobody may read (section 3.3). */
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

/** A stream's content in the longest records that there are; none for no content. */
export function stream(type: number, id: number, content: Uint8Array): Uint8Array<ArrayBuffer> {
  const records: Uint8Array[] = [];
  for (let at = 0; at < content.length; at += 65535) {
    records.push(record(type, id, content.subarray(at, at + 65535)));
  }
  return concat(records);
}

/** The empty record that ends a stream. */
export function streamEnd(type: number, id: number): Uint8Array<ArrayBuffer> {
  return record(type, id);
}

/** FCGI_BEGIN_REQUEST (section 5.1). */
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

/** Name-value pairs: the content of FCGI_PARAMS (section 3.4). */
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

/** FCGI_PARAMS with their end. */
export function params(id: number, pairs: Pairs): Uint8Array<ArrayBuffer> {
  return concat([stream(Type.params, id, nameValuePairs(pairs)), streamEnd(Type.params, id)]);
}

/** FCGI_STDIN without its end. */
export function stdin(id: number, content: Uint8Array): Uint8Array<ArrayBuffer> {
  return stream(Type.stdin, id, content);
}

/** The end of FCGI_STDIN. */
export function stdinEnd(id: number): Uint8Array<ArrayBuffer> {
  return streamEnd(Type.stdin, id);
}

/** FCGI_ABORT_REQUEST (section 5.4). */
export function abortRequest(id: number): Uint8Array<ArrayBuffer> {
  return record(Type.abortRequest, id);
}

/** FCGI_GET_VALUES (section 4.1). */
export function getValues(...names: string[]): Uint8Array<ArrayBuffer> {
  return record(Type.getValues, 0, nameValuePairs(names.map((name) => [name, ""])));
}

/** FCGI_END_REQUEST of a request that is complete (section 5.5). */
export function endRequest(id: number): Uint8Array<ArrayBuffer> {
  return record(Type.endRequest, id, new Uint8Array(8));
}

/** A record as it came. */
export interface Received {
  type: number;
  id: number;
  content: Uint8Array;
}

/** The record that bytes begin with, and what follows it; undefined while it is not whole (section 3.3). */
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

/** The pairs that bytes are (section 3.4). */
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
  if (at !== from.length) throw new Error(`Pairs must be whole: ${at - from.length} bytes lack`);
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
