/**
 * Byte strings: one UTF-16 code unit per byte, as in `Headers`. `TextDecoder("iso-8859-1")` decodes windows-1252 and
 * would change the bytes 0x80 to 0x9f.
 *
 * @module
 */

// deno-lint-ignore no-control-regex
const NOT_ASCII = /[^\x00-\x7f]/;
const CHUNK = 8192;
/** From this length on the runtime's native decoder is faster. */
const LONG = 64;

type Decoder = (this: Uint8Array, start: number, end: number) => string;
let native: Decoder | null | undefined;

/** Returns Node's latin1 decoder, or null if the runtime has none. Looked up on first use, as loading it takes time. */
function nativeDecoder(): Decoder | null {
  const { Buffer } = globalThis as { Buffer?: { prototype: { latin1Slice?: Decoder } } };
  return native ??= Buffer?.prototype.latin1Slice ?? null;
}

/** Decodes bytes as a byte string. */
export function decodeByteString(bytes: Uint8Array): string {
  const decode = bytes.length < LONG ? null : native === undefined ? nativeDecoder() : native;
  return decode === null ? decodePortably(bytes) : decode.call(bytes, 0, bytes.length);
}

/** Does the same as {@linkcode decodeByteString} without the native decoder. */
export function decodePortably(bytes: Uint8Array): string {
  if (bytes.length <= CHUNK) return String.fromCharCode.apply(null, bytes as unknown as number[]);
  let text = "";
  for (let at = 0; at < bytes.length; at += CHUNK) {
    text += decodePortably(bytes.subarray(at, at + CHUNK));
  }
  return text;
}

/** Encodes a byte string as bytes. */
export function encodeByteString(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** Returns whether a text has ASCII characters only. */
export function isASCII(text: string): boolean {
  return !NOT_ASCII.test(text);
}

/** Converts text to the byte string of its UTF-8 encoding. */
export function toByteString(text: string): string {
  return NOT_ASCII.test(text) ? decodeByteString(new TextEncoder().encode(text)) : text;
}

/** Converts a byte string to text: decodes it if it is valid UTF-8, else returns it unchanged. */
export function toText(byteString: string): string {
  if (!NOT_ASCII.test(byteString)) return byteString;
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
      .decode(encodeByteString(byteString));
  } catch {
    return byteString;
  }
}

const DEBUG_ESCAPE = /\\(?:x([0-9A-F]{2})|u\{([0-9a-f]+)\}|(.))|[^\\]+/gs;
const DEBUG_CONTROLS: Record<string, string> = { "0": "\0", t: "\t", n: "\n", r: "\r" };

/**
 * Decodes an operating system string in Rust's `Debug` format, without the quotes, to a byte string. The format has
 * valid UTF-8 with the escapes of a string literal, and other bytes as `\xE9`.
 */
export function decodeDebugFormat(text: string): string {
  return text.replace(DEBUG_ESCAPE, (plain, byte, codePoint, char) => {
    if (byte !== undefined) return String.fromCharCode(parseInt(byte, 16));
    if (codePoint !== undefined) return toByteString(String.fromCodePoint(parseInt(codePoint, 16)));
    return char === undefined ? toByteString(plain) : DEBUG_CONTROLS[char] ?? char;
  });
}

/** Joins arrays of bytes. */
export function concat(parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
