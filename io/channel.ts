import type { Duplex } from "./duplex.ts";
import { type Pending, WriteQueue } from "./write_queue.ts";
import { StallTimer } from "./stall_timer.ts";

/** What a channel tells its driver. */
export interface ChannelHandler {
  /**
   * Bytes came; they are valid during the call only, unless their buffer is kept.
   *
   * @returns Whether it is.
   */
  received(bytes: Uint8Array): boolean;
  /**
   * Whether to read no more for now; {@linkcode Channel.resume} reads on.
   *
   * @param stalled The peer takes nothing of what is sent to it, perhaps because it sends all of its own first.
   */
  shouldPause(stalled: boolean): boolean;
  /** The peer sends no more. It may still read. */
  inputEnded(): void;
  /** The peer is gone or was given up, and the channel closed; or `received` threw this. */
  failed(error: unknown): void;
}

/** Enough for the usual request, so that an idle connection costs little. */
const SMALL_READ = 4096;
const LARGE_READ = 65_536;
/** Large buffers that no connection uses at the moment, for the next that takes in much. */
const spare: Uint8Array<ArrayBuffer>[] = [];
const MOST_SPARE = 16;
/** Turns of the microtask queue in which an app that took bytes comes back for more. */
const TURNS = 8;
/** How long a write may make no progress, while reading is paused, before the peer counts as stalled, in milliseconds. */
const STALL = 50;
const NOTHING = new Uint8Array(0);
/** How long what still comes is read after the answer (rule C15), in all and without a byte, in milliseconds. */
const LINGER = 30_000;
const LINGER_IDLE = 5_000;

function giveBack(buffer: Uint8Array<ArrayBuffer>): void {
  if (spare.length < MOST_SPARE) spare.push(buffer);
}

/** One connection's bytes: reads while the driver can take them, sends what collects, closes without losing either. */
export class Channel {
  /** Whether nothing can be read or sent any more. */
  closed = false;
  /** Whether the peer sends no more. */
  inputEnded = false;
  /** Counts reads. */
  reads = 0;
  #duplex: Duplex;
  #user: ChannelHandler;
  #queue: WriteQueue;
  #writeTimeout: number;
  /** The count of writes at which the peer was last seen to stall. */
  #stalledAt = -1;
  #stallTimer: ReturnType<typeof setInterval> | undefined;
  /** Whether it is closed as soon as all is sent. */
  #finishing = false;
  #lingerUntil = 0;
  #resume: (() => void) | null = null;
  #end: (() => void) | null = null;
  #readStall = new StallTimer();
  #writeStall = new StallTimer();

  /**
   * @param pending What the driver encodes into.
   * @param writeTimeout How long the peer may take nothing, in milliseconds.
   */
  constructor(duplex: Duplex, pending: Pending, user: ChannelHandler, writeTimeout: number) {
    this.#duplex = duplex;
    this.#user = user;
    this.#writeTimeout = writeTimeout;
    this.#queue = new WriteQueue(duplex, pending, (error) => this.#fail(error));
    duplex.setNoDelay?.(true);
  }

  /** Reads to the end; resolves when the channel is closed, and never rejects. */
  async run(): Promise<void> {
    try {
      await this.#read();
    } catch (error) {
      this.#fail(error);
    }
    this.inputEnded = true;
    if (!this.closed && this.#lingerUntil > 0) this.close();
    if (!this.closed) this.#user.inputEnded();
    if (!this.closed) await new Promise<void>((resolve) => this.#end = resolve);
  }

  async #read(): Promise<void> {
    const small = new Uint8Array(SMALL_READ);
    let buffer = small;
    while (!this.closed) {
      // To read while it is being closed would only be called off.
      if (this.#finishing || this.#user.shouldPause(this.#stalled)) {
        await this.#pause();
        continue;
      }
      const count = await this.#duplex.read(buffer);
      if (count === null) {
        if (buffer !== small) giveBack(buffer);
        return;
      }
      this.reads++;
      if (this.#lingerUntil > 0) continue;
      const kept = this.#user.received(buffer.subarray(0, count));
      if (kept || buffer === small && count === SMALL_READ) {
        buffer = spare.pop() ?? new Uint8Array(LARGE_READ);
      } else if (buffer !== small && count < SMALL_READ) {
        giveBack(buffer);
        buffer = small;
      }
      // What comes while the app waits with a buffer of its own goes right there, and need not be held.
      if (count > SMALL_READ) { for (let turn = 0; turn < TURNS; turn++) await null; }
    }
  }

  /** Whether the write under way has made no progress since the peer was seen to stall. */
  get #stalled(): boolean {
    return this.#queue.writing && this.#queue.writes === this.#stalledAt;
  }

  /** Waits for {@linkcode resume}. A peer that stalls meanwhile may be waiting for its own bytes to be read. */
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
    // What was pending may have been the reason.
    if (this.#queue.writing) this.#queue.drained().then(() => this.resume(), () => {});
    return new Promise((resolve) => this.#resume = resolve);
  }

  /** Counts what moves in either direction. */
  get activity(): number {
    return this.reads + this.#queue.writes;
  }

  /** Reads on, where the driver had it wait. */
  resume(): void {
    const resume = this.#resume;
    if (resume !== null) clearInterval(this.#stallTimer);
    this.#resume = null;
    resume?.();
  }

  /**
   * Begins to send what is pending.
   *
   * @returns A promise if there is so much that the caller should wait.
   * @throws What the failed write threw.
   */
  flush(): Promise<void> | void {
    return this.#queue.flush();
  }

  /** Resolves when all that is pending is sent, or the peer is gone. */
  sent(): Promise<void> {
    return this.#queue.finish();
  }

  /** Resolves when what has come by now has been read: a turn of the event loop completes the read under way. */
  polled(): Promise<void> {
    return new Promise((resolve) => setTimeout(resolve, 0));
  }

  /**
   * Sends what is pending, then closes.
   *
   * @param unread Whether the peer may still be sending: what comes is read first, since to close over it would take the
   * answer back.
   */
  async finish(unread: boolean): Promise<void> {
    if (!unread) this.#finishing = true;
    await this.#queue.finish();
    if (this.closed) return;
    if (this.inputEnded || !unread) return this.close();
    this.#lingerUntil = performance.now() + LINGER;
    this.resume();
    await this.#duplex.closeWrite?.().catch(() => {});
  }

  /** Sees to deadlines; to be called about twice a second with `performance.now()`. */
  check(now: number): void {
    const unread = this.#readStall.elapsed(this.reads, now);
    const { writing, writes } = this.#queue;
    const unwritten = this.#writeStall.elapsed(writing ? writes : NaN, now);
    if (this.#lingerUntil > 0) {
      if (now > this.#lingerUntil || unread > LINGER_IDLE) this.close();
    } else if (unwritten > this.#writeTimeout) {
      this.#fail(
        new Error(
          `Closed a connection as its peer must take some of an answer within ${this.#writeTimeout} ms: it took nothing`,
        ),
      );
    }
  }

  /**
   * Finds out whether a peer that sends no more still reads: on a Unix socket an empty write fails once the peer has
   * closed both directions.
   *
   * @returns Whether an empty write can tell. Over TCP it cannot.
   */
  probe(): boolean {
    const { remoteAddr, ignoresEmptyWrites } = this.#duplex;
    if (remoteAddr.transport !== "unix" || ignoresEmptyWrites) return false;
    if (!this.#queue.writing) this.#duplex.write(NOTHING).catch((error) => this.#fail(error));
    return true;
  }

  #fail(error: unknown): void {
    if (this.closed) return;
    this.close();
    this.#user.failed(error);
  }

  /** Closes at once. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    try {
      this.#duplex.close();
    } catch {
      // The peer was faster.
    }
    this.resume();
    this.#end?.();
  }
}
