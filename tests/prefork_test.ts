import {
  assert,
  assertEquals,
  assertNotEquals,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { deadline } from "./testing/deadline.ts";
import { request, slowRequest, startFleet, WORKER, workers } from "./testing/fleet.ts";

for (const transport of ["tcp", "unix"]) {
  Deno.test(`prefork() shares one ${transport} socket among workers`, async () => {
    await using fleet = await startFleet(transport);
    const [first, second] = await workers(fleet, 2);
    assertNotEquals(first, second);
    assertEquals((await fleet.daemon.stop()).code, 0);
    assert(fleet.daemon.log.includes("all ended"));
    if (transport === "unix") assertEquals([...Deno.readDirSync(fleet.directory)].length, 2);
  });

  Deno.test(`prefork() replaces a worker that ends, ${transport}`, async () => {
    await using fleet = await startFleet(transport);
    const before = await workers(fleet, 2);
    await assertRejects(() => request(fleet, "/die"));
    await fleet.daemon.says("ended with code 3");
    const after = await workers(fleet, 2);
    assertEquals(after.filter((pid) => before.includes(pid)).length, 1);
  });
}

Deno.test("prefork() replaces all workers at SIGHUP and rejects no request", async () => {
  await using fleet = await startFleet("unix");
  const before = await workers(fleet, 2);
  let requesting = true;
  let responses = 0;
  const load = Array.from({ length: 4 }, async () => {
    while (requesting) {
      assert(/^\d+$/.test(await request(fleet)));
      responses++;
    }
  });
  fleet.daemon.child.kill("SIGHUP");
  const after = await workers(fleet, 2, before);
  requesting = false;
  await Promise.all(load);
  assert(responses > 0);
  assertEquals(after.filter((pid) => before.includes(pid)), []);
});

Deno.test("prefork() keeps its workers at SIGHUP if a new one cannot start", async () => {
  await using fleet = await startFleet("unix");
  const before = await workers(fleet, 2);
  await Deno.writeTextFile(`${fleet.directory}/worker.ts`, "throw new Error('broken release')");
  fleet.daemon.child.kill("SIGHUP");
  await fleet.daemon.says("Reload failed: ");
  assertEquals((await workers(fleet, 2)).sort(), before.sort());
});

Deno.test("prefork() finishes open requests at SIGTERM", async () => {
  await using fleet = await startFleet("unix");
  await workers(fleet, 2);
  const { response, finish } = await slowRequest(fleet);
  fleet.daemon.child.kill("SIGTERM");
  await finish();
  assert(/^\d+$/.test(await response));
  assertEquals((await fleet.daemon.stop()).code, 0);
});

Deno.test("prefork() exits normally if the socket's file was removed", async () => {
  await using fleet = await startFleet("unix");
  await workers(fleet, 2);
  await Deno.remove(`${fleet.directory}/app.sock`);
  assertEquals((await fleet.daemon.stop()).code, 0);
  assert(fleet.daemon.log.includes("all ended"), fleet.daemon.log);
});

Deno.test("prefork() throws if no worker starts, and removes the socket's file", async () => {
  await using fleet = await startFleet("unix", { worker: "throw new Error('broken release');" });
  const { code } = await deadline(fleet.daemon.child.status, "the supervisor's end");
  assertEquals(code, 1);
  assertStringIncludes(fleet.daemon.log, "Cannot start the workers: all ended before one served");
  assertEquals(fleet.daemon.log.split("ended with code 1 before it served").length - 1, 2);
  await assertRejects(() => Deno.stat(`${fleet.directory}/app.sock`), Deno.errors.NotFound);
});

Deno.test("prefork() replaces a worker that does not start if another does", async () => {
  const first = `
const isFirst = await Deno.mkdir(Deno.args[0] + "/first").then(() => true, () => false);
if (isFirst) throw new Error("the first one");
`;
  await using fleet = await startFleet("unix", { worker: first + WORKER });
  await workers(fleet, 2);
});

Deno.test("prefork() replaces the socket file of a start that was killed", async () => {
  await using fleet = await startFleet("unix", {
    permissions: (path) => {
      // Deno removes only the file that it created.
      const killed = Deno.listen({ transport: "unix", path: `${path}.old` });
      Deno.renameSync(`${path}.old`, `${path}.new`);
      killed.close();
      assert(Deno.lstatSync(`${path}.new`).isSocket);
      return ["--allow-all"];
    },
  });
  await workers(fleet, 2);
});

Deno.test("prefork() needs only the documented permissions", async () => {
  await using fleet = await startFleet("unix", {
    permissions: (path) => [
      "--allow-run",
      "--allow-env",
      ...["net=unix:", "read=", "write="].map((name) =>
        `--allow-${name}${path},${name.endsWith(":") ? "unix:" : ""}${path}.new`
      ),
    ],
  });
  await workers(fleet, 2);
});

Deno.test("prefork() forwards signals if it may run only Deno", async () => {
  await using fleet = await startFleet("tcp", {
    permissions: () => [
      `--allow-run=${Deno.execPath()}`,
      "--allow-env",
      "--allow-net",
    ],
  });
  const before = await workers(fleet, 2);
  fleet.daemon.child.kill("SIGHUP");
  await workers(fleet, 2, before);
  assertEquals((await fleet.daemon.stop()).code, 0);
  assertEquals(fleet.daemon.log.includes("the supervisor has ended"), false, fleet.daemon.log);
});

Deno.test("prefork() handles signals from its first moment", async () => {
  await using fleet = await startFleet("unix");
  fleet.daemon.child.kill("SIGHUP");
  await workers(fleet, 2);
  await using other = await startFleet("unix");
  assertEquals((await other.daemon.stop()).code, 0);
  assert(other.daemon.log.includes("all ended"), other.daemon.log);
});
