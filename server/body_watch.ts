import { BodyRate } from "../io/body_rate.ts";
import { Progress } from "../io/progress.ts";
import { ProtocolError } from "../wire/protocol_error.ts";
import type { LimitOptions } from "./limits.ts";
import type { RequestBody } from "./request_body.ts";

/** Fails a body whose next bytes do not arrive in time, or arrive too slowly, while the app reads it. */
export class BodyWatch {
  #timeout: number;
  #rate: BodyRate;
  #arrival = new Progress();

  constructor({ bodyTimeout, minBodyRate }: Required<LimitOptions>) {
    this.#timeout = bodyTimeout;
    this.#rate = new BodyRate(minBodyRate);
  }

  /** Enforces the limits. @param now The time of the ticker. */
  check(body: RequestBody, now: number): void {
    const { received, waiting } = body;
    if (this.#rate.isTooSlow(now, received, waiting)) {
      body.fail(
        new ProtocolError(
          `Cannot read request body: fewer than ${this.#rate.minimum} bytes per second arrived (minBodyRate)`,
          408,
        ),
      );
    } else if (this.#arrival.elapsed(now, waiting ? received : NaN) > this.#timeout) {
      body.fail(
        new ProtocolError(
          `Cannot read request body: no bytes arrived for ${this.#timeout} ms`,
          408,
        ),
      );
    }
  }
}
