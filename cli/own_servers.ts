import process from "node:process";
import { formatAddress } from "./address.ts";

/** The functions of Deno that open a listening socket. */
const NAMES = ["serve", "listen", "listenTls"] as const;
/** The time between two checks, in milliseconds. */
const INTERVAL = 250;
/** How many checks a module has to load once it listens, and to listen at all. */
const LOOKS = 8;
/** How long a server of Node may take to listen after `listen()`, in milliseconds. */
const DELAY = 100;

type Opener = (...args: unknown[]) => { addr?: Deno.Addr };

/** Watches which servers a module starts by itself while it is loaded. */
export class OwnServers implements Disposable {
  #originals = NAMES.map((name) => [name, Object.getOwnPropertyDescriptor(Deno, name)!] as const);
  #started: string[] = [];
  #errors = new Set<unknown>();
  #onStart = () => {};

  constructor() {
    for (const [name, original] of this.#originals) {
      // Deno loads Deno.serve when it is read.
      const get = () => this.#watch(name, original.value ?? original.get!.call(Deno));
      Object.defineProperty(Deno, name, { get, configurable: true, enumerable: true });
    }
  }

  #watch(name: string, open: Opener): Opener {
    return (...args) => {
      let text = `Deno.${name}()`;
      try {
        const opened = open.apply(Deno, args);
        if (opened.addr !== undefined) text += ` on ${formatAddress(opened.addr)}`;
        return opened;
      } catch (error) {
        this.#errors.add(error);
        throw error;
      } finally {
        this.#started.push(text);
        this.#onStart();
      }
    };
  }

  /** Returns what has started them, with the address, such as "Deno.serve() on 127.0.0.1:8000". */
  get started(): string[] {
    return [...this.#started, ...nodeServers()];
  }

  /** Returns whether a server of the module failed with this error. */
  failedWith(error: unknown): boolean {
    return this.#errors.has(error);
  }

  /**
   * Waits until a module is loaded.
   *
   * @returns false if it has not loaded a while after it began to listen: it awaits the end of its server.
   */
  async hasLoaded(loading: Promise<unknown>): Promise<boolean> {
    const { promise: stuck, resolve } = Promise.withResolvers<boolean>();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let looks = { idle: 0, listening: 0 };
    const look = () => {
      looks[this.started.length > 0 ? "listening" : "idle"]++;
      if (looks.listening > LOOKS) resolve(false);
      // Not forever: Deno ends a module that waits while nothing else is pending.
      else if (looks.idle < LOOKS) timer = setTimeout(look, INTERVAL);
    };
    timer = setTimeout(look, INTERVAL);
    this.#onStart = () => {
      clearTimeout(timer);
      looks = { idle: 0, listening: 0 };
      timer = setTimeout(look, INTERVAL);
    };
    try {
      return await Promise.race([loading.then(() => true), stuck]);
    } finally {
      this.#onStart = () => {};
      clearTimeout(timer);
    }
  }

  /** Waits for a server of Node after `listen()`: it listens a little later. */
  async settle(): Promise<void> {
    const end = performance.now() + DELAY;
    while (this.started.length === 0 && performance.now() < end) {
      await new Promise((resolve) => setTimeout(resolve, DELAY / 10));
    }
  }

  [Symbol.dispose](): void {
    for (const [name, original] of this.#originals) Object.defineProperty(Deno, name, original);
  }
}

/** What `server.address()` of node:net returns. */
type NodeAddress = { address: string; port: number } | string | null;

function nodeServers(): string[] {
  // Not in the documentation of Node, but in Node and Deno.
  const { _getActiveHandles } = process as { _getActiveHandles?(): unknown[] };
  const handles = _getActiveHandles?.() ?? [];
  return (handles as { listening?: boolean; address?(): NodeAddress }[]).flatMap((handle) => {
    if (handle?.listening !== true || typeof handle.address !== "function") return [];
    const address = handle.address();
    if (address === null) return ["listen() of a Node server"];
    const text = typeof address === "string"
      ? `unix:${address}`
      : formatAddress({ transport: "tcp", hostname: address.address, port: address.port });
    return [`listen() of a Node server on ${text}`];
  });
}
