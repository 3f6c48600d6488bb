import type { Duplex } from "./duplex.ts";

/** Bytes waiting to be sent, as the protocol's encoder keeps them. */
export interface Pending {
  /** How many. */
  readonly length: number;
  /** Hands them out. */
  take(): Uint8Array<ArrayBuffer>;
  /** Takes back the storage of what was handed out last. */
  recycle(): void;
}

/** What may wait before a writer is asked to wait, in bytes. */
const HIGH_WATER = 65536;
const NOTHING = new Uint8Array(0);

/**
 * Sends what collects in a buffer, one write at a time: what comes while a write is under way goes with the next, so
 * that many small answers cost one system call.
 */
export class WriteQueue {
  /** Whether a write is under way that the peer has not taken. */
  writing = false;
  /** Counts completed writes: where it stands still, the peer has stalled. */
  writes = 0;
  #duplex: Duplex;
  #pending: Pending;
  #failure: { error: unknown } | null = null;
  #waiting: PromiseWithResolvers<void> | null = null;
  #onfailure: (error: unknown) => void;
  /** What is being sent, and how much of it has been. */
  #bytes: Uint8Array = NOTHING;
  #sent = 0;

  /** @param onfailure Called once, when a write fails. */
  constructor(duplex: Duplex, pending: Pending, onfailure: (error: unknown) => void) {
    this.#duplex = duplex;
    this.#pending = pending;
    this.#onfailure = onfailure;
  }

  /**
   * Begins to send what is pending.
   *
   * @returns A promise if there is so much that the caller should wait.
   * @throws What the write that failed threw.
   */
  flush(): Promise<void> | void {
    if (this.#failure) throw this.#failure.error;
    if (!this.writing) this.#write();
    if (this.#pending.length > HIGH_WATER) return this.drained();
  }

  /** Resolves when all is sent, or the peer is gone. */
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

  // No async function: that would be one more promise for each answer.
  #onwritten = (count: number): void => {
    this.writes++;
    this.#sent += count;
    if (this.#sent < this.#bytes.length) {
      this.#duplex.write(this.#bytes.subarray(this.#sent)).then(this.#onwritten, this.#onerror);
      return;
    }
    this.#bytes = NOTHING;
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
