/** Workers whose Deno is replaced, as by an upgrade of its package. */
import { assertEquals } from "@std/assert";
import { startFleet, workers } from "./testing/fleet.ts";
import { ReplaceableDeno } from "./testing/replaceable_deno.ts";

Deno.test("prefork() starts workers with the Deno that has replaced its own", async () => {
  await using deno = await ReplaceableDeno.install();
  await using fleet = await startFleet("unix", { deno: deno.path });
  const before = await workers(fleet, 2);
  await deno.replace();
  fleet.daemon.child.kill("SIGHUP");
  const after = await workers(fleet, 2, before);
  Deno.kill(Number(after[0]), "SIGKILL");
  await workers(fleet, 1, [...before, ...after]);
  assertEquals((await fleet.daemon.stop()).code, 0);
});

Deno.test("prefork() keeps its workers and tries again while no Deno is there", async () => {
  await using deno = await ReplaceableDeno.install();
  await using fleet = await startFleet("unix", { deno: deno.path });
  const before = await workers(fleet, 2);
  await deno.remove();
  fleet.daemon.child.kill("SIGHUP");
  await fleet.daemon.says("Reload failed: Worker cannot be started: ");
  Deno.kill(Number(before[0]), "SIGKILL");
  await fleet.daemon.says("Worker cannot be started: ", 2);
  await deno.add();
  await workers(fleet, 1, before);
  assertEquals((await fleet.daemon.stop()).code, 0);
});
