import { describeError } from "../io/describe.ts";
import { printableLines } from "../io/printable.ts";

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

/** Formats what a command, or the app that it loads, has thrown. */
export function formatFailure(error: unknown): string {
  const isExplained = error instanceof UsageError || error instanceof Failure;
  // What a message quotes, such as a file's name or an app's error, may have been chosen by others.
  return printableLines(isExplained ? error.message : describeError(error));
}
