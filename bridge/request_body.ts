import { ProtocolError } from "../wire/protocol_error.ts";

/** What a transport is told about the body it feeds. */
export interface RequestBodySource {
  /** The app wants bytes and none are held. */
  wanted(): void;
}

/**
 * With so small a buffer asks who reads in chunks. Without one, bytes for a reader with a buffer that has given up would
 * never reach who reads on in chunks.
 */
const ASKING = 1;
/** From this length on bytes are kept where they are, rather than copied. */
const WORTH_KEEPING = 16_384;

/**
 * A request's body between the transport that receives it and the app that reads it: a queue whose stream is made when
 * asked for. It ends after the declared length, and fails if fewer bytes come (rule A21).
 */
export class RequestBody {
  /** How many bytes are held for the app. */
  buffered = 0;
  /** Whether all of it has come, or no more will. */
  ended = false;
  /** Whether the transport has seen its end. */
  closed = false;
  /** Whether nobody will read it: what comes is dropped. */
  discarded = false;
  /** Why it cannot be read to its end. */
  error: unknown;
  /** Whether its stream has wanted bytes, or was cancelled. */
  #pulled = false;
  #chunks: Uint8Array<ArrayBuffer>[] = [];
  #received = 0;
  #declared: number | undefined;
  #stream: ReadableStream<Uint8Array<ArrayBuffer>> | null = null;
  #controller: ReadableByteStreamController | null = null;
  /** The app's own buffer, where it waits for bytes with one, and how many are in it. */
  #view: Uint8Array | null = null;
  #filled = 0;
  #waiting: (() => void) | null = null;
  #waitingSince = 0;
  #source: RequestBodySource;
  #most: number;

  /**
   * @param source Asked for bytes.
   * @param most How many bytes there may be.
   */
  constructor(source: RequestBodySource, most = Infinity) {
    this.#source = source;
    this.#most = most;
  }

  /**
   * Says what length was announced.
   *
   * @param length In bytes; undefined if none was.
   * @throws {ProtocolError} If it is more than allowed (status 413).
   */
  declare(length: number | undefined): void {
    this.#declared = length;
    if (length === 0) this.ended = true;
    if (length !== undefined && length > this.#most) throw this.#tooLong();
  }

  /** How many bytes have come, the dropped ones included. */
  get received(): number {
    return this.#received;
  }

  /** Whether its stream has been read from, or cancelled. */
  get used(): boolean {
    return this.#pulled || this.#stream !== null && isDisturbed(this.#stream);
  }

  /** The body as the app reads it: in chunks that are its own, or into buffers that it brings. */
  get stream(): ReadableStream<Uint8Array<ArrayBuffer>> {
    return this.#stream ??= new ReadableStream({
      type: "bytes",
      autoAllocateChunkSize: ASKING,
      start: (controller) => {
        this.#controller = controller;
      },
      pull: () => this.#pull(),
      cancel: () => {
        this.#pulled = true;
        this.discard();
      },
    });
  }

  /**
   * All of it at once, without a stream.
   *
   * @returns Null if the stream has been asked for, and has to be read.
   */
  collect(): Promise<Uint8Array<ArrayBuffer>> | null {
    return this.#stream === null ? this.#collect() : null;
  }

  async #collect(): Promise<Uint8Array<ArrayBuffer>> {
    const parts: Uint8Array<ArrayBuffer>[] = [];
    while (true) {
      parts.push(...this.#chunks.splice(0));
      this.buffered = 0;
      if (this.ended || this.discarded) break;
      this.#source.wanted();
      await new Promise<void>((resolve) => this.#waiting = resolve);
    }
    const error = this.#failure();
    if (error !== undefined) throw error;
    const [first] = parts;
    return parts.length === 1 && first.length === first.buffer.byteLength ? first : concat(parts);
  }

  /**
   * Takes bytes that came. What exceeds the declared length is dropped.
   *
   * @param mayKeep Whether their buffer may be kept, and what is before them in it written over: no other body may have
   * kept it.
   * @returns Whether they are kept where they are, as many are: their buffer is then the app's. Others are copied.
   */
  push(bytes: Uint8Array, mayKeep: boolean): boolean {
    const room = this.#declared === undefined ? bytes.length : this.#declared - this.#received;
    this.#received += bytes.length;
    if (this.ended || this.discarded || room <= 0) return false;
    const part = bytes.length > room ? bytes.subarray(0, room) : bytes;
    const filled = this.#fill(part);
    let kept = false;
    if (filled < part.length) {
      const rest = filled === 0 ? part : part.subarray(filled);
      // Nobody reads into shared memory.
      kept = this.#hold(rest as Uint8Array<ArrayBuffer>, mayKeep);
      this.buffered += rest.length;
    }
    if (this.#declared !== undefined && this.#received >= this.#declared) this.ended = true;
    if (this.#received > this.#most) this.fail(this.#tooLong());
    this.#wake();
    return kept;
  }

  /** Copies bytes into the buffer that the app waits with, as far as they fit, and tells how many. */
  #fill(bytes: Uint8Array): number {
    const view = this.#view;
    if (view === null) return 0;
    const count = Math.min(bytes.length, view.length - this.#filled);
    view.set(count < bytes.length ? bytes.subarray(0, count) : bytes, this.#filled);
    this.#filled += count;
    return count;
  }

  #hold(part: Uint8Array<ArrayBuffer>, mayKeep: boolean): boolean {
    const last = this.#chunks.at(-1);
    if (mayKeep && last !== undefined && last.buffer === part.buffer) {
      // Moved up to what came before it, so that no two chunks share a buffer: the app may hand one on.
      const end = last.byteOffset + last.length;
      new Uint8Array(part.buffer).copyWithin(end, part.byteOffset, part.byteOffset + part.length);
      this.#chunks[this.#chunks.length - 1] = new Uint8Array(
        part.buffer,
        last.byteOffset,
        last.length + part.length,
      );
      return true;
    }
    const kept = mayKeep && part.length >= WORTH_KEEPING;
    this.#chunks.push(kept ? part : part.slice());
    return kept;
  }

  /** Says that no more comes. */
  end(): void {
    if (this.ended) return;
    this.ended = true;
    if (this.#declared !== undefined && this.#received < this.#declared) {
      this.error = new ProtocolError(
        `Cannot read request body as it must have ${this.#declared} bytes: it ended after ${this.#received}`,
      );
    }
    this.#wake();
  }

  /** Ends the body with an error; a body that has come whole stays whole. */
  fail(error: unknown): void {
    if (this.ended) return;
    this.ended = true;
    this.error = error;
    this.#wake();
  }

  /**
   * Fails it if the app has waited too long for its next bytes.
   *
   * @param now The time, in milliseconds.
   * @param timeout How long it may wait.
   */
  check(now: number, timeout: number): void {
    if (this.#waiting === null) return;
    this.#waitingSince ||= now;
    if (now - this.#waitingSince <= timeout) return;
    this.fail(
      new ProtocolError(
        `Cannot read request body as its next bytes must come within ${timeout} ms: none came`,
        408,
      ),
    );
  }

  /** Drops what is held and what still comes: nobody may read it any more. */
  discard(): void {
    this.discarded = true;
    this.#chunks = [];
    this.buffered = 0;
    this.#wake();
    this.#source.wanted();
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = null;
    this.#waitingSince = 0;
    waiting?.();
  }

  #pull(): Promise<void> | void {
    this.#pulled = true;
    const controller = this.#controller!;
    const request = controller.byobRequest;
    const view = this.#view ?? request?.view as Uint8Array | null | undefined;
    let given = 0;
    if (request && view && view.length > ASKING) {
      this.#view = view;
      while (this.#chunks.length > 0 && this.#filled < view.length) this.#fillFromHeld();
      given = this.#filled;
      if (given > 0) {
        this.#view = null;
        this.#filled = 0;
        request.respond(given);
      }
    } else {
      const chunk = this.#chunks.shift();
      if (chunk !== undefined) {
        given = chunk.length;
        this.buffered -= given;
        clearAround(chunk);
        controller.enqueue(chunk);
      }
    }
    if (this.#chunks.length > 0) return;
    if (this.ended || this.discarded) {
      const error = this.#failure();
      if (error !== undefined) return controller.error(error);
      controller.close();
      controller.byobRequest?.respond(0);
      return;
    }
    this.#source.wanted();
    if (given > 0) return;
    return new Promise<void>((resolve) => {
      this.#waiting = resolve;
    }).then(() => this.#pull());
  }

  #fillFromHeld(): void {
    const chunk = this.#chunks[0];
    const count = this.#fill(chunk);
    this.buffered -= count;
    if (count < chunk.length) this.#chunks[0] = chunk.subarray(count);
    else this.#chunks.shift();
  }

  /** Why it ends before its end, if it does. */
  #failure(): unknown {
    return this.error ?? (this.discarded && !this.ended ? dropped() : undefined);
  }

  #tooLong(): ProtocolError {
    return new ProtocolError(
      `Cannot take request body as it must have at most ${this.#most} bytes: it has ${
        this.#declared ?? "more"
      }`,
      413,
    );
  }
}

/** The field of a stream that says whether it was read from; undefined if this version of Deno has none of that name. */
let disturbed: symbol | undefined;

/**
 * Whether a stream was read from or cancelled. Reads a private field, as a stream wants no bytes before the turn after its
 * creation, and no public function tells of a read before then; returns false if the field is missing.
 */
function isDisturbed(stream: ReadableStream): boolean {
  disturbed ??= Object.getOwnPropertySymbols(stream).find(({ description }) =>
    description === "[[disturbed]]"
  );
  return disturbed !== undefined && Reflect.get(stream, disturbed) === true;
}

/** What was received before and after it is not the app's. */
function clearAround({ buffer, byteOffset, length }: Uint8Array): void {
  if (length < buffer.byteLength) {
    new Uint8Array(buffer).fill(0, 0, byteOffset).fill(0, byteOffset + length);
  }
}

function dropped(): Error {
  return new Error(
    "Cannot read request body as it must be read before the answer is complete: it was dropped",
  );
}

function concat(parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
