import { assertEquals, assertGreater } from "@std/assert";
import { check, FOUND, fuzz } from "./fuzz.ts";
import { TARGETS } from "./targets.ts";

const SEED = 1;
const DURATION = 2000;

for (const { name } of Deno.readDirSync(FOUND)) {
  if (!name.endsWith(".bin")) continue;
  Deno.test(`${name} is taken as it should be`, async () => {
    await check(TARGETS[name.split(".")[0]], Deno.readFileSync(new URL(name, FOUND)));
  });
}

Deno.test("mutations of captured bytes are decoded alike in any chunking, or rejected", async () => {
  const { inputs, failure } = await fuzz({ seed: SEED, duration: DURATION });
  if (failure !== undefined) {
    console.error(
      `${failure.target} failed: deno task fuzz --seed ${failure.seed} --target ${failure.target}`,
    );
    throw failure.error;
  }
  for (const count of Object.values(inputs)) assertGreater(count, 0);
});

Deno.test("fuzz() finds and minimises what fails", async () => {
  const decode = TARGETS.chunked.take;
  try {
    // A decoder that depends on the chunking.
    TARGETS.chunked.take = (chunks) => chunks.some((chunk) => chunk[0] === 0x41);
    const { failure } = await fuzz({ seed: SEED, duration: 10_000, targets: ["chunked"] });
    assertEquals([failure?.target, failure?.input.at(-1), failure?.input.length], [
      "chunked",
      0x41,
      2,
    ]);
  } finally {
    TARGETS.chunked.take = decode;
  }
});
