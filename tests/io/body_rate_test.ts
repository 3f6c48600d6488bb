/** The minimum rate of bodies (rule F9). */
import { assertEquals } from "@std/assert";
import { BodyRate } from "../../io/body_rate.ts";

/** Returns the second in which a body is found too slow, if it is within ten minutes. */
function slowAt(minimum: number, receivedAt: (second: number) => number, waits = true) {
  const rate = new BodyRate(minimum);
  for (let second = 1; second <= 600; second++) {
    if (rate.isTooSlow(second * 1000, receivedAt(second), waits)) return second;
  }
  return undefined;
}

Deno.test("BodyRate finds a body too slow after a minute below the minimum", () => {
  assertEquals(slowAt(500, () => 0), 61);
  assertEquals(slowAt(500, (second) => second / 25), 61);
  assertEquals(slowAt(500, (second) => second * 490), 61);
  assertEquals(slowAt(500, (second) => second < 121 ? second * 1000 : 121_000), 181);
});

Deno.test("BodyRate accepts the minimum, any rate with none, and a reader that does not wait", () => {
  assertEquals(slowAt(500, (second) => second * 501), undefined);
  assertEquals(slowAt(0, () => 0), undefined);
  assertEquals(slowAt(500, () => 0, false), undefined);
});
