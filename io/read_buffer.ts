/**
 * A buffer that a transport reads into. The transport owns its bytes, and overwrites them with the next read, until a body
 * takes them. From then on the body owns them, and the transport reads into another buffer. Only one body may take them,
 * as its app may change or transfer the buffer.
 */
export class ReadBuffer {
  readonly bytes: Uint8Array<ArrayBuffer>;
  #taken = false;

  /** @param bytes All of a buffer. */
  constructor(bytes: Uint8Array<ArrayBuffer>) {
    this.bytes = bytes;
  }

  /** Whether a body has taken it. */
  get taken(): boolean {
    return this.#taken;
  }

  /**
   * Takes it from the transport.
   *
   * @returns False if it was taken before: the bytes must be copied.
   */
  take(): boolean {
    if (this.#taken) return false;
    this.#taken = true;
    return true;
  }
}
