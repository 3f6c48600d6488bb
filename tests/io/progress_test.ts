import { assertEquals } from "@std/assert";
import { Progress } from "../../io/progress.ts";

Deno.test("Progress measures from the first tick after the last progress", () => {
  const progress = new Progress();
  assertEquals([10, 30].map((now) => progress.elapsed(now)), [0, 20]);
  progress.progressed();
  assertEquals([50, 80].map((now) => progress.elapsed(now)), [0, 30]);
});

Deno.test("Progress takes a count from elsewhere, where NaN is progress", () => {
  const progress = new Progress();
  const elapsed = ([now, count]: [number, number]) => progress.elapsed(now, count);
  const seen: [number, number][] = [[10, NaN], [20, 5], [30, 5], [40, 6], [50, 6], [60, NaN]];
  assertEquals(seen.map(elapsed), [0, 0, 10, 0, 10, 0]);
});
