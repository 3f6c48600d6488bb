import type { Duplex } from "../../io/duplex.ts";
import { type ParsedResponse, parseResponse } from "./response.ts";
import { concat } from "./bytes.ts";
import { deadline } from "./deadline.ts";

/** The web server's end of an SCGI connection. */
export class SCGIClient {
  readonly conn: Duplex;

  constructor(conn: Duplex) {
    this.conn = conn;
  }

  async send(...parts: Uint8Array[]): Promise<void> {
    const all = concat(parts);
    for (let at = 0; at < all.length;) at += await this.conn.write(all.subarray(at));
  }

  /** Reads to the end of the connection. */
  async rest(): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    while (true) {
      const buffer = new Uint8Array(65536);
      const count = await deadline(this.conn.read(buffer), "the connection's end");
      if (count === null) return concat(parts);
      parts.push(buffer.subarray(0, count));
    }
  }

  async response(): Promise<ParsedResponse> {
    return parseResponse(await this.rest());
  }

  close(): void {
    try {
      this.conn.close();
    } catch {
      // It is closed already.
    }
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
