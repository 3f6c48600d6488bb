/**
 * SCGI's request header: a netstring of names and values. Section numbers are the SCGI specification's.
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

/** Decodes the headers from chunks that may be cut anywhere (section 4). */
export class SCGIHeaderDecoder {
  #most: number;
  #length = -1;
  #digits = "";
  #bytes: Uint8Array = new Uint8Array(0);
  #have = 0;

  /** @param most How many bytes the netstring may have. */
  constructor(most = 262_144) {
    this.#most = most;
  }

  /**
   * Takes the next chunk.
   *
   * @returns Names and values as byte strings and the bytes of the body that came with them, or null while they go on.
   * @throws {ProtocolError} If it is no netstring, or no list of names and values, or longer than allowed (status 431).
   */
  push(chunk: Uint8Array): { pairs: [name: string, value: string][]; rest: Uint8Array } | null {
    let at = 0;
    while (this.#length < 0) {
      if (at === chunk.length) return null;
      this.#pushDigit(chunk[at++]);
    }
    const taken = Math.min(this.#length + 1 - this.#have, chunk.length - at);
    this.#store(chunk.subarray(at, at + taken));
    at += taken;
    if (this.#have <= this.#length) return null;
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
      if (length > this.#most) {
        throw new ProtocolError(
          `Cannot decode SCGI netstring as its length must be at most ${this.#most}: current value is ${length}`,
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
        "Cannot decode SCGI netstring as its length must not begin with 0: more digits follow",
      );
    }
    if (this.#digits.length === MAX_DIGITS) {
      throw new ProtocolError(
        `Cannot decode SCGI netstring as its length must have at most ${MAX_DIGITS} digits: there are more`,
        431,
      );
    }
    this.#digits += String.fromCharCode(byte);
  }

  /** Grows by what came, not by what was announced: an announcement costs the peer nothing. */
  #store(part: Uint8Array): void {
    const needed = this.#have + part.length;
    if (needed > this.#bytes.length) {
      const grown = new Uint8Array(Math.min(Math.max(needed, needed * 2), this.#length + 1));
      grown.set(this.#bytes.subarray(0, this.#have));
      this.#bytes = grown;
    }
    this.#bytes.set(part, this.#have);
    this.#have = needed;
  }
}

function decodeHeaders(data: Uint8Array): [name: string, value: string][] {
  const text = decodeByteString(data);
  if (text === "") {
    throw new ProtocolError("Cannot decode SCGI headers as there must be some: there are none");
  }
  if (!text.endsWith("\0")) {
    throw new ProtocolError("Cannot decode SCGI headers as they must end with NUL: they do not");
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
      throw new ProtocolError("Cannot decode SCGI headers as names must not be empty: one is");
    }
    pairs.push([strings[i], strings[i + 1]]);
  }
  return pairs;
}

/** Writes names and values, byte strings, as a netstring (section 4). `CONTENT_LENGTH` must be the first (section 3). */
export function encodeSCGIHeaders(
  pairs: Iterable<readonly [name: string, value: string]>,
): Uint8Array {
  let data = "";
  for (const [name, value] of pairs) data += `${name}\0${value}\0`;
  return encodeByteString(`${data.length}:${data},`);
}
