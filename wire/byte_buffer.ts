/** Up to this length a loop is faster than the native encoder. */
const SHORT = 256;
/** More storage than this is not kept. */
const MOST_SPARE = 262_144;
const NOTHING = new Uint8Array(0);
const encoder = new TextEncoder();

/** Bytes waiting to be sent: grows as needed, and gives its storage back for the next round. */
export class ByteBuffer {
  /** The storage; the first {@linkcode length} bytes of it count. */
  bytes: Uint8Array<ArrayBuffer> = NOTHING;
  /** How many bytes are held. */
  length = 0;
  #spare: Uint8Array<ArrayBuffer> | null = null;
  #lent: Uint8Array<ArrayBuffer> | null = null;

  #least: number;

  /** @param capacity The storage to start with, in bytes, once some is needed. */
  constructor(capacity = 1024) {
    this.#least = capacity;
  }

  /** Makes room for `count` more bytes and tells where they begin. */
  reserve(count: number): number {
    const at = this.length;
    const needed = at + count;
    if (needed > this.bytes.length) {
      const grown = new Uint8Array(Math.max(needed, this.bytes.length * 2, this.#least));
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
    this.writeByteString(text, this.reserve(text.length));
  }

  /** Writes a byte string where there is room for it. */
  writeByteString(text: string, at: number): void {
    if (text.length < SHORT) {
      const { bytes } = this;
      for (let i = 0; i < text.length; i++) bytes[at + i] = text.charCodeAt(i);
      return;
    }
    const room = this.bytes.subarray(at, at + text.length);
    // All of it fits one byte a character only if it is ASCII, where UTF-8 has the same bytes.
    if (encoder.encodeInto(text, room).read === text.length) return;
    for (let i = 0; i < text.length; i++) room[i] = text.charCodeAt(i);
  }

  /** Hands out all bytes held and starts anew in other storage. */
  take(): Uint8Array<ArrayBuffer> {
    const { bytes } = this;
    const taken = bytes.subarray(0, this.length);
    this.bytes = this.#spare ?? NOTHING;
    this.#spare = null;
    this.#lent = bytes;
    this.length = 0;
    return taken;
  }

  /** Takes back the storage of what {@linkcode take} handed out last, so that it serves again. */
  recycle(): void {
    if (this.#lent !== null && this.#lent.length <= MOST_SPARE) this.#spare = this.#lent;
    this.#lent = null;
  }
}
