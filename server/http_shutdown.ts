import type { Addr } from "../io/addr.ts";
import { MAX_DELAY } from "../io/max_delay.ts";
import type { HTTPServer } from "../io/runtime.ts";
import { SHUTDOWN_TIMEOUT } from "../io/timeouts.ts";

/** Limits how long a server that shuts down waits for its requests: that of `Deno.serve` has no limit. */
export function limitShutdown(
  server: HTTPServer<Addr>,
  stop: AbortController,
  signal: AbortSignal | undefined,
  shutdownTimeout = SHUTDOWN_TIMEOUT,
): HTTPServer<Addr> {
  const late = Promise.withResolvers<never>();
  const finished = Promise.race([server.finished, late.promise]);
  // A caller that ignores the promise must not end with an unhandled rejection.
  finished.catch(() => {});
  let stopping: Promise<void> | null = null;

  function shutdown(): Promise<void> {
    return stopping ??= (async () => {
      const timer = setTimeout(() =>
        late.reject(
          new Error(
            `Cannot shut down: some requests have not ended within ${shutdownTimeout} ms. End the process`,
          ),
        ), Math.min(shutdownTimeout, MAX_DELAY));
      try {
        await Promise.race([server.shutdown(), late.promise]);
      } finally {
        clearTimeout(timer);
      }
    })();
  }

  function abort(): void {
    // The signal of Deno.serve does not stop a server that is shutting down.
    if (stopping === null) stop.abort(signal!.reason);
    else late.reject(signal!.reason);
  }

  if (signal?.aborted) abort();
  signal?.addEventListener("abort", abort);
  finished.finally(() => signal?.removeEventListener("abort", abort)).catch(() => {});
  return {
    addr: server.addr,
    finished,
    shutdown,
    ref: () => server.ref(),
    unref: () => server.unref(),
    [Symbol.asyncDispose]: shutdown,
  };
}
