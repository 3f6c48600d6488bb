import { Sweep } from "../../io/sweep.ts";
import { deadline } from "../testing/deadline.ts";

Deno.test("Sweep checks what is added, and stops its timer without any", async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  const sweep = new Sweep([1]);
  const checked = {
    place: -1,
    check() {
      sweep.delete(checked);
      resolve();
    },
  };
  // The test runner fails if the timer runs on.
  sweep.add(checked);
  await deadline(promise, "the check");
});

Deno.test("Sweep.close() stops the timer once nothing is to be checked", () => {
  const sweep = new Sweep([10_000]);
  const checked = { place: -1, check() {} };
  sweep.add(checked);
  sweep.close();
  sweep.delete(checked);
});
