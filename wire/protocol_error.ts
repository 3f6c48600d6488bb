/** Thrown when a peer sends invalid data, or more than a limit allows. */
export class ProtocolError extends Error {
  /** The HTTP status to respond with, if a response can still be sent. */
  readonly status: number;

  /**
   * @param message What is wrong, what is expected and, where it helps, what to do.
   * @param status The HTTP status to respond with.
   */
  constructor(message: string, status = 400) {
    super(message);
    this.name = "ProtocolError";
    this.status = status;
  }
}

/** Returns whether a thrown value is a {@linkcode ProtocolError}. Never throws, as the value may be a proxy. */
export function isProtocolError(error: unknown): error is ProtocolError {
  try {
    return error instanceof ProtocolError;
  } catch {
    return false;
  }
}
