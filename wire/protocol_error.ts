/** What a peer sent wrong, and the status that says so to whoever asked. */
export class ProtocolError extends Error {
  /** The HTTP status to answer with, where an answer is still possible. */
  readonly status: number;

  /**
   * @param message What was seen, what was wanted and, where it helps, what to do.
   * @param status The HTTP status to answer with.
   */
  constructor(message: string, status = 400) {
    super(message);
    this.name = "ProtocolError";
    this.status = status;
  }
}
