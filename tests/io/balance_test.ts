import { assertEquals } from "@std/assert";
import { release, reportBusy, surplus, takePart } from "../../io/balance.ts";
import { deadline } from "../testing/deadline.ts";

Deno.test("surplus() returns half of what a worker has more than the one with fewest", () => {
  assertEquals(surplus(16, [0]), 8);
  assertEquals(surplus(16, [0, 15, 15]), 8);
  assertEquals(surplus(3, [1]), 1);
  assertEquals(surplus(9, [8]), 0);
  assertEquals(surplus(8, [8]), 0);
  assertEquals(surplus(1, [8]), 0);
  assertEquals(surplus(1, [0]), 0);
  assertEquals(surplus(8, []), 0);
});

/** A server with a number of busy connections. */
function fakeServer(busy: number) {
  return {
    released: 0,
    countBusy: () => busy,
    release(count: number) {
      this.released = Math.min(count, busy);
      return this.released;
    },
  };
}

Deno.test("reportBusy() reports the busy connections of all servers that take part", async () => {
  const leave = takePart(fakeServer(3));
  const stay = takePart(fakeServer(4));
  const reports: number[] = [];
  let more = Promise.withResolvers<void>();
  let used = 0;
  const timer = reportBusy(
    () => ({ user: used += 1_000_000, system: 0 }),
    (count) => {
      reports.push(count);
      more.resolve();
    },
  );
  await deadline(more.promise, "a report");
  leave();
  more = Promise.withResolvers();
  await deadline(more.promise, "another report");
  clearInterval(timer);
  stay();
  assertEquals(reports, [7, 4]);
});

Deno.test("reportBusy() reports nothing of a process that idles, or has no busy connection", async () => {
  for (const [busy, use] of [[3, 0], [0, 1_000_000]]) {
    const leave = takePart(fakeServer(busy));
    let calls = 0;
    const measured = Promise.withResolvers<void>();
    const timer = reportBusy(
      () => {
        if (++calls === 3) measured.resolve();
        return { user: calls * use, system: 0 };
      },
      () => measured.reject(new Error("a report")),
    );
    await deadline(measured.promise, "the measurements");
    clearInterval(timer);
    leave();
  }
});

Deno.test("release() reaches the servers that take part, up to the count", () => {
  const servers = [fakeServer(1), fakeServer(1), fakeServer(4), fakeServer(4)];
  const [leaveFirst, ...leave] = servers.map(takePart);
  leaveFirst();
  release(3);
  leave.forEach((leave) => leave());
  assertEquals(servers.map(({ released }) => released), [0, 1, 2, 0]);
});
