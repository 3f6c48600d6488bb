import type { Duplex } from "../../io/duplex.ts";
import { concat } from "./bytes.ts";

/** The web server's end of a connection. */
export class ClientEnd implements Disposable {
  readonly conn: Duplex;

  constructor(conn: Duplex) {
    this.conn = conn;
  }

  async send(...parts: Uint8Array[]): Promise<void> {
    const bytes = concat(parts);
    for (let at = 0; at < bytes.length;) at += await this.conn.write(bytes.subarray(at));
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
