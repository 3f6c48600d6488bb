import type { LimitOptions } from "./limits.ts";
import { ByteBuffer } from "../wire/byte_buffer.ts";
import { decodeByteString } from "../wire/byte_string.ts";
import { decodeVariables } from "../wire/fastcgi.ts";
import { ProtocolError } from "../wire/protocol_error.ts";
import type { Variables } from "../wire/variables.ts";

/** The FCGI_PARAMS of one request: collects the content of its records and decodes it. */
export class Params {
  /** How many bytes have arrived, dropped ones included. */
  #length = 0;
  /** The first record as a byte string, usually the only one. */
  #first = "";
  /** The later records, as bytes: a string that is joined from many small parts takes many times their size. */
  #more: ByteBuffer | null = null;

  /**
   * Adds the content of a record.
   *
   * @param most How many bytes are kept: if there are more, all are dropped.
   */
  add(content: Uint8Array, most: number): void {
    this.#length += content.length;
    if (this.#length > most) {
      this.#first = "";
      this.#more = null;
    } else if (this.#first === "") this.#first = decodeByteString(content);
    else (this.#more ??= new ByteBuffer()).append(content);
  }

  /**
   * Decodes the variables.
   *
   * @throws {ProtocolError} If they are malformed, or there are more than the limits allow.
   */
  decode({ maxVariableBytes, maxVariables }: Required<LimitOptions>): Variables {
    if (this.#length > maxVariableBytes) {
      throw new ProtocolError(
        `Cannot accept request as its variables must have at most ${maxVariableBytes} bytes: they have ${this.#length}`,
        431,
      );
    }
    const more = this.#more?.take();
    const text = more === undefined ? this.#first : this.#first + decodeByteString(more);
    return decodeVariables(text, maxVariables);
  }
}
