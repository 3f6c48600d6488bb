/** Waits for a promise, and rejects with an error that names it if it takes too long. */
export function deadline<T>(promise: PromiseLike<T>, label: string, ms = 15_000): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(`Waited ${ms} ms for ${label}`)), ms);
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
