/** Lets the clock of this process jump ahead, as it does when the machine was suspended. Disposing sets it back. */
export class JumpingClock implements Disposable {
  #original = performance.now;
  #offset = 0;
  #read = Promise.withResolvers<void>();

  constructor() {
    performance.now = () => {
      this.#read.resolve();
      return this.#original.call(performance) + this.#offset;
    };
  }

  /** Resolves when the time is read. */
  read(): Promise<void> {
    this.#read = Promise.withResolvers();
    return this.#read.promise;
  }

  /** Jumps by an hour. */
  jump(): void {
    this.#offset += 3_600_000;
  }

  [Symbol.dispose](): void {
    performance.now = this.#original;
  }
}

/** Stops the clock of this process, while timers run on: a busy machine makes nothing late. Disposing sets it back. */
export class StoppedClock implements Disposable {
  #original = performance.now;
  #now = performance.now();

  constructor() {
    performance.now = () => this.#now;
  }

  advance(ms: number): void {
    this.#now += ms;
  }

  /** Lets it run from where it stands. */
  run(): void {
    const offset = this.#now - this.#original.call(performance);
    performance.now = () => this.#original.call(performance) + offset;
  }

  [Symbol.dispose](): void {
    performance.now = this.#original;
  }
}

/** Keeps the event loop from turning, as when this process is stopped. */
export function standStill(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}
