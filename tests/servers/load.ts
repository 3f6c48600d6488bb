import { eventually, within } from "./harness.ts";

/** Clients that send requests until they are stopped. */
export class Load {
  /** How many responses were as they must be. */
  responses = 0;
  /** Whether each client is to end after its current request. */
  stopped = false;
  #done: Promise<unknown>;

  constructor(clients: ((load: Load) => Promise<void>)[]) {
    this.#done = Promise.all(clients.map((client) => client(this)));
    // stop() reports the error.
    this.#done.catch(() => {});
  }

  /** Waits for a number of further responses. */
  async more(count: number): Promise<void> {
    const target = this.responses + count;
    await Promise.race([
      eventually(`${count} more responses`, () => this.responses >= target),
      this.#done,
    ]);
  }

  /** Ends the clients. @throws The first error of one. */
  async stop(): Promise<void> {
    this.stopped = true;
    await within("the last responses", this.#done, 30_000);
  }
}
