import { grantedVariable } from "./environment.ts";
import type { Duplex } from "./duplex.ts";
import type { Addr } from "./addr.ts";

/** A listening socket that was opened by its descriptor. */
export interface ListeningSocket {
  readonly addr: Addr;
  /** Returns a connection that has arrived, or null if there is none. */
  accept(): Duplex | null;
  /** Stops accepting further connections, if possible: they stay in the system's queue. */
  pause(): void;
  /**
   * Accepts again after a pause, and after the process has run out of descriptors. All that has arrived must have been
   * accepted.
   *
   * @returns False if it cannot, as the process has no free descriptor.
   */
  resume(): boolean;
  ref(): void;
  unref(): void;
  /** Closes the descriptor. All that has arrived must have been accepted. */
  close(): void;
}

/** The variable that gives a worker the backlog of the socket that it shares. */
export const BACKLOG_VARIABLE = "GATEHOUSE_BACKLOG";

/**
 * The number of connections that may wait at an inherited socket. Opening it can set it again, so it must be at least
 * the one that it was opened with: systemd sets 2^30, which the system reduces to its maximum.
 */
export function inheritedBacklog(): number {
  return Number(grantedVariable(BACKLOG_VARIABLE)) || MAX_BACKLOG;
}

const MAX_BACKLOG = 0x3fff_ffff;
