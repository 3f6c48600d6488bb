import type { Duplex } from "./duplex.ts";

/** Bytes to send, in the buffer of the protocol's encoder. */
export interface Pending {
  /** The number of bytes. */
  readonly length: number;
  /** Returns the bytes and empties the buffer. */
  take(): Uint8Array<ArrayBuffer>;
  /** Reuses the storage of the bytes that `take()` returned last. */
  recycle(): void;
}

/** The number of pending bytes beyond which a writer waits. */
const HIGH_WATER = 65536;
const EMPTY = new Uint8Array(0);

/**
 * Sends the bytes of a buffer, one write at a time. Bytes that are added during a write go with the next one, so that
 * many small responses cost one system call.
 */
export class WriteQueue {
  /** Whether a write is in progress. */
  writing = false;
  /** The number of completed writes. While it does not change during a write, the peer has stalled. */
  writes = 0;
  #duplex: Duplex;
  #pending: Pending;
  #failure: { error: unknown } | null = null;
  #waiting: PromiseWithResolvers<void> | null = null;
  #onfailure: (error: unknown) => void;
  /** The bytes of the current write, and how many of them are sent. */
  #bytes: Uint8Array = EMPTY;
  #sent = 0;

  /** @param onfailure Called once, when a write fails. */
  constructor(duplex: Duplex, pending: Pending, onfailure: (error: unknown) => void) {
    this.#duplex = duplex;
    this.#pending = pending;
    this.#onfailure = onfailure;
  }

  /**
   * Starts to send the pending bytes.
   *
   * @returns A promise if so many bytes are pending that the caller should wait.
   * @throws The error of an earlier write that failed.
   */
  flush(): Promise<void> | void {
    if (this.#failure) throw this.#failure.error;
    if (!this.writing) this.#write();
    if (this.#pending.length > HIGH_WATER) return this.drained();
  }

  /** Resolves when all pending bytes are sent, or a write has failed. */
  async finish(): Promise<void> {
    while (!this.#failure && (this.writing || this.#pending.length > 0)) {
      if (!this.writing) this.#write();
      await this.drained().catch(() => {});
    }
  }

  /** Resolves when little enough is pending for more; rejects if a write fails. */
  drained(): Promise<void> {
    this.#waiting ??= Promise.withResolvers();
    return this.#waiting.promise;
  }

  #write(): void {
    this.writing = true;
    this.#bytes = this.#pending.take();
    this.#sent = 0;
    this.#duplex.write(this.#bytes).then(this.#onwritten, this.#onerror);
  }

  // Not an async function, which would create one more promise for each response.
  #onwritten = (count: number): void => {
    this.writes++;
    this.#sent += count;
    if (this.#sent < this.#bytes.length) {
      this.#duplex.write(this.#bytes.subarray(this.#sent)).then(this.#onwritten, this.#onerror);
      return;
    }
    this.#bytes = EMPTY;
    this.#pending.recycle();
    this.writing = false;
    if (this.#waiting && this.#pending.length <= HIGH_WATER) {
      this.#waiting.resolve();
      this.#waiting = null;
    }
    if (this.#pending.length > 0) this.#write();
  };

  #onerror = (error: unknown): void => {
    this.writing = false;
    this.#failure = { error };
    this.#waiting?.promise.catch(() => {});
    this.#waiting?.reject(error);
    this.#waiting = null;
    this.#onfailure(error);
  };
}
