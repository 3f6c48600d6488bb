/** The part of `Deno.Conn` that a driver needs. */
export interface Duplex {
  /** Reads into the buffer; null at the end. */
  read(buffer: Uint8Array): Promise<number | null>;
  /** Writes some of the bytes and tells how many. */
  write(bytes: Uint8Array): Promise<number>;
  /** Ends the direction to the peer. */
  closeWrite?(): Promise<void>;
  /** Ends both directions. */
  close(): void;
  /** Sends small writes at once. */
  setNoDelay?(on?: boolean): void;
  /** Whether an empty write does nothing, where `Deno.UnixConn`'s fails once the peer has closed both directions. */
  readonly ignoresEmptyWrites?: boolean;
  /** Who is at the other end. */
  readonly remoteAddr: Deno.Addr;
}

/** The part of `Deno.Listener` that a server needs. */
export interface Listener extends AsyncIterable<Duplex> {
  /** Where it listens. */
  readonly addr: Deno.Addr;
  /** Stops listening. */
  close(): void;
  /** Lets the process live while it listens. */
  ref?(): void;
  /** Lets the process end while it listens. */
  unref?(): void;
}
