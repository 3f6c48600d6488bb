import { assertEquals, assertRejects } from "@std/assert";
import { type Side, Watchdog } from "../../gateway/watchdog.ts";
import { FakeClock } from "../testing/fake_clock.ts";

/** A watchdog, and whom it has found too slow. */
function watch(limits: Record<Side, number>): { watchdog: Watchdog; expired: Side[] } {
  const expired: Side[] = [];
  return { watchdog: new Watchdog(limits, (waited) => expired.push(waited)), expired };
}

/** A promise for a test to settle, and the watchdog's wait for it. */
function waitForClient(watchdog: Watchdog) {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  return { waiting: watchdog.client(promise), resolve, reject };
}

Deno.test("Watchdog expires once when the application has not moved for its time", () => {
  using clock = new FakeClock();
  const { expired } = watch({ application: 100, client: 1000 });
  clock.advance(99);
  assertEquals(expired, []);
  clock.advance(1);
  assertEquals(expired, ["application"]);
  clock.advance(10_000);
  assertEquals([expired, clock.timers], [["application"], 0]);
});

Deno.test("Watchdog.moved() starts the time anew, without a timer of its own", () => {
  using clock = new FakeClock();
  const { watchdog, expired } = watch({ application: 100, client: 1000 });
  for (let i = 0; i < 1000; i++) {
    watchdog.moved();
    clock.advance(1);
  }
  assertEquals(expired, []);
  assertEquals([clock.timers, clock.timersSet <= 12], [1, true]);
  clock.advance(98);
  assertEquals(expired, []);
  clock.advance(1);
  assertEquals(expired, ["application"]);
});

for (const [application, client] of [[100, 1000], [1000, 100], [100, 100]]) {
  const limits = { application, client };
  Deno.test(`Watchdog.client() waits on the client's time: ${JSON.stringify(limits)}`, async () => {
    using clock = new FakeClock();
    const { watchdog, expired } = watch(limits);
    clock.advance(50);
    const first = waitForClient(watchdog);
    clock.advance(client - 1);
    assertEquals(expired, []);
    first.resolve("more room");
    assertEquals(await first.waiting, "more room");
    // Then all of the application's time is left.
    clock.advance(application - 1);
    assertEquals(expired, []);
    watchdog.moved();
    const second = waitForClient(watchdog);
    clock.advance(client);
    assertEquals(expired, ["client"]);
    second.resolve("late");
    assertEquals(await second.waiting, "late");
    clock.advance(10_000);
    assertEquals([expired, clock.timers], [["client"], 0]);
  });
}

Deno.test("Watchdog.client() leaves the time to the client until the last of several waits", async () => {
  using clock = new FakeClock();
  const { watchdog, expired } = watch({ application: 100, client: 1000 });
  const [first, second] = [waitForClient(watchdog), waitForClient(watchdog)];
  clock.advance(500);
  first.resolve("");
  await first.waiting;
  clock.advance(999);
  assertEquals(expired, []);
  second.resolve("");
  await second.waiting;
  clock.advance(100);
  assertEquals(expired, ["application"]);
});

Deno.test("Watchdog.client() rejects as the wait does, and goes on", async () => {
  using clock = new FakeClock();
  const { watchdog, expired } = watch({ application: 100, client: 1000 });
  const { waiting, reject } = waitForClient(watchdog);
  clock.advance(900);
  reject(new Error("the client left"));
  await assertRejects(() => waiting, Error, "the client left");
  clock.advance(99);
  assertEquals(expired, []);
  clock.advance(1);
  assertEquals(expired, ["application"]);
});

Deno.test("Watchdog waits for ever where the limit is Infinity", async () => {
  using clock = new FakeClock();
  const { watchdog, expired } = watch({ application: Infinity, client: 100 });
  assertEquals(clock.timers, 0);
  clock.advance(1e9);
  const { waiting, resolve } = waitForClient(watchdog);
  clock.advance(99);
  resolve("");
  await waiting;
  clock.advance(1e9);
  assertEquals([expired, clock.timers], [[], 0]);
});

Deno.test("Watchdog waits longer than one timer can", () => {
  using clock = new FakeClock();
  const { expired } = watch({ application: 5_000_000_000, client: 1 });
  clock.advance(4_999_999_999);
  assertEquals(expired, []);
  clock.advance(1);
  assertEquals(expired, ["application"]);
});

Deno.test("Watchdog.stop() ends the watch, whoever is waited for", async () => {
  using clock = new FakeClock();
  const { watchdog, expired } = watch({ application: 100, client: 100 });
  const { waiting, resolve } = waitForClient(watchdog);
  watchdog.stop();
  assertEquals(clock.timers, 0);
  clock.advance(1000);
  resolve("");
  await waiting;
  watchdog.moved();
  clock.advance(1000);
  assertEquals([expired, clock.timers], [[], 0]);
});
