import { assertEquals, assertGreater, assertLess } from "@std/assert";
import { Ticker, tickFor } from "../../io/ticker.ts";
import { JumpingClock } from "../testing/clock.ts";
import { deadline } from "../testing/deadline.ts";

Deno.test("Ticker checks what is added, and stops its timer without any", async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  const ticker = new Ticker(5);
  const checked = {
    place: -1,
    check() {
      ticker.delete(checked);
      resolve();
    },
  };
  // The test runner fails if the timer runs on.
  ticker.add(checked);
  await deadline(promise, "the check");
});

Deno.test("Ticker.close() stops the timer once nothing is to be checked", () => {
  const ticker = new Ticker(1000);
  const checked = { place: -1, check() {} };
  ticker.add(checked);
  ticker.close();
  ticker.delete(checked);
});

/** The times of two checks, between which something happens. */
async function twoTicks(between: (ticker: Ticker) => void): Promise<[number, number]> {
  const ticker = new Ticker(5);
  const times: number[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  const checked = {
    place: -1,
    check(now: number) {
      times.push(now);
      if (times.length === 1) return between(ticker);
      ticker.delete(checked);
      resolve();
    },
  };
  ticker.add(checked);
  await deadline(promise, "the second check");
  return [times[0], times[1]];
}

Deno.test("Ticker advances its time by a second at most when the machine was suspended", async () => {
  using clock = new JumpingClock();
  const [first, second] = await twoTicks(() => clock.jump());
  assertLess(second - first, 1001);
});

Deno.test("Ticker advances its time between ticks", async () => {
  const [first, second] = await twoTicks(() => {});
  assertGreater(second, first);
});

Deno.test("Ticker does not count the time without anything to check", async () => {
  using clock = new JumpingClock();
  const times: number[] = [];
  const ticker = new Ticker(5);
  for (let i = 0; i < 2; i++) {
    const { promise, resolve } = Promise.withResolvers<void>();
    const checked = {
      place: -1,
      check(now: number) {
        times.push(now);
        ticker.delete(checked);
        resolve();
      },
    };
    ticker.add(checked);
    await deadline(promise, "the check");
    // The timer rests after the check.
    await Promise.resolve();
    clock.jump();
  }
  assertLess(times[1] - times[0], 1000);
});

Deno.test("tickFor() returns a tenth of the shortest limit, within bounds", () => {
  assertEquals([[1], [600, Infinity], [60_000]].map((limits) => tickFor(...limits)), [5, 60, 100]);
});
