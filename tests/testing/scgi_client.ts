import { type ParsedResponse, parseResponse } from "./response.ts";
import { concat, text } from "./bytes.ts";
import { ClientEnd } from "./client_end.ts";
import { deadline } from "./deadline.ts";

/** Decodes the headers of a request, a netstring, by hand; undefined while they are incomplete. */
export function readHeaders(
  from: Uint8Array,
): { pairs: [name: string, value: string][]; rest: Uint8Array } | undefined {
  const colon = from.indexOf(0x3a);
  if (colon < 0) return undefined;
  const end = colon + 1 + Number(text(from.subarray(0, colon)));
  if (from.length <= end) return undefined;
  if (from[end] !== 0x2c || from[end - 1] !== 0) {
    throw new Error("Headers must end with NUL and a comma");
  }
  const words = text(from.subarray(colon + 1, end - 1)).split("\0");
  const pairs = words.flatMap((name, i): [string, string][] =>
    i % 2 === 0 ? [[name, words[i + 1]]] : []
  );
  return { pairs, rest: from.subarray(end + 1) };
}

/** The web server's end of an SCGI connection. */
export class SCGIClient extends ClientEnd {
  #received: Uint8Array[] = [];

  /** Whether nothing has been received. */
  get silent(): boolean {
    return this.#received.length === 0;
  }

  /** Reads some bytes. Returns null at the end of the connection. */
  async begun(label = "some bytes"): Promise<Uint8Array | null> {
    const buffer = new Uint8Array(65536);
    const count = await deadline(this.conn.read(buffer), label);
    if (count === null) return null;
    const part = buffer.subarray(0, count);
    this.#received.push(part);
    return part;
  }

  /** Reads to the end of the connection. */
  async end(): Promise<void> {
    while (await this.begun("the connection's end") !== null);
  }

  /** Reads to the end of the connection, and returns all that was received. */
  async rest(): Promise<Uint8Array> {
    await this.end();
    return concat(this.#received);
  }

  async response(): Promise<ParsedResponse> {
    return parseResponse(await this.rest());
  }
}
