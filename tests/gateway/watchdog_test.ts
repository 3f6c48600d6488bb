import { assertEquals, assertRejects } from "@std/assert";
import { type Side, Watchdog } from "../../gateway/watchdog.ts";

/** A watchdog that has been checked at time 0. */
function watch(limits: Record<Side, number>): Watchdog {
  const watchdog = new Watchdog(limits);
  assertEquals(watchdog.expired(0), undefined);
  return watchdog;
}

/** A promise for a test to settle, and the watchdog's wait for it. */
function waitForClient(watchdog: Watchdog) {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  return { waiting: watchdog.client(promise), resolve, reject };
}

Deno.test("Watchdog expires when the application has made no progress for its limit", () => {
  const watchdog = watch({ application: 100, client: 1000 });
  assertEquals(watchdog.expired(99), undefined);
  assertEquals(watchdog.expired(100), "application");
});

Deno.test("Watchdog.moved() restarts the time", () => {
  const watchdog = watch({ application: 100, client: 1000 });
  for (let now = 90; now < 1000; now += 90) {
    watchdog.moved();
    assertEquals(watchdog.expired(now), undefined);
  }
  assertEquals(watchdog.expired(1089), undefined);
  assertEquals(watchdog.expired(1090), "application");
});

for (const [application, client] of [[100, 1000], [1000, 100], [100, 100]]) {
  const limits = { application, client };
  Deno.test(`Watchdog.client() applies the client's limit: ${JSON.stringify(limits)}`, async () => {
    const watchdog = watch(limits);
    assertEquals(watchdog.expired(50), undefined);
    const { waiting, resolve } = waitForClient(watchdog);
    assertEquals(watchdog.expired(50), undefined);
    assertEquals(watchdog.expired(50 + client - 1), undefined);
    assertEquals(watchdog.expired(50 + client), "client");
    resolve("more room");
    assertEquals(await waiting, "more room");
    // The application's full limit remains.
    const now = 60 + client;
    assertEquals(watchdog.expired(now), undefined);
    assertEquals(watchdog.expired(now + application - 1), undefined);
    assertEquals(watchdog.expired(now + application), "application");
  });
}

Deno.test("Watchdog.client() applies the client's limit until the last of several waits ends", async () => {
  const watchdog = watch({ application: 100, client: 1000 });
  const [first, second] = [waitForClient(watchdog), waitForClient(watchdog)];
  first.resolve("");
  await first.waiting;
  assertEquals(watchdog.expired(500), undefined);
  assertEquals(watchdog.expired(1499), undefined);
  second.resolve("");
  await second.waiting;
  assertEquals(watchdog.expired(1500), undefined);
  assertEquals(watchdog.expired(1600), "application");
});

Deno.test("Watchdog.client() rejects if the wait rejects, and continues", async () => {
  const watchdog = watch({ application: 100, client: 1000 });
  const { waiting, reject } = waitForClient(watchdog);
  reject(new Error("the client left"));
  await assertRejects(() => waiting, Error, "the client left");
  assertEquals(watchdog.expired(900), undefined);
  assertEquals(watchdog.expired(1000), "application");
});

Deno.test("Watchdog waits forever if the limit is Infinity", () => {
  const watchdog = watch({ application: Infinity, client: 100 });
  assertEquals(watchdog.expired(1e9), undefined);
});
