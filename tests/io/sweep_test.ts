import { Sweep } from "../../io/sweep.ts";
import { assertLess } from "@std/assert";
import { JumpingClock } from "../testing/clock.ts";
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

Deno.test("Sweep advances its time by a second at most when the machine was suspended", async () => {
  using clock = new JumpingClock();
  const sweep = new Sweep([1]);
  const times: number[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  const checked = {
    place: -1,
    check(now: number) {
      times.push(now);
      if (times.length === 1) {
        clock.jump();
      } else {
        sweep.delete(checked);
        resolve();
      }
    },
  };
  sweep.add(checked);
  await deadline(promise, "the second check");
  assertLess(times[1] - times[0], 1001);
});
