import { type LineOutput, logLine } from "./log.ts";
import { runtime } from "./runtime.ts";

/** How many bytes may wait. */
const MAX_WAITING = 1_048_576;
/** How many bytes still wait when lines are taken again after some were dropped. */
const LOW_WATER = MAX_WAITING / 2;
/** The length of the buffers in which lines wait, in bytes. */
const BUFFER = 262_144;
/**
 * The maximum length of a write to what may be a pipe, in bytes, unless one line is longer. Other workers may write to the
 * same pipe, and one that fills takes only so much as a whole (PIPE_BUF).
 */
const PIPE = 4096;
/**
 * The least time between two writes while less than {@linkcode PIPE} waits, and half of what a slow one takes, in milliseconds.
 * With 2 a line costs twice as much at 1,000 lines a second.
 */
const PAUSE = 10;
/** How long {@linkcode LineQueue.flush} may take, in milliseconds. */
const FLUSH_LIMIT = 1000;
/** How long {@linkcode LineQueue.flushSync} waits for a write that has just begun, in milliseconds. */
const SETTLING = 20;
/** The time between two reports of dropped lines, in milliseconds. */
const REPORT_PAUSE = 1000;
const NEWLINE = 10;

const encoder = new TextEncoder();

/** A buffer of lines. */
interface Part {
  bytes: Uint8Array<ArrayBuffer>;
  /** How many of its bytes were written. */
  at: number;
  /** How many of its bytes are lines. */
  length: number;
}

/** Options of {@linkcode LineQueue}. */
export interface LineQueueOptions {
  /** What messages call it, such as "the access log". */
  name: string;
  /** Whether the output takes a write of any length as a whole, as a file does. @default false */
  whole?: boolean;
  /** Formats a line that stands for lines that were dropped. */
  formatDropped(count: number): string;
  /** Writes a line about failures, elsewhere. @default logLine */
  report?: (line: string) => void;
}

/**
 * Writes lines to an output in order, many at once, and each write whole lines. Never blocks, as the reader of a pipe may
 * stand still and a disk be slow: lines wait in a queue of 1 MiB. Those that find it full are dropped and counted, until
 * half of it is written; the log and stderr then say how many.
 */
export class LineQueue {
  #output: LineOutput;
  #options: LineQueueOptions;
  #report: (line: string) => void;
  /** What waits. The last one may have room for another line. */
  #parts: Part[] = [];
  /** How many bytes wait, with those of the current write. */
  #waiting = 0;
  /**
   * Slow: the current write has not ended while the event loop has turned. Resting: a write has ended, and the next one
   * begins after a pause, or when enough waits.
   */
  #phase: "idle" | "writing" | "slow" | "resting" = "idle";
  /** Full: lines are dropped. Failing: the last write has failed. */
  #trouble: "none" | "full" | "failing" = "none";
  /** How many dropped lines neither the log nor stderr has reported yet. */
  #dropped = 0;
  #unreported = 0;
  #silentUntil = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** How many bytes of the first part are being written. */
  #writing = 0;
  /** The maximum length of a write. */
  #most: number;
  /** Called when nothing waits, while {@linkcode flush} waits for that. */
  #onEmpty: (() => void) | null = null;

  constructor(output: LineOutput, options: LineQueueOptions) {
    this.#output = output;
    this.#options = options;
    this.#report = options.report ?? logLine;
    this.#most = options.whole ? BUFFER : PIPE;
  }

  /** Adds a line, which has no line end. Never throws. */
  write(line: string): void {
    if (this.#trouble === "full" || this.#waiting + line.length >= MAX_WAITING) {
      return this.#refuse();
    }
    this.#append(line);
    if (this.#phase === "idle" || this.#phase === "resting" && this.#waiting >= PIPE) this.#run();
  }

  #refuse(): void {
    if (this.#trouble === "none") {
      this.#trouble = "full";
      this.#say(`Dropping lines of ${this.#options.name}: its output does not take them`);
    }
    this.#drop(1);
  }

  #drop(count: number): void {
    this.#dropped += count;
    this.#unreported += count;
  }

  #append(line: string): void {
    const last = this.#parts.at(-1);
    if (last !== undefined && this.#fill(last, line)) return;
    const part = { bytes: new Uint8Array(BUFFER), at: 0, length: 0 };
    if (!this.#fill(part, line)) {
      part.bytes = encoder.encode(`${line}\n`);
      part.length = part.bytes.length;
      this.#waiting += part.length;
    }
    this.#parts.push(part);
  }

  /** Adds a line to a part. Returns whether it has room. */
  #fill(part: Part, line: string): boolean {
    const { bytes, length } = part;
    if (length + line.length >= bytes.length) return false;
    const { read, written } = encoder.encodeInto(line, bytes.subarray(length, -1));
    if (read < line.length) return false;
    bytes[length + written] = NEWLINE;
    part.length += written + 1;
    this.#waiting += written + 1;
    return true;
  }

  async #run(): Promise<void> {
    do {
      this.#phase = "writing";
      // Twice, as a long turn of the event loop delays the first timer and the end of the write alike.
      this.#after(() => this.#after(() => this.#phase = "slow"));
      const part = this.#parts[0];
      await this.#send(part, this.#endOf(part));
      if (part.at === part.length && this.#parts[0] === part) this.#finish(part);
      this.#recover();
    } while (this.#waiting > 0 && (this.#onEmpty !== null || this.#waiting >= PIPE));
    if (this.#waiting === 0) this.#onEmpty?.();
    this.#phase = "resting";
    this.#after(() => {
      if (this.#waiting > 0) this.#run();
      else this.#phase = "idle";
    });
  }

  /** Calls back after a pause, unless something else is to be called before. */
  #after(call: () => void): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(call, PAUSE);
    // What waits at the end of the program is written then.
    runtime.unrefTimer(this.#timer);
  }

  /** Returns the end of a write: that of as many lines as it may have, or of one that is longer. */
  #endOf({ bytes, at, length }: Part): number {
    if (length - at <= this.#most) return length;
    const last = bytes.lastIndexOf(NEWLINE, at + this.#most - 1);
    return 1 + (last >= at ? last : bytes.indexOf(NEWLINE, at));
  }

  /** Writes lines of a part. */
  async #send(part: Part, end: number): Promise<void> {
    this.#writing = end - part.at;
    try {
      while (part.at < end) {
        const count = await this.#output.write(part.bytes.subarray(part.at, end));
        // The end of the process has taken it.
        if (this.#parts[0] !== part) return;
        this.#wrote(part, count);
        this.#writing = end - part.at;
      }
      if (this.#trouble === "failing") this.#trouble = "none";
    } catch (error) {
      if (this.#parts[0] === part) this.#failed(part, end, error as Error);
    }
    this.#writing = 0;
  }

  #wrote(part: Part, count: number): void {
    if (!(count > 0)) throw new Error(`a write took ${count} bytes`);
    part.at += count;
    this.#waiting -= count;
  }

  /** Drops the lines of a write that has failed. If a line is torn, the next write begins with its rest. */
  #failed(part: Part, end: number, { message }: Error): void {
    const { bytes, at } = part;
    if (this.#trouble !== "failing") {
      this.#say(`Cannot write ${this.#options.name}, and drops lines of it: ${message}`);
    }
    this.#trouble = "failing";
    const isTorn = at > 0 && bytes[at - 1] !== NEWLINE;
    const tornEnd = isTorn ? bytes.indexOf(NEWLINE, at) + 1 : at;
    this.#drop(countLines(bytes.subarray(tornEnd, end)));
    bytes.copyWithin(end - (tornEnd - at), at, tornEnd);
    part.at = end - (tornEnd - at);
    this.#waiting -= part.at - at;
  }

  /** Removes a part that was written, or takes its memory for the next lines. */
  #finish(part: Part): void {
    if (this.#parts.length > 1 || part.bytes.length < BUFFER) this.#parts.shift();
    else part.at = part.length = 0;
  }

  /** Says how many lines were dropped, once others are written again. */
  #recover(): void {
    if (this.#trouble === "full" && this.#waiting <= LOW_WATER) this.#trouble = "none";
    if (this.#trouble !== "none" || this.#unreported === 0) return;
    if (this.#dropped > 0) this.#append(this.#options.formatDropped(this.#dropped));
    this.#dropped = 0;
    if (performance.now() > this.#silentUntil) this.#sayDropped();
  }

  #sayDropped(): void {
    const count = this.#unreported;
    this.#unreported = 0;
    this.#silentUntil = 0;
    const lines = count === 1 ? "line" : "lines";
    this.#say(`Dropped ${count} ${lines} of ${this.#options.name}: its output did not take them`);
  }

  #say(message: string): void {
    if (performance.now() < this.#silentUntil) return;
    this.#report(message);
    this.#silentUntil = performance.now() + REPORT_PAUSE;
  }

  /**
   * Writes what waits. What is left after a limit is dropped, and counted on stderr.
   *
   * @param limit In milliseconds.
   */
  async flush(limit = FLUSH_LIMIT): Promise<void> {
    if (this.#waiting > 0) {
      let timer: ReturnType<typeof setTimeout> | undefined;
      await new Promise<void>((resolve) => {
        this.#onEmpty = resolve;
        timer = setTimeout(resolve, limit);
        if (this.#writing === 0) this.#run();
      });
      clearTimeout(timer);
      this.#onEmpty = null;
    }
    this.#end(true);
  }

  /**
   * Writes what waits, as the process ends at once. Waits a moment for a write that has just begun; if one has blocked,
   * drops the rest, since another would block, too.
   */
  flushSync(): void {
    const isBlocked = this.#phase === "slow";
    if (!isBlocked) {
      if (this.#writing > 0) {
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, SETTLING);
      }
      if (this.#dropped > 0) this.#append(this.#options.formatDropped(this.#dropped));
      try {
        for (const part of this.#parts) this.#writeSync(part);
      } catch {
        // The rest is counted.
      }
    }
    this.#end(isBlocked);
  }

  #writeSync(part: Part): void {
    part.at += this.#writing;
    this.#writing = 0;
    while (part.at < part.length) {
      const lines = part.bytes.subarray(part.at, this.#endOf(part));
      this.#wrote(part, this.#output.writeSync?.(lines) ?? 0);
    }
  }

  /**
   * Drops what waits, and reports all that was dropped.
   *
   * @param isBlocked Whether that includes the current write.
   */
  #end(isBlocked: boolean): void {
    if (!isBlocked && this.#parts.length > 0) this.#parts[0].at += this.#writing;
    for (const { bytes, at, length } of this.#parts) {
      this.#unreported += countLines(bytes.subarray(at, length));
    }
    this.#parts = [];
    this.#waiting = this.#writing = this.#dropped = 0;
    if (this.#unreported > 0) {
      this.#sayDropped();
    }
  }
}

function countLines(bytes: Uint8Array): number {
  let count = 0;
  for (let at = bytes.indexOf(NEWLINE); at >= 0; at = bytes.indexOf(NEWLINE, at + 1)) count++;
  return count;
}

/**
 * Writes what waits in a queue also if the program exits, or ends by an error that nothing catches. A signal that kills
 * the process, or a crash of the runtime, loses what waits: the lines of the last few milliseconds.
 */
export function flushAtEnd(queue: LineQueue): Disposable {
  const flush = () => queue.flushSync();
  // Deno dispatches no `unload` after an error.
  const events = ["unload", "error", "unhandledrejection"];
  for (const event of events) addEventListener(event, flush);
  return {
    [Symbol.dispose]() {
      for (const event of events) removeEventListener(event, flush);
    },
  };
}
