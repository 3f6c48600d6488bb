import { setImmediate } from "node:timers";

interface Timer {
  at: number;
  /** The time between two calls of an interval. */
  every?: number;
  callback: () => void;
}

/** How many turns of the event loop settle what one timer has begun. Promises alone take one. */
const TURNS = 2;

/**
 * The clock of this process, which jumps from timer to timer: an hour of waiting takes no time, and the order of events is
 * the same each time. Nothing else may wait: no socket, no file. Disposing sets the clock back.
 */
export class VirtualTime implements Disposable {
  /** The time in milliseconds. */
  now = 0;
  #timers = new Map<number, Timer>();
  #count = 0;
  #originals = {
    now: performance.now,
    setTimeout: globalThis.setTimeout,
    clearTimeout: globalThis.clearTimeout,
    setInterval: globalThis.setInterval,
    clearInterval: globalThis.clearInterval,
    unrefTimer: Deno.unrefTimer,
    refTimer: Deno.refTimer,
  };

  constructor() {
    const clear = (id?: unknown) => void this.#timers.delete(id as number);
    const start = (callback: (...args: unknown[]) => void, ms: number, args: unknown[]) =>
      this.#start(this.now + Math.max(0, ms || 0), () => callback(...args));
    performance.now = () => this.now;
    Object.assign(globalThis, {
      setTimeout: (callback: () => void, ms = 0, ...args: unknown[]) => start(callback, ms, args),
      setInterval: (callback: () => void, ms = 0, ...args: unknown[]) => {
        const id = start(callback, ms, args);
        this.#timers.get(id)!.every = Math.max(1, ms);
        return id;
      },
      clearTimeout: clear,
      clearInterval: clear,
    });
    Object.assign(Deno, { unrefTimer: () => {}, refTimer: () => {} });
  }

  #start(at: number, callback: () => void): number {
    this.#timers.set(++this.#count, { at, callback });
    return this.#count;
  }

  /** Calls a function at a time. */
  at(time: number, callback: () => void): void {
    this.#start(time, callback);
  }

  /** Runs the timers, each when it is due, until a time or until a promise is settled. */
  async run(until: number, done?: Promise<unknown>): Promise<void> {
    let over = false;
    const end = () => over = true;
    done?.then(end, end);
    await this.#settle();
    while (!over) {
      let next: [number, Timer] | undefined;
      for (const entry of this.#timers) {
        if (next === undefined || entry[1].at < next[1].at) next = entry;
      }
      if (next === undefined || next[1].at > until) break;
      const [id, timer] = next;
      this.now = Math.max(this.now, timer.at);
      if (timer.every === undefined) this.#timers.delete(id);
      else timer.at += timer.every;
      timer.callback();
      await this.#settle();
    }
    if (!over) this.now = Math.max(this.now, until);
  }

  async #settle(): Promise<void> {
    for (let turn = 0; turn < TURNS; turn++) {
      await new Promise<void>((resolve) => void setImmediate(resolve));
    }
  }

  [Symbol.dispose](): void {
    const { now, unrefTimer, refTimer, ...timers } = this.#originals;
    performance.now = now;
    Object.assign(globalThis, timers);
    Object.assign(Deno, { unrefTimer, refTimer });
  }
}
