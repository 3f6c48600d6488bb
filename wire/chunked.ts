import { ProtocolError } from "./protocol_error.ts";

const CR = 0x0d;
const LF = 0x0a;
/** How long a line outside the chunk data may be, in bytes: a size with its extensions, or a trailer field. */
const MAX_LINE = 4096;

/** Decodes chunked coding (RFC 9112 section 7.1), which a non-parsed header script may send (rule B21). */
export class ChunkedDecoder {
  /** Whether the last chunk and the trailer are complete. Later bytes are ignored. */
  ended = false;
  #line = "";
  #chunkLeft = 0;
  #expects: "size" | "data" | "data end" | "trailer" = "size";

  /**
   * Decodes the next bytes, cut anywhere, and yields the content in them, as views.
   *
   * @throws {ProtocolError} If the coding is invalid (status 502).
   */
  *push(bytes: Uint8Array<ArrayBuffer>): Generator<Uint8Array<ArrayBuffer>> {
    let at = 0;
    while (at < bytes.length && !this.ended) {
      if (this.#expects === "data") {
        const part = bytes.subarray(at, at + this.#chunkLeft);
        at += part.length;
        this.#chunkLeft -= part.length;
        if (this.#chunkLeft === 0) this.#expects = "data end";
        yield part;
        continue;
      }
      const byte = bytes[at++];
      if (byte === LF) this.#takeLine();
      else if (byte !== CR) this.#line += String.fromCharCode(byte);
      if (this.#line.length > MAX_LINE) throw notChunked(this.#line);
    }
  }

  #takeLine(): void {
    const line = this.#line;
    this.#line = "";
    if (this.#expects === "trailer") {
      this.ended = line === "";
    } else if (this.#expects === "data end") {
      if (line !== "") throw notChunked(line);
      this.#expects = "size";
    } else {
      const size = /^([0-9a-f]{1,12})[ \t]*(?:;.*)?$/i.exec(line)?.[1];
      if (size === undefined) throw notChunked(line);
      this.#chunkLeft = parseInt(size, 16);
      this.#expects = this.#chunkLeft === 0 ? "trailer" : "data";
    }
  }
}

function notChunked(line: string): ProtocolError {
  return new ProtocolError(
    `Cannot decode response as its body must be valid chunked coding: current line is ${
      JSON.stringify(line.slice(0, 40))
    }`,
    502,
  );
}
