/**
 * Balances kept connections among workers that share a socket. The first worker that wakes up accepts all connections that
 * wait, as the runtime cannot accept fewer, and gets all requests that the web server then sends on them. So a busy worker
 * reports how many connections keep it busy. The supervisor lets it release some if another worker has fewer: the web
 * server opens others in their place, and an idle worker accepts these first.
 *
 * @module
 */

import { runtime } from "./runtime.ts";

/** A server that can release connections. */
export interface Balanced {
  /** Counts the connections that had requests since the last call and can be released. */
  countBusy(): number;
  /** Releases at most `count` of those that were counted last. @returns How many. */
  release(count: number): number;
}

/** The time between two reports of a worker, in milliseconds. */
export const REPORT = 250;
/** The share of a core from which a worker counts as busy. */
const BUSY = 0.1;

/** The servers of this process. */
const servers = new Set<Balanced>();

/** Adds a server. @returns A function that removes it. */
export function takePart(server: Balanced): () => void {
  servers.add(server);
  return () => servers.delete(server);
}

/** Lets servers of this process release connections. */
export function release(count: number): void {
  for (const server of servers) count -= server.release(count);
}

/**
 * Reports the number of busy connections of this process regularly, unless there is none or the process is mostly idle.
 *
 * @param cpuUsage `process.cpuUsage`, in microseconds.
 * @returns The timer, which lets the process end.
 */
export function reportBusy(
  cpuUsage: () => { user: number; system: number },
  report: (count: number) => void,
): ReturnType<typeof setInterval> {
  const used = () => {
    const { user, system } = cpuUsage();
    return (user + system) / 1000;
  };
  let before = { at: performance.now(), used: used() };
  const timer = setInterval(() => {
    const now = { at: performance.now(), used: used() };
    const isBusy = now.used - before.used > (now.at - before.at) * BUSY;
    before = now;
    const count = servers.values().reduce((sum, server) => sum + server.countBusy(), 0);
    if (isBusy && count > 0) report(count);
  }, REPORT);
  runtime.unrefTimer(timer);
  return timer;
}

/**
 * Returns how many connections a worker should release.
 *
 * @param own How many keep it busy.
 * @param others How many keep each of the others busy.
 */
export function surplus(own: number, others: number[]): number {
  return Math.max(0, Math.floor((own - Math.min(own, ...others)) / 2));
}
