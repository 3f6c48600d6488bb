import { assertEquals, assertRejects } from "@std/assert";
import { RoundTrip } from "../../gateway/round_trip.ts";
import { Ticker } from "../../io/ticker.ts";
import type { ProtocolError } from "../../wire/protocol_error.ts";

/** A round trip that has been checked at time 1, and the status that it was aborted with. */
class Rig {
  readonly roundTrip: RoundTrip;
  status: number | undefined;

  constructor(limits: { timeout: number; clientTimeout: number }) {
    const ticker = new Ticker(1000);
    ticker.close();
    this.roundTrip = new RoundTrip(new Request("http://localhost/"), undefined, limits, ticker);
    this.roundTrip.transport = {
      abort: (reason) => this.status = (reason as ProtocolError).status,
    };
    this.roundTrip.response.catch(() => {});
    assertEquals(this.check(0), undefined);
  }

  /** Checks the round trip. Returns the status that it was aborted with. */
  check(now: number): number | undefined {
    this.roundTrip.check(1 + now);
    return this.status;
  }

  /** Lets the round trip wait for the client, until the test settles the promise. */
  wait() {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    return { waiting: this.roundTrip.waitForClient(promise), resolve, reject };
  }

  [Symbol.dispose](): void {
    this.roundTrip.finish();
  }
}

Deno.test("RoundTrip is aborted with 504 when the application has made no progress for its limit", () => {
  using rig = new Rig({ timeout: 100, clientTimeout: 1000 });
  assertEquals(rig.check(99), undefined);
  assertEquals(rig.check(100), 504);
});

Deno.test("RoundTrip.progressed() restarts the time", () => {
  using rig = new Rig({ timeout: 100, clientTimeout: 1000 });
  for (let now = 90; now < 1000; now += 90) {
    rig.roundTrip.progressed();
    assertEquals(rig.check(now), undefined);
  }
  assertEquals(rig.check(1089), undefined);
  assertEquals(rig.check(1090), 504);
});

for (const [timeout, clientTimeout] of [[100, 1000], [1000, 100], [100, 100]]) {
  const limits = { timeout, clientTimeout };
  Deno.test(`RoundTrip.waitForClient() applies the client's limit: ${JSON.stringify(limits)}`, () => {
    using rig = new Rig(limits);
    assertEquals(rig.check(50), undefined);
    rig.wait();
    assertEquals(rig.check(50), undefined);
    assertEquals(rig.check(50 + clientTimeout - 1), undefined);
    assertEquals(rig.check(50 + clientTimeout), 408);
  });

  Deno.test(`after a wait for the client the application's full limit remains: ${JSON.stringify(limits)}`, async () => {
    using rig = new Rig(limits);
    assertEquals(rig.check(50), undefined);
    const { waiting, resolve } = rig.wait();
    assertEquals(rig.check(50), undefined);
    assertEquals(rig.check(50 + clientTimeout - 1), undefined);
    resolve("more room");
    assertEquals(await waiting, "more room");
    const now = 60 + clientTimeout;
    assertEquals(rig.check(now), undefined);
    assertEquals(rig.check(now + timeout - 1), undefined);
    assertEquals(rig.check(now + timeout), 504);
  });
}

Deno.test("RoundTrip.waitForClient() applies the client's limit until the last of several waits ends", async () => {
  using rig = new Rig({ timeout: 100, clientTimeout: 1000 });
  const [first, second] = [rig.wait(), rig.wait()];
  first.resolve("");
  await first.waiting;
  assertEquals(rig.check(500), undefined);
  assertEquals(rig.check(1499), undefined);
  second.resolve("");
  await second.waiting;
  assertEquals(rig.check(1500), undefined);
  assertEquals(rig.check(1600), 504);
});

Deno.test("RoundTrip.waitForClient() rejects if the wait rejects, and continues", async () => {
  using rig = new Rig({ timeout: 100, clientTimeout: 1000 });
  const { waiting, reject } = rig.wait();
  reject(new Error("the client left"));
  await assertRejects(() => waiting, Error, "the client left");
  assertEquals(rig.check(900), undefined);
  assertEquals(rig.check(1000), 504);
});

Deno.test("RoundTrip waits forever if the limit is Infinity", () => {
  using rig = new Rig({ timeout: Infinity, clientTimeout: 100 });
  assertEquals(rig.check(1e9), undefined);
});
