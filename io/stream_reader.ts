/** The size of the buffer after a read has filled it. */
const LARGE = 65_536;

/** Reads a stream: into one buffer if it is a byte stream, as Deno's own are, which saves an allocation for each read. */
export class StreamReader {
  #reader: ReadableStreamBYOBReader | ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>;
  #size: number;
  #buffer: ArrayBuffer | undefined;

  /** @param size The size of the buffer at first, in bytes. */
  constructor(stream: ReadableStream<Uint8Array<ArrayBuffer>>, size: number) {
    this.#size = size;
    try {
      this.#reader = stream.getReader({ mode: "byob" });
      this.#buffer = new ArrayBuffer(size);
    } catch {
      this.#reader = stream.getReader();
    }
  }

  /** Reads the next bytes, which are valid until the next read; null at the end. */
  async read(): Promise<Uint8Array<ArrayBuffer> | null> {
    if (this.#buffer === undefined) {
      const reader = this.#reader as ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>;
      const { done, value } = await reader.read();
      return done ? null : value;
    }
    const reader = this.#reader as ReadableStreamBYOBReader;
    const { done, value } = await reader.read(new Uint8Array(this.#buffer));
    if (done) return null;
    const full = value.length === this.#size && value.buffer.byteLength === this.#size;
    this.#buffer = full ? new ArrayBuffer(LARGE) : value.buffer;
    return value;
  }

  /** Cancels the rest of the stream. */
  cancel(): Promise<void> {
    return this.#reader.cancel();
  }
}
