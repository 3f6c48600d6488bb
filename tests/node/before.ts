/** Lets the tests of `wire/` and `bridge/` register with Node's test runner. Nothing else of `Deno` is there. */
import { test } from "node:test";

/** Tests that send a request to a server, which needs `Deno`. */
const SERVED = new Set(["a request survives the round trip through its variables"]);

type Run = () => unknown;

function register(name: string, second: Run | object, third?: Run): void {
  const run = (third ?? second) as Run;
  test(name, { skip: SERVED.has(name) }, async () => {
    if ("Deno" in globalThis) throw new Error("There must be no Deno global: there is one");
    await run();
  });
}

Object.assign(globalThis, { Deno: { test: register } });

// Node 20 lacks what follows; Node 22 has it.
Promise.withResolvers ??= function <T>() {
  let resolve!: PromiseWithResolvers<T>["resolve"];
  let reject!: PromiseWithResolvers<T>["reject"];
  const promise = new Promise<T>((...both) => [resolve, reject] = both);
  return { promise, resolve, reject };
};
Array.fromAsync ??= async function <T>(items: AsyncIterable<T>) {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
} as typeof Array.fromAsync;
