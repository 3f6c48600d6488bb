/**
 * Fuzzes the decoders and servers: `deno task fuzz [--seed N] [--minutes M] [--target NAME]`. A failure prints its seed
 * and its minimised input, and becomes a file in `tests/testdata/fuzz/` that the tests take from then on.
 */
import { parseArgs } from "@std/cli/parse-args";
import { fuzz, keep } from "../tests/fuzz/fuzz.ts";
import { TARGETS } from "../tests/fuzz/targets.ts";

const { seed, minutes, target } = parseArgs(Deno.args, {
  string: ["seed", "minutes", "target"],
});
if (target !== undefined && TARGETS[target] === undefined) {
  console.error(`--target must be one of ${Object.keys(TARGETS).join(", ")}`);
  Deno.exit(2);
}
const start = seed === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(seed);
console.log(`Seed ${start}`);
const { inputs, failure } = await fuzz({
  seed: start,
  duration: Number(minutes ?? 1) * 60_000,
  targets: target === undefined ? undefined : [target],
});
for (const [name, count] of Object.entries(inputs)) {
  console.log(`${name.padEnd(16)} ${String(count).padStart(9)} inputs, each in 4 chunkings`);
}
if (failure !== undefined) {
  console.error(`\n${failure.target} failed with seed ${failure.seed}, on`);
  console.error(JSON.stringify(String.fromCharCode(...failure.input)));
  console.error(failure.error);
  console.error(`\nThe input is now ${keep(failure)}`);
  Deno.exit(1);
}
