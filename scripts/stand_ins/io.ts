/** The part of `@std/io/buffer` that the tests use. */

/** A growing buffer of bytes with the shape of a reader and a writer. */
export class Buffer {
  #bytes: Uint8Array<ArrayBuffer>;

  constructor(bytes: ArrayBuffer | ArrayLike<number> = []) {
    this.#bytes = new Uint8Array(bytes);
  }

  /** The number of unread bytes. */
  get length(): number {
    return this.#bytes.length;
  }

  /** Returns whether all bytes are read. */
  empty(): boolean {
    return this.length === 0;
  }

  /** The unread bytes. */
  bytes(options: { copy: boolean } = { copy: true }): Uint8Array {
    return options.copy ? this.#bytes.slice() : this.#bytes;
  }

  /** Empties the buffer. */
  reset(): void {
    this.#bytes = new Uint8Array();
  }

  /** Reads into `p` and returns the number of bytes, or null at the end. */
  readSync(p: Uint8Array): number | null {
    if (this.empty() && p.length > 0) return null;
    const read = this.#bytes.subarray(0, p.length);
    p.set(read);
    this.#bytes = this.#bytes.subarray(read.length);
    return read.length;
  }

  /** Reads into `p` and returns the number of bytes, or null at the end. */
  read(p: Uint8Array): Promise<number | null> {
    return Promise.resolve(this.readSync(p));
  }

  /** Writes all of `p`. */
  writeSync(p: Uint8Array): number {
    const bytes = new Uint8Array(this.length + p.length);
    bytes.set(this.#bytes);
    bytes.set(p, this.length);
    this.#bytes = bytes;
    return p.length;
  }

  /** Writes all of `p`. */
  write(p: Uint8Array): Promise<number> {
    return Promise.resolve(this.writeSync(p));
  }
}
