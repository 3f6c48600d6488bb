/** Thrown if the arguments are invalid. The message says what to type instead. */
export class UsageError extends Error {}

/** Thrown if a command fails for a reason that the message explains. No stack is printed. */
export class Failure extends Error {}
