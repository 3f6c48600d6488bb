const PROTOTYPE = Request.prototype;
/** Deno's getter: an app may put another signal in its place. */
const getSignal = Reflect.getOwnPropertyDescriptor(PROTOTYPE, "signal")!.get!;

/** The field in which Deno keeps the signal of a request once it was read; null if there is no such field. */
let key: symbol | null | undefined;

/** Returns the signal that a request was created with, whatever an app has put in its place. */
export function nativeSignal(request: Request): AbortSignal {
  return getSignal.call(request);
}

/**
 * Returns whether the client of a request from `Deno.serve` has left, as far as Deno knows: it looks once the signal was
 * read. Does not read a signal that nothing else has read, as each response then aborts it, which costs more than the
 * rest of a small request. Reads a private field for that; reads the signal if the field is missing.
 */
export function hasLeft(request: Request): boolean {
  if (key === undefined) key = findKey();
  if (key !== null && Reflect.get(request, key) === undefined) return false;
  return nativeSignal(request).aborted;
}

function findKey(): symbol | null {
  const sample = new Request("http://localhost/");
  const found = Object.getOwnPropertySymbols(sample).find((symbol) =>
    symbol.description === "signalCache"
  );
  if (found === undefined || Reflect.get(sample, found) !== undefined) return null;
  const signal = nativeSignal(sample);
  return Reflect.get(sample, found) === signal ? found : null;
}
