import type { Duplex } from "./duplex.ts";
import { LINGER, LINGER_IDLE } from "./timeouts.ts";
import { ReadBuffer } from "./read_buffer.ts";
import { type Pending, WriteQueue } from "./write_queue.ts";
import { Progress } from "./progress.ts";

/** The driver of a {@linkcode Channel}, which calls these methods. */
export interface ChannelHandler {
  /**
   * Called with the bytes of each read. They are valid during the call only, unless a body takes their buffer.
   *
   * @param buffer The buffer of the bytes.
   */
  received(bytes: Uint8Array, buffer: ReadBuffer): void;
  /**
   * Returns whether to pause reading, until {@linkcode Channel.resume} is called.
   *
   * @param stalled Whether the current write makes no progress, perhaps because the peer sends all of its own data
   * before it reads.
   */
  shouldPause(stalled: boolean): boolean;
  /** Called when the input has ended. The peer may still read. */
  inputEnded(): void;
  /** Called when the channel has closed on an error: of a read, of a write, a timeout, or one that `received` threw. */
  failed(error: unknown): void;
}

/** The error of a channel whose peer has stopped reading. It is logged, unlike that of a peer that has closed. */
export class StallError extends Error {}

/** Large enough for most requests, small enough for idle connections. */
const SMALL_READ = 4096;
const LARGE_READ = 65_536;
/** Large buffers that no connection uses now, for the next large read. */
const spare: ReadBuffer[] = [];
const MAX_SPARE = 16;
/** Turns of the microtask queue within which an app that got bytes reads again. */
const TURNS = 8;
/**
 * How long a write may make no progress, while reading is paused, before the peer counts as stalled, in milliseconds.
 */
const STALL = 50;
const EMPTY = new Uint8Array(0);
/** Resolves after the turns of the last caller of {@linkcode Channel.polled}. */
let poll = Promise.resolve();

function recycle(buffer: ReadBuffer): void {
  if (spare.length < MAX_SPARE) spare.push(buffer);
}

/** The bytes of one connection: reads while the driver accepts them, sends what it encodes, and closes without loss. */
export class Channel {
  /** The number of reads that returned bytes. */
  reads = 0;
  #duplex: Duplex;
  #handler: ChannelHandler;
  #queue: WriteQueue;
  #writeTimeout: number;
  /** The count of writes at which the peer last stalled. */
  #stalledAt = -1;
  #stallTimer: ReturnType<typeof setInterval> | undefined;
  /**
   * Ended: the input has ended, and the peer may still read. Finishing: nothing more is read, and the connection closes as
   * soon as all bytes are sent. Lingering: all are sent, and the input is drained (rule C15).
   */
  #phase: "open" | "ended" | "finishing" | "lingering" | "closed" = "open";
  #resume: (() => void) | null = null;
  #end: (() => void) | null = null;
  #reading = new Progress();
  #writing = new Progress();
  #linger = new Progress();

  /**
   * @param pending The buffer that the driver encodes into.
   * @param writeTimeout How long a write may make no progress, in milliseconds.
   */
  constructor(duplex: Duplex, pending: Pending, handler: ChannelHandler, writeTimeout: number) {
    this.#duplex = duplex;
    this.#handler = handler;
    this.#writeTimeout = writeTimeout;
    this.#queue = new WriteQueue(duplex, pending, (error) => this.#fail(error));
    duplex.setNoDelay?.(true);
  }

  /** Whether the connection is closed. */
  get closed(): boolean {
    return this.#phase === "closed";
  }

  /** Whether the input has ended, and the channel stays open to send. */
  get inputEnded(): boolean {
    return this.#phase === "ended";
  }

  /** Reads until the input ends. Resolves when the channel is closed, and never rejects. */
  async run(): Promise<void> {
    try {
      await this.#read();
    } catch (error) {
      this.#fail(error);
    }
    if (this.#phase === "lingering") this.close();
    if (this.#phase === "open") this.#phase = "ended";
    if (!this.closed) this.#handler.inputEnded();
    if (!this.closed) await new Promise<void>((resolve) => this.#end = resolve);
  }

  async #read(): Promise<void> {
    const small = new ReadBuffer(new Uint8Array(SMALL_READ));
    let buffer = small;
    while (!this.closed) {
      if (this.#shouldPause()) {
        await this.#pause();
        continue;
      }
      const count = await this.#duplex.read(buffer.bytes);
      if (count === null) {
        if (buffer !== small) recycle(buffer);
        return;
      }
      this.reads++;
      if (this.#phase === "lingering") continue;
      this.#handler.received(buffer.bytes.subarray(0, count), buffer);
      if (buffer.taken || buffer === small && count === SMALL_READ) {
        buffer = spare.pop() ?? new ReadBuffer(new Uint8Array(LARGE_READ));
      } else if (buffer !== small && count < SMALL_READ) {
        recycle(buffer);
        buffer = small;
      }
      // Bytes that arrive while a read of the app is pending go to the app at once, and are not queued.
      if (count > SMALL_READ) { for (let turn = 0; turn < TURNS; turn++) await null; }
    }
  }

  #shouldPause(): boolean {
    // close() would only cancel the read.
    if (this.#phase === "finishing") return true;
    return this.#phase !== "lingering" && this.#handler.shouldPause(this.#stalled);
  }

  /** Whether the current write has made no progress since the peer stalled. */
  get #stalled(): boolean {
    return this.#queue.writing && this.#queue.writes === this.#stalledAt;
  }

  /** Waits for {@linkcode resume}. Resumes by itself if the peer stalls: it may read only after it has sent all. */
  #pause(): Promise<void> {
    let before = this.#queue.writing ? this.#queue.writes : NaN;
    this.#stallTimer = setInterval(() => {
      const { writing, writes } = this.#queue;
      if (writing && writes === before) {
        this.#stalledAt = writes;
        this.resume();
      }
      before = writing ? writes : NaN;
    }, STALL);
    // The pending bytes may have been the reason.
    if (this.#queue.writing) this.#queue.drained().then(() => this.resume(), () => {});
    return new Promise((resolve) => this.#resume = resolve);
  }

  /** The number of reads and writes so far. */
  get activity(): number {
    return this.reads + this.#queue.writes;
  }

  /** Resumes reading where the driver paused it. */
  resume(): void {
    const resume = this.#resume;
    if (resume !== null) clearInterval(this.#stallTimer);
    this.#resume = null;
    resume?.();
  }

  /**
   * Starts to send the pending bytes.
   *
   * @returns A promise if so many bytes are pending that the caller should wait.
   * @throws The error of an earlier write that failed.
   */
  flush(): Promise<void> | void {
    return this.#queue.flush();
  }

  /** Resolves when all pending bytes are sent, or a write has failed. */
  sent(): Promise<void> {
    return this.#queue.finish();
  }

  /**
   * Resolves when bytes that have already arrived are read: turns of the event loop complete the pending read. Callers
   * take turns, so that no other code runs between the read and the caller.
   */
  polled(): Promise<void> {
    return poll = poll.then(async () => {
      // The timer of the first turn may be late already, which then polls nothing.
      for (let turn = 0; turn < 2; turn++) await new Promise((resolve) => setTimeout(resolve, 0));
    });
  }

  /**
   * Sends the pending bytes, then closes.
   *
   * @param unread Whether the peer may still be sending. The input is then drained first, as a close over unread bytes
   * can destroy the response (rule C15).
   */
  async finish(unread: boolean): Promise<void> {
    if (!unread && !this.closed) this.#phase = "finishing";
    await this.#queue.finish();
    if (this.#phase === "ended" || this.#phase === "finishing") this.close();
    if (this.#phase !== "open") return;
    this.#phase = "lingering";
    this.resume();
    await this.#duplex.closeWrite?.().catch(() => {});
  }

  /** Enforces the timeouts. @param now The time of a `Ticker`. */
  check(now: number): void {
    const unread = this.#reading.elapsed(now, this.reads);
    const { writing, writes } = this.#queue;
    const unwritten = this.#writing.elapsed(now, writing ? writes : NaN);
    if (this.#phase === "lingering") {
      if (this.#linger.elapsed(now) > LINGER || unread > LINGER_IDLE) this.close();
    } else if (unwritten > this.#writeTimeout) {
      this.#fail(
        new StallError(
          `Closed a connection: its peer read nothing of the response for ${this.#writeTimeout} ms`,
        ),
      );
    }
  }

  /**
   * Checks whether a peer that has closed its writing side still reads: on a Unix socket an empty write fails once the
   * peer has closed both directions. The channel then fails.
   *
   * @returns Whether an empty write shows this. Over TCP it does not.
   */
  probe(): boolean {
    const { remoteAddr, ignoresEmptyWrites } = this.#duplex;
    if (remoteAddr.transport !== "unix" || ignoresEmptyWrites) return false;
    if (!this.#queue.writing) this.#duplex.write(EMPTY).catch((error) => this.#fail(error));
    return true;
  }

  #fail(error: unknown): void {
    if (this.closed) return;
    this.close();
    this.#handler.failed(error);
  }

  /** Closes the connection at once. */
  close(): void {
    if (this.closed) return;
    this.#phase = "closed";
    try {
      this.#duplex.close();
    } catch {
      // It is closed already.
    }
    this.resume();
    this.#end?.();
  }
}
