import { assertEquals } from "@std/assert";
import { startFleet, workers } from "./testing/fleet.ts";

Deno.test("prefork() delays the replacement of each worker by its own failures", async () => {
  await using fleet = await startFleet("unix");
  let [first, second] = await workers(fleet, 2);
  const delays: string[] = [];
  for (let i = 1; i <= 2; i++) {
    for (const pid of [first, second]) {
      Deno.kill(Number(pid), "SIGKILL");
      await fleet.daemon.says(`Worker ${pid} ended with SIGKILL: replaced in`);
      delays.push(new RegExp(`Worker ${pid} .* in (\\d+) ms`).exec(fleet.daemon.log)![1]);
    }
    [first, second] = await workers(fleet, 2, [first, second]);
  }
  assertEquals(delays, ["100", "100", "200", "200"]);
  fleet.daemon.child.kill("SIGHUP");
  [first] = await workers(fleet, 2, [first, second]);
  Deno.kill(Number(first), "SIGKILL");
  await fleet.daemon.says(`Worker ${first} ended with SIGKILL: replaced in 100 ms`);
});

Deno.test("prefork() replaces its last worker within a second however often it fails", async () => {
  await using fleet = await startFleet("unix", { options: { workers: 1 } });
  for (let i = 1; i <= 6; i++) {
    const [pid] = await workers(fleet, 1);
    Deno.kill(Number(pid), "SIGKILL");
    await fleet.daemon.says("replaced in", i);
  }
  const delays = [...fleet.daemon.log.matchAll(/replaced in (\d+) ms/g)].map(([, ms]) => ms);
  assertEquals(delays, ["100", "200", "400", "800", "1000", "1000"]);
});
