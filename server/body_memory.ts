import { ProtocolError } from "../wire/protocol_error.ts";

/** How many unread bytes of a body are buffered before a connection pauses reading (rule C9). */
export const BODY_HIGH_WATER = 262_144;
/** The part of the memory that only bodies of at most that many bytes may use, such as forms. */
const FOR_SMALL = 1 / 4;

/** How many bytes of bodies wait in memory for their apps, over all servers of this process. */
let total = 0;

/** Limits the memory of bodies that apps have not read, over all servers of this process (rule F8). */
export class BodyMemory {
  readonly #limit: number;

  /** @param limit In bytes. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Counts bytes that a body buffers, or no longer buffers if the number is negative. */
  add(bytes: number): void {
    total += bytes;
  }

  /** Whether bodies should grow no more where their connections can pause instead. */
  get isScarce(): boolean {
    return total > this.#limit * (1 - FOR_SMALL);
  }

  /** Returns whether a body must not grow. @param buffered How many bytes of it wait. */
  refuses(buffered: number): boolean {
    return buffered > BODY_HIGH_WATER ? this.isScarce : total > this.#limit;
  }

  /** Creates the error of a body that must not grow. */
  error(): ProtocolError {
    return new ProtocolError(
      `Cannot buffer request body as all that wait for the app must have at most ${this.#limit} bytes: ${total} are in memory. ` +
        "Raise maxBufferedTotal, or read bodies sooner",
      503,
    );
  }
}
