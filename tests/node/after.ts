/** Removes what `before.ts` has added: the code under test runs without it. */
Reflect.deleteProperty(globalThis, "Deno");
