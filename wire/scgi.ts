/**
 * Encodes and decodes the headers of an SCGI request: a netstring of names and values. Section numbers refer to the
 * SCGI specification.
 *
 * @module
 */

import { decodeByteString, encodeByteString } from "./byte_string.ts";
import { ProtocolError } from "./protocol_error.ts";

const COLON = 0x3a;
const COMMA = 0x2c;
const ZERO = 0x30;
const NINE = 0x39;
const MAX_DIGITS = 7;

/** Decodes the headers of a request from chunks of any size (section 4). */
export class SCGIHeaderDecoder {
  #maxLength: number;
  #length = -1;
  #digits = "";
  #bytes: Uint8Array = new Uint8Array(0);
  #received = 0;

  /** @param maxLength How many bytes the netstring's data may have. */
  constructor(maxLength: number) {
    this.#maxLength = maxLength;
  }

  /**
   * Decodes the next chunk.
   *
   * @returns Names and values as byte strings and the first bytes of the body; null while the netstring is incomplete.
   * @throws {ProtocolError} If the netstring or its list of names and values is invalid (status 400), or if it is
   * longer than allowed (status 431).
   */
  push(chunk: Uint8Array): { pairs: [name: string, value: string][]; rest: Uint8Array } | null {
    let at = 0;
    while (this.#length < 0) {
      if (at === chunk.length) return null;
      this.#pushDigit(chunk[at++]);
    }
    const taken = Math.min(this.#length + 1 - this.#received, chunk.length - at);
    this.#store(chunk.subarray(at, at + taken));
    at += taken;
    if (this.#received <= this.#length) return null;
    if (this.#bytes[this.#length] !== COMMA) {
      throw new ProtocolError(
        `Cannot decode SCGI netstring as a comma must follow its data: current byte is ${
          this.#bytes[this.#length]
        }`,
      );
    }
    return {
      pairs: decodeHeaders(this.#bytes.subarray(0, this.#length)),
      rest: chunk.subarray(at),
    };
  }

  #pushDigit(byte: number): void {
    if (byte === COLON && this.#digits !== "") {
      const length = Number(this.#digits);
      if (length > this.#maxLength) {
        throw new ProtocolError(
          `Cannot decode SCGI netstring as its length must be at most ${this.#maxLength}: current value is ${length}`,
          431,
        );
      }
      this.#length = length;
      return;
    }
    if (byte < ZERO || byte > NINE) {
      throw new ProtocolError(
        `Cannot decode SCGI netstring as its length must be decimal digits and a colon: current byte is ${byte}`,
      );
    }
    if (this.#digits === "0") {
      throw new ProtocolError(
        "Cannot decode SCGI netstring: its length begins with 0",
      );
    }
    if (this.#digits.length === MAX_DIGITS) {
      throw new ProtocolError(
        `Cannot decode SCGI netstring: its length has more than ${MAX_DIGITS} digits`,
        431,
      );
    }
    this.#digits += String.fromCharCode(byte);
  }

  /** Stores bytes. Grows by what is received, not to the announced length: announcing costs a peer nothing. */
  #store(part: Uint8Array): void {
    const needed = this.#received + part.length;
    if (needed > this.#bytes.length) {
      const grown = new Uint8Array(Math.min(Math.max(needed, needed * 2), this.#length + 1));
      grown.set(this.#bytes.subarray(0, this.#received));
      this.#bytes = grown;
    }
    this.#bytes.set(part, this.#received);
    this.#received = needed;
  }
}

function decodeHeaders(data: Uint8Array): [name: string, value: string][] {
  const text = decodeByteString(data);
  if (text === "") {
    throw new ProtocolError("Cannot decode SCGI headers: there are none");
  }
  if (!text.endsWith("\0")) {
    throw new ProtocolError("Cannot decode SCGI headers: they do not end with NUL");
  }
  const strings = text.slice(0, -1).split("\0");
  if (strings.length % 2 !== 0) {
    throw new ProtocolError(
      `Cannot decode SCGI headers as each name must have a value: there are ${strings.length} strings`,
    );
  }
  const pairs: [string, string][] = [];
  for (let i = 0; i < strings.length; i += 2) {
    if (strings[i] === "") {
      throw new ProtocolError("Cannot decode SCGI headers: a name is empty");
    }
    pairs.push([strings[i], strings[i + 1]]);
  }
  return pairs;
}

/**
 * Encodes names and values, byte strings, as a netstring (section 4). The caller puts `CONTENT_LENGTH` first, as
 * section 3 requires.
 */
export function encodeSCGIHeaders(
  pairs: Iterable<readonly [name: string, value: string]>,
): Uint8Array {
  let data = "";
  for (const [name, value] of pairs) data += `${name}\0${value}\0`;
  return encodeByteString(`${data.length}:${data},`);
}
