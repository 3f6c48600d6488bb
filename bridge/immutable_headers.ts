/** The field of `Headers` that says who may change them; undefined if this version of Deno has none of that name. */
let guard: symbol | undefined;

/**
 * Makes headers immutable, as those of a request from `Deno.serve` are. Sets a private field, as no public function does
 * this.
 *
 * @param headers The headers.
 * @returns Whether this version of Deno has that field; if not, the headers stay as they are.
 */
export function makeImmutable(headers: Headers): boolean {
  guard ??= Object.getOwnPropertySymbols(headers).find(({ description }) =>
    description === "guard"
  );
  return guard !== undefined && Reflect.set(headers, guard, "immutable");
}
