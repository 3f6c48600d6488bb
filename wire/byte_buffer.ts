/** Up to this length a loop is faster than the native encoder. */
const SHORT = 256;
const encoder = new TextEncoder();

/** Bytes waiting to be sent: grows as needed, and gives its storage back for the next round. */
export class ByteBuffer {
  /** The storage; the first {@linkcode length} bytes of it count. */
  bytes: Uint8Array<ArrayBuffer>;
  /** How many bytes are held. */
  length = 0;
  #spare: Uint8Array<ArrayBuffer> | null = null;

  /** @param capacity The storage to start with, in bytes. */
  constructor(capacity = 1024) {
    this.bytes = new Uint8Array(capacity);
  }

  /** Makes room for `count` more bytes and tells where they begin. */
  reserve(count: number): number {
    const at = this.length;
    const needed = at + count;
    if (needed > this.bytes.length) {
      const grown = new Uint8Array(Math.max(needed, this.bytes.length * 2));
      grown.set(this.bytes.subarray(0, at));
      this.bytes = grown;
    }
    this.length = needed;
    return at;
  }

  /** Adds bytes. */
  append(bytes: Uint8Array): void {
    const at = this.reserve(bytes.length);
    this.bytes.set(bytes, at);
  }

  /** Adds a byte string. */
  appendByteString(text: string): void {
    const at = this.reserve(text.length);
    if (text.length < SHORT) {
      const { bytes } = this;
      for (let i = 0; i < text.length; i++) bytes[at + i] = text.charCodeAt(i);
      return;
    }
    const room = this.bytes.subarray(at, this.length);
    // All of it fits one byte a character only if it is ASCII, where UTF-8 has the same bytes.
    if (encoder.encodeInto(text, room).read === text.length) return;
    for (let i = 0; i < text.length; i++) room[i] = text.charCodeAt(i);
  }

  /** Hands out all bytes held and starts anew in other storage. */
  take(): Uint8Array<ArrayBuffer> {
    const taken = this.bytes.subarray(0, this.length);
    this.bytes = this.#spare ?? new Uint8Array(Math.min(this.bytes.length, 65536));
    this.#spare = null;
    this.length = 0;
    return taken;
  }

  /** Takes back what {@linkcode take} handed out, so that its storage serves again. */
  recycle(taken: Uint8Array<ArrayBuffer>): void {
    if (taken.buffer.byteLength <= 262144) this.#spare = new Uint8Array(taken.buffer);
  }
}
