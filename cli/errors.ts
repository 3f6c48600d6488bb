/** Thrown where the arguments are wrong. The message says what to type instead. */
export class UsageError extends Error {}

/** Thrown where a command fails for a reason that its message explains, so that no stack is printed. */
export class Failure extends Error {}
