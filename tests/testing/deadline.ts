/** How long a test waits for what must happen, in milliseconds. Less than a server lingers, so that a test can distinguish the two. */
const LIMIT = 25_000;
/** The time between two polls, in milliseconds. */
const POLL = 10;

/** The error of {@linkcode deadline}. */
export class LateError extends Error {}

/** Waits for a promise, and rejects with an error that names it if it takes too long. */
export function deadline<T>(promise: PromiseLike<T>, label: string, ms = LIMIT): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new LateError(`Waited ${ms} ms for ${label}`)), ms);
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/**
 * Polls until a condition is true that nothing signals, such as a file, or the end of another program's child.
 *
 * @returns What the condition returned.
 */
export async function eventually<T>(
  label: string,
  condition: () => T | Promise<T>,
): Promise<Exclude<NonNullable<T>, false | 0 | "">> {
  const end = performance.now() + LIMIT;
  for (;;) {
    const result = await condition();
    if (result) return result as Exclude<NonNullable<T>, false | 0 | "">;
    if (performance.now() > end) throw new LateError(`Waited ${LIMIT} ms for ${label}`);
    await new Promise((resolve) => setTimeout(resolve, POLL));
  }
}
