import type { Addr } from "./addr.ts";

/** A connection: the part of `Deno.Conn` that a server uses. */
export interface Duplex {
  /** Reads into the buffer and returns the number of bytes; null at the end. */
  read(buffer: Uint8Array): Promise<number | null>;
  /** Writes some of the bytes and returns how many. */
  write(bytes: Uint8Array): Promise<number>;
  /** Closes the writing side. */
  closeWrite?(): Promise<void>;
  /** Closes both sides. */
  close(): void;
  /** Turns off Nagle's algorithm, so that small writes are sent at once. */
  setNoDelay?(on?: boolean): void;
  /** Keeps the process alive while a read is pending. */
  ref?(): void;
  /** Lets the process end while a read is pending. */
  unref?(): void;
  /** Whether an empty write always succeeds. That of `Deno.UnixConn` fails once the peer has closed both sides. */
  readonly ignoresEmptyWrites?: boolean;
  /** The peer's address. */
  readonly remoteAddr: Addr;
}

/** A listener: the part of `Deno.Listener` that a server uses. */
export interface Listener extends AsyncIterable<Duplex> {
  /** The address that it listens on. */
  readonly addr: Addr;
  /** Stops listening. */
  close(): void;
  /** Keeps the process alive while it listens. */
  ref?(): void;
  /** Lets the process end while it listens. */
  unref?(): void;
}
