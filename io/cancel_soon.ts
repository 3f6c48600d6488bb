/** A stream or its reader. */
interface Cancelable {
  cancel(reason?: unknown): Promise<void>;
}

/**
 * Cancels a stream after the microtasks and ticks that are due, as `Deno.serve` and `fetch` do. Code that closes its
 * stream meanwhile, or adds a chunk, would get an exception where nothing handles it, which ends the process.
 */
export function cancelSoon(stream: Cancelable, reason?: unknown): void {
  const cancel = () => void stream.cancel(reason).catch(() => {});
  // Two timers: at the start of a process, as in a CGI script, the first one runs before the ticks.
  setTimeout(() => setTimeout(cancel, 0), 0);
}
