import { type Endpoint, nameOf } from "./address.ts";
import type { Duplex } from "./duplex.ts";
import type { Checked, Sweep } from "./sweep.ts";

/**
 * Connects to an endpoint. A Unix socket connects or fails at once.
 *
 * @param timeout How long connecting may take, in milliseconds.
 * @param sweep Enforces the timeout.
 * @throws {Deno.errors.TimedOut} If it takes longer.
 * @throws The error of `Deno.connect`.
 */
export async function connect(endpoint: Endpoint, timeout: number, sweep: Sweep): Promise<Duplex> {
  const attempt = new Attempt(endpoint, timeout);
  sweep.add(attempt);
  try {
    if (endpoint.transport === "unix") return await Deno.connect(endpoint);
    return await Deno.connect({ ...endpoint, signal: attempt.signal });
  } catch (error) {
    if (attempt.signal.aborted) throw attempt.signal.reason;
    (error as Error).message = `Cannot connect to ${nameOf(endpoint)}: ${(error as Error).message}`;
    throw error;
  } finally {
    sweep.delete(attempt);
  }
}

/** An attempt to connect, whose signal aborts after a timeout. */
class Attempt implements Checked {
  place = -1;
  #endpoint: Endpoint;
  #timeout: number;
  /** The time of the first sweep. */
  #since: number | undefined;
  #controller = new AbortController();

  constructor(endpoint: Endpoint, timeout: number) {
    this.#endpoint = endpoint;
    this.#timeout = timeout;
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  check(now: number): void {
    this.#since ??= now;
    if (now - this.#since < this.#timeout) return;
    this.#controller.abort(
      new Deno.errors.TimedOut(
        `Cannot connect to ${
          nameOf(this.#endpoint)
        } as it must take at most ${this.#timeout} ms: it takes longer`,
      ),
    );
  }
}
