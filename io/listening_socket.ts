import type { Duplex } from "./duplex.ts";

/** A listening socket that was opened by its descriptor. */
export interface ListeningSocket {
  readonly addr: Deno.Addr;
  /** Returns a connection that has arrived, or null if there is none. */
  accept(): Duplex | null;
  /** Stops accepting further connections, if possible: they stay in the system's queue. */
  pause(): void;
  /**
   * Accepts again after a pause, and after the process has run out of descriptors. All that has arrived must have been
   * accepted.
   *
   * @returns Whether it does: not if the process has no free descriptor.
   */
  resume(): boolean;
  ref(): void;
  unref(): void;
  /** Closes the descriptor. All that has arrived must have been accepted. */
  close(): void;
}

/**
 * The length of the system's queue of connections. Opening a socket can set it anew, so it must not be less than whoever
 * opened it has asked for: systemd asks for the maximum, to which the system reduces this number.
 */
export const BACKLOG = 0x3fff_ffff;
