import { type Endpoint, nameOf } from "./address.ts";
import type { Duplex } from "./duplex.ts";
import { Progress } from "./progress.ts";
import type { Ticked, Ticker } from "./ticker.ts";
import { denoOnly, runtime } from "./runtime.ts";

/**
 * Connects to an endpoint. A Unix socket connects or fails at once.
 *
 * @param timeout How long connecting may take, in milliseconds.
 * @param ticker Enforces the timeout.
 * @throws {Deno.errors.TimedOut} If it takes longer.
 * @throws The error of `Deno.connect`.
 */
export async function connect(
  endpoint: Endpoint,
  timeout: number,
  ticker: Ticker,
): Promise<Duplex> {
  const attempt = new Attempt(endpoint, timeout);
  ticker.add(attempt);
  try {
    return await openDuplex(endpoint, attempt.signal);
  } catch (error) {
    if (attempt.signal.aborted) throw attempt.signal.reason;
    (error as Error).message = `Cannot connect to ${nameOf(endpoint)}: ${(error as Error).message}`;
    throw error;
  } finally {
    ticker.delete(attempt);
  }
}

/** Opens a connection. A Unix socket connects or fails at once. */
export async function openDuplex(endpoint: Endpoint, signal?: AbortSignal): Promise<Duplex> {
  if (denoOnly === undefined) {
    const { connectNode } = await import("./node_socket.ts");
    return await connectNode(endpoint, signal);
  }
  if (endpoint.transport === "unix") return await denoOnly.connect(endpoint);
  return await denoOnly.connect({ ...endpoint, signal });
}

/** An attempt to connect, whose signal aborts after a timeout. */
class Attempt implements Ticked {
  place = -1;
  #endpoint: Endpoint;
  #timeout: number;
  #begun = new Progress();
  #controller = new AbortController();

  constructor(endpoint: Endpoint, timeout: number) {
    this.#endpoint = endpoint;
    this.#timeout = timeout;
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  check(now: number): void {
    if (this.#begun.elapsed(now) < this.#timeout) return;
    this.#controller.abort(
      new runtime.errors.TimedOut(
        `Cannot connect to ${nameOf(this.#endpoint)} within ${this.#timeout} ms`,
      ),
    );
  }
}
