/** Formats an error for the log: with its stack, if it has one. Never throws, whatever was thrown. */
export function describeError(error: unknown): string {
  const stack = isError(error) ? readProperty(error, "stack") : undefined;
  return typeof stack === "string" ? stack : describeValue(error);
}

/** Returns the message of a thrown value. Never throws. */
export function messageOf(error: unknown): string {
  const message = isError(error) ? readProperty(error, "message") : undefined;
  return typeof message === "string" ? message : describeValue(error);
}

/** Formats a value for a message. Never throws. */
export function describeValue(value: unknown): string {
  try {
    return String(value);
  } catch {
    return `(a value of type ${typeof value} that has no text)`;
  }
}

/** Returns whether a thrown value is an Error. Never throws, as the value may be a proxy. */
export function isError(value: unknown): value is Error {
  try {
    return value instanceof Error;
  } catch {
    return false;
  }
}

/** Reads a property whose getter may throw: it then counts as absent. */
export function readProperty(value: object, name: string): unknown {
  try {
    return Reflect.get(value, name);
  } catch {
    return undefined;
  }
}
