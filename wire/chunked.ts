import { ProtocolError } from "./protocol_error.ts";

const CR = 0x0d;
const LF = 0x0a;
/** How long a line between chunks may be, in bytes: a size and its extensions, or a trailer field. */
const MAX_LINE = 4096;

/** Takes chunked coding off (RFC 9112 section 7.1): a script that parses no headers may send it. */
export class ChunkedDecoder {
  /** Whether the last chunk and the trailer have come. */
  ended = false;
  #line = "";
  #left = 0;
  #expects: "size" | "data" | "data's end" | "trailer" = "size";

  /**
   * Takes the next bytes, cut anywhere, and hands out the content in them.
   *
   * @throws {ProtocolError} If they are no chunks (status 502).
   */
  *push(bytes: Uint8Array<ArrayBuffer>): Generator<Uint8Array<ArrayBuffer>> {
    let at = 0;
    while (at < bytes.length && !this.ended) {
      if (this.#expects === "data") {
        const part = bytes.subarray(at, at + this.#left);
        at += part.length;
        this.#left -= part.length;
        if (this.#left === 0) this.#expects = "data's end";
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
    } else if (this.#expects === "data's end") {
      if (line !== "") throw notChunked(line);
      this.#expects = "size";
    } else {
      const size = /^([0-9a-f]{1,12})[ \t]*(?:;.*)?$/i.exec(line)?.[1];
      if (size === undefined) throw notChunked(line);
      this.#left = parseInt(size, 16);
      this.#expects = this.#left === 0 ? "trailer" : "data";
    }
  }
}

function notChunked(line: string): ProtocolError {
  return new ProtocolError(
    `Cannot take the answer as its Transfer-Encoding must be what it says, chunked: current line is ${
      JSON.stringify(line.slice(0, 40))
    }`,
    502,
  );
}
