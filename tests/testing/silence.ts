/** Drops what is written by `console.error()`, such as the logs of servers, until the result is disposed of. */
export function silence(): Disposable {
  const { error } = console;
  console.error = () => {};
  return { [Symbol.dispose]: () => console.error = error };
}
