/** Below this length a loop is faster than the native encoder. */
const SHORT = 256;
/** The largest storage that is kept for reuse, in bytes. */
const MAX_SPARE = 262_144;
const EMPTY = new Uint8Array(0);
const encoder = new TextEncoder();

/** Buffers bytes to be written. Grows as needed, and reuses its storage once a write is complete. */
export class ByteBuffer {
  /** The storage; its first {@linkcode length} bytes are in use. */
  bytes: Uint8Array<ArrayBuffer> = EMPTY;
  /** How many bytes are buffered. */
  length = 0;
  #spare: Uint8Array<ArrayBuffer> | null = null;
  #taken: Uint8Array<ArrayBuffer> | null = null;
  #initialCapacity: number;

  /** @param capacity How many bytes to allocate at first, once some are needed. */
  constructor(capacity = 1024) {
    this.#initialCapacity = capacity;
  }

  /** Makes room for `count` more bytes, and returns the offset of the first. Their content is undefined. */
  reserve(count: number): number {
    const at = this.length;
    const needed = at + count;
    if (needed > this.bytes.length) {
      const grown = new Uint8Array(Math.max(needed, this.bytes.length * 2, this.#initialCapacity));
      grown.set(this.bytes.subarray(0, at));
      this.bytes = grown;
    }
    this.length = needed;
    return at;
  }

  /** Appends bytes. */
  append(bytes: Uint8Array): void {
    const at = this.reserve(bytes.length);
    this.bytes.set(bytes, at);
  }

  /** Appends a byte string. */
  appendByteString(text: string): void {
    this.writeByteString(text, this.reserve(text.length));
  }

  /** Writes a byte string at an offset that {@linkcode reserve} returned. */
  writeByteString(text: string, at: number): void {
    if (text.length < SHORT) {
      const { bytes } = this;
      for (let i = 0; i < text.length; i++) bytes[at + i] = text.charCodeAt(i);
      return;
    }
    const room = this.bytes.subarray(at, at + text.length);
    // The whole text fits at one byte a character only if it is ASCII, and then UTF-8 has the same bytes.
    if (encoder.encodeInto(text, room).read === text.length) return;
    for (let i = 0; i < text.length; i++) room[i] = text.charCodeAt(i);
  }

  /** Returns all buffered bytes, and empties the buffer by switching to other storage. */
  take(): Uint8Array<ArrayBuffer> {
    const { bytes } = this;
    const taken = bytes.subarray(0, this.length);
    this.bytes = this.#spare ?? EMPTY;
    this.#spare = null;
    this.#taken = bytes;
    this.length = 0;
    return taken;
  }

  /** Reuses the storage of the bytes that {@linkcode take} returned last. Those bytes must no longer be needed. */
  recycle(): void {
    if (this.#taken !== null && this.#taken.length <= MAX_SPARE) this.#spare = this.#taken;
    this.#taken = null;
  }
}
