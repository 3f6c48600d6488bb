import { assertEquals } from "@std/assert";
import { RunningRequests } from "../../server/running_requests.ts";
import { deadline } from "../testing/deadline.ts";

Deno.test("RunningRequests counts a request whose client has left until its handler settles", () => {
  const running = new RunningRequests(() => {});
  running.count++;
  let uncounted = 0;
  const settle = running.abandon(() => uncounted++);
  assertEquals([running.count, uncounted], [1, 0]);
  settle();
  assertEquals([running.count, uncounted], [0, 1]);
});

Deno.test("RunningRequests counts a handler that does not settle for some time only, and logs this", async () => {
  const { promise, resolve } = Promise.withResolvers<string>();
  const running = new RunningRequests(resolve, 1);
  running.count++;
  let uncounted = 0;
  const settle = running.abandon(() => uncounted++);
  assertEquals(
    await deadline(promise, "the line of the log"),
    "A handler still runs 1 ms after the end of its request: it no longer counts for maxRequests",
  );
  assertEquals([running.count, uncounted], [0, 1]);
  settle();
  assertEquals([running.count, uncounted], [0, 1]);
});
