import { decodeByteString, encodeByteString } from "../../wire/byte_string.ts";

/** Encodes a byte string. */
export const bytes = encodeByteString as (text: string) => Uint8Array<ArrayBuffer>;
/** Decodes bytes to a byte string. */
export const text = decodeByteString;

/** Joins byte arrays. */
export function concat(parts: Iterable<Uint8Array>): Uint8Array<ArrayBuffer> {
  const all = [...parts];
  const joined = new Uint8Array(all.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of all) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

/** Cuts bytes at the given places, which need not be in order or in range. */
export function cut(whole: Uint8Array, places: Iterable<number>): Uint8Array[] {
  const at = [...places].filter((place) => place > 0 && place < whole.length).sort((a, b) => a - b);
  return [0, ...at].map((start, i) => whole.slice(start, at[i] ?? whole.length));
}

/** Cuts bytes into single bytes. */
export function split(whole: Uint8Array): Uint8Array[] {
  return cut(whole, whole.keys());
}

/** Returns bytes that differ from place to place, so that a lost or moved byte shows. */
export function pattern(length: number): Uint8Array<ArrayBuffer> {
  const made = new Uint8Array(length);
  for (let i = 0; i < length; i++) made[i] = (i * 31 + (i >> 8)) & 0xff;
  return made;
}
