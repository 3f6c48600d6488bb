/** Thrown if the arguments are invalid. The message says what to type instead. */
export class UsageError extends Error {}

/** Thrown if a command fails for a reason that the message explains. No stack is printed. */
export class Failure extends Error {
  /** The exit code of the command line. */
  readonly exitCode: number;

  constructor(message: string, options: ErrorOptions & { exitCode?: number } = {}) {
    super(message, options);
    this.exitCode = options.exitCode ?? 1;
  }
}
