import type { ReadBuffer } from "../io/read_buffer.ts";
import type { BodyMemory } from "./body_memory.ts";
import { isDisturbed } from "../io/private_fields.ts";
import { ProtocolError } from "../wire/protocol_error.ts";

/** The transport that receives a body. */
export interface RequestBodySource {
  /** Called when the app needs bytes and none are buffered, and when the body is discarded. */
  pull(): void;
}

/**
 * A one-byte auto-allocated view marks a default (non-BYOB) read. Without it, bytes pending for a BYOB reader that
 * released its lock would never reach the next default reader.
 */
const AUTO_ALLOCATED = 1;
/** The default of the option `maxBufferedBody` of the servers. */
export const MAX_BUFFERED_BODY = 67_108_864;
/** The length from which a body takes the buffer of received bytes. Shorter ones are copied. */
const MIN_TAKEN = 16_384;
/** The length of a body from which its chunks are freed at once, which takes time. */
const MIN_FREED = 4_194_304;
/** The length of a chunk up to which further bytes are appended to it. */
const MAX_COPIED = 65_536;

/**
 * The body of a request: a queue from the transport to the app, whose stream is created on first need. It ends after
 * the declared length, and fails if it has fewer bytes (rule A21).
 */
export class RequestBody {
  /** How many bytes are buffered for the app. */
  buffered = 0;
  /** The error that it failed with. */
  error: unknown;
  /**
   * Complete: the app gets the buffered bytes, then the end. Failed: the same, then the error. Discarded: the app will not
   * read it, and received bytes are dropped.
   */
  #phase: "receiving" | "complete" | "failed" | "discarded" = "receiving";
  /** Whether the stream has requested bytes or was cancelled. */
  #pulled = false;
  #chunks: Uint8Array<ArrayBuffer>[] = [];
  /** The buffer of the last copied chunk, which may have room for more. */
  #copied: ArrayBuffer | null = null;
  #received = 0;
  #declared: number | undefined;
  #stream: ReadableStream<Uint8Array<ArrayBuffer>> | null = null;
  #controller: ReadableByteStreamController | null = null;
  /** The buffer of a pending BYOB read, and how many bytes are in it. */
  #view: Uint8Array | null = null;
  #filled = 0;
  #waiting: (() => void) | null = null;
  #source: RequestBodySource;
  #maxBytes: number;
  /** Counts the buffered bytes. Null if they do not count, or no longer: the app has them, or reads the whole body. */
  #memory: BodyMemory | null;
  /** The length of the buffers that count there. */
  #counted = 0;

  /**
   * @param maxBytes How many bytes the body may have.
   * @param memory Counts its buffered bytes.
   */
  constructor(
    source: RequestBodySource,
    maxBytes = Infinity,
    memory: BodyMemory | null = null,
  ) {
    this.#source = source;
    this.#maxBytes = maxBytes;
    this.#memory = memory;
  }

  /**
   * Sets the declared length.
   *
   * @param length In bytes, or undefined if none was declared.
   * @throws {ProtocolError} If it is above the maximum (status 413).
   */
  declare(length: number | undefined): void {
    this.#declared = length;
    if (length === 0) this.#phase = "complete";
    if (length !== undefined && length > this.#maxBytes) throw this.#tooLong();
  }

  /** Whether it takes more bytes. */
  get receiving(): boolean {
    return this.#phase === "receiving";
  }

  /** Whether all bytes of the declared length have arrived, including dropped ones. */
  get arrived(): boolean {
    return this.#declared !== undefined && this.#received >= this.#declared;
  }

  /** How many bytes were received, including dropped ones. */
  get received(): number {
    return this.#received;
  }

  /** Whether the app waits for more bytes. */
  get waiting(): boolean {
    return this.#waiting !== null;
  }

  /** Whether the stream was read from or cancelled. */
  get used(): boolean {
    return this.#pulled || this.#stream !== null && isDisturbed(this.#stream);
  }

  /** The body as a byte stream, created on first need. Its chunks belong to the app. */
  get stream(): ReadableStream<Uint8Array<ArrayBuffer>> {
    return this.#stream ??= new ReadableStream({
      type: "bytes",
      autoAllocateChunkSize: AUTO_ALLOCATED,
      start: (controller) => {
        this.#controller = controller;
      },
      pull: () => this.#pull(),
      cancel: () => {
        this.#pulled = true;
        if (this.#phase === "receiving") this.#phase = "discarded";
        this.#drop();
      },
    });
  }

  /**
   * Reads the whole body without a stream.
   *
   * @returns Null if the stream exists: only the stream can then be read.
   */
  collect(): Promise<Uint8Array<ArrayBuffer>> | null {
    return this.#stream === null ? this.#collect() : null;
  }

  async #collect(): Promise<Uint8Array<ArrayBuffer>> {
    this.release();
    while (true) {
      this.buffered = 0;
      if (this.#phase !== "receiving") break;
      this.#source.pull();
      await new Promise<void>((resolve) => this.#waiting = resolve);
    }
    const parts = this.#chunks;
    this.#chunks = [];
    const error = this.#failure();
    if (error !== undefined) throw error;
    const [first] = parts;
    return parts.length === 1 && first.length === first.buffer.byteLength ? first : join(parts);
  }

  /**
   * Adds received bytes. Those beyond the declared length are dropped.
   *
   * @param read The buffer of the bytes. The body takes it for long chunks, and copies short ones.
   */
  push(bytes: Uint8Array, read: ReadBuffer): void {
    const room = this.#declared === undefined ? bytes.length : this.#declared - this.#received;
    this.#received += bytes.length;
    if (this.#phase !== "receiving" || room <= 0) return;
    const part = bytes.length > room ? bytes.subarray(0, room) : bytes;
    const filled = this.#fill(part);
    if (filled < part.length) {
      const rest = filled === 0 ? part : part.subarray(filled);
      if (this.#waiting === null && this.#memory?.refuses(this.buffered)) {
        return this.destroy(this.#memory.error());
      }
      // The cast is safe, as no transport reads into a SharedArrayBuffer.
      this.#enqueue(rest as Uint8Array<ArrayBuffer>, read);
      this.buffered += rest.length;
    }
    if (this.arrived) this.#phase = "complete";
    if (this.#received > this.#maxBytes) this.fail(this.#tooLong());
    this.#wake();
  }

  /** Copies as many bytes as fit into the buffer of a pending BYOB read, and returns their number. */
  #fill(bytes: Uint8Array): number {
    const view = this.#view;
    if (view === null) return 0;
    const count = Math.min(bytes.length, view.length - this.#filled);
    view.set(count < bytes.length ? bytes.subarray(0, count) : bytes, this.#filled);
    this.#filled += count;
    return count;
  }

  #enqueue(part: Uint8Array<ArrayBuffer>, read: ReadBuffer): void {
    const last = this.#chunks.at(-1);
    if (last !== undefined && last.buffer === part.buffer) this.#join(last, part);
    else if (part.length >= MIN_TAKEN && read.take()) this.#add(part);
    else if (last !== undefined && last.buffer === this.#copied) this.#append(last, part);
    else this.#copy(part, part.length);
  }

  /** Adds a chunk with a buffer of its own to the queue. */
  #add(chunk: Uint8Array<ArrayBuffer>): void {
    this.#chunks.push(chunk);
    this.#count(chunk.buffer.byteLength);
  }

  /** Counts the length of buffers that are added, or removed if it is negative. */
  #count(bytes: number): void {
    if (this.#memory === null) return;
    this.#counted += bytes;
    this.#memory.add(bytes);
  }

  /** Appends a later part of a taken buffer to its chunk. No two chunks may share a buffer, as the app may transfer one. */
  #join({ buffer, byteOffset, length }: Uint8Array<ArrayBuffer>, part: Uint8Array): void {
    const chunk = new Uint8Array(buffer, byteOffset, length + part.length);
    chunk.set(part, length);
    this.#chunks[this.#chunks.length - 1] = chunk;
  }

  /** Adds a copy of bytes to the queue, in a buffer of its own. */
  #copy(part: Uint8Array, capacity: number): void {
    this.#copied = new ArrayBuffer(capacity);
    const chunk = new Uint8Array(this.#copied, 0, part.length);
    chunk.set(part);
    this.#add(chunk);
  }

  /** Appends bytes to the last chunk, so that many small records become few chunks. */
  #append(last: Uint8Array<ArrayBuffer>, part: Uint8Array): void {
    const end = last.byteOffset + last.length;
    if (end + part.length > last.buffer.byteLength) {
      if (last.length >= MAX_COPIED) return this.#copy(part, part.length);
      this.#chunks.pop();
      this.#count(-last.buffer.byteLength);
      this.#copy(last, Math.max(2 * last.length, last.length + part.length));
      return this.#append(this.#chunks.at(-1)!, part);
    }
    const chunk = new Uint8Array(last.buffer, last.byteOffset, last.length + part.length);
    chunk.set(part, last.length);
    this.#chunks[this.#chunks.length - 1] = chunk;
  }

  /** Ends the body, with an error if it is shorter than declared. */
  end(): void {
    if (this.#phase !== "receiving") return;
    if (this.#declared === undefined || this.arrived) {
      this.#phase = "complete";
      this.#wake();
    } else {
      this.fail(
        new ProtocolError(
          `Cannot read request body as it must have ${this.#declared} bytes: it ended after ${this.#received}`,
        ),
      );
    }
  }

  /** Ends the body with an error, unless it has ended. */
  fail(error: unknown): void {
    if (this.#phase === "complete" || this.#phase === "failed") return;
    this.#phase = "failed";
    this.error = error;
    this.#wake();
  }

  /** Ends the body with an error that the next read fails with, even if all bytes have arrived. Drops them. */
  destroy(error: unknown): void {
    this.#phase = "failed";
    this.error = error;
    this.#drop();
  }

  /** Stops counting the buffered bytes: the app decides whether they are kept. */
  release(): void {
    this.#count(-this.#counted);
    this.#memory = null;
  }

  /** Drops the buffered bytes and all that follow, unless the body has ended. The app can no longer read it. */
  discard(): void {
    if (this.#phase !== "receiving") return;
    this.#phase = "discarded";
    this.#drop();
  }

  #drop(): void {
    this.#chunks = [];
    this.buffered = 0;
    this.#count(-this.#counted);
    this.#wake();
    this.#source.pull();
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = null;
    waiting?.();
  }

  #pull(): Promise<void> | void {
    this.#pulled = true;
    const controller = this.#controller!;
    const request = controller.byobRequest;
    const view = this.#view ?? request?.view as Uint8Array | null | undefined;
    let delivered = 0;
    if (request && view && view.length > AUTO_ALLOCATED) {
      this.#view = view;
      while (this.#chunks.length > 0 && this.#filled < view.length) this.#fillFromQueue();
      delivered = this.#filled;
      if (delivered > 0) {
        this.#view = null;
        this.#filled = 0;
        request.respond(delivered);
      }
    } else {
      const chunk = this.#chunks.shift();
      if (chunk !== undefined) {
        delivered = chunk.length;
        this.buffered -= delivered;
        this.#count(-chunk.buffer.byteLength);
        clearAround(chunk);
        controller.enqueue(chunk);
      }
    }
    if (this.#chunks.length > 0) return;
    if (this.#phase !== "receiving") {
      const error = this.#failure();
      if (error !== undefined) return controller.error(error);
      controller.close();
      controller.byobRequest?.respond(0);
      return;
    }
    this.#source.pull();
    if (delivered > 0) return;
    return new Promise<void>((resolve) => {
      this.#waiting = resolve;
    }).then(() => this.#pull());
  }

  #fillFromQueue(): void {
    const chunk = this.#chunks[0];
    const count = this.#fill(chunk);
    this.buffered -= count;
    if (count < chunk.length) {
      this.#chunks[0] = chunk.subarray(count);
    } else {
      this.#chunks.shift();
      this.#count(-chunk.buffer.byteLength);
    }
  }

  /** Returns the error that the app's read fails with, if it does. */
  #failure(): unknown {
    return this.#phase === "discarded" ? dropped() : this.error;
  }

  #tooLong(): ProtocolError {
    return new ProtocolError(
      `Cannot accept request body as it must have at most ${this.#maxBytes} bytes: it has ${
        this.#declared ?? "more"
      }`,
      413,
    );
  }
}

/**
 * Clears the rest of a chunk's buffer before the app gets it: the app must not see what else came with the same read. Not
 * done when the buffer is taken, as the transport still decodes that rest.
 */
function clearAround({ buffer, byteOffset, length }: Uint8Array): void {
  if (length < buffer.byteLength) {
    new Uint8Array(buffer).fill(0, 0, byteOffset).fill(0, byteOffset + length);
  }
}

/** Joins chunks. Frees those of a long body at once, which would else be in memory twice until a garbage collection. */
function join(chunks: Uint8Array<ArrayBuffer>[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(chunks.reduce((length, chunk) => length + chunk.length, 0));
  const isLong = whole.length >= MIN_FREED;
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.length;
    if (isLong) chunk.buffer.transfer(0);
  }
  return whole;
}

function dropped(): Error {
  return new Error(
    "Cannot read request body: it was discarded when the response was complete. Read it before",
  );
}
