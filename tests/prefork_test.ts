import {
  assert,
  assertEquals,
  assertNotEquals,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { fetchFastCGI } from "../gateway.ts";
import { Daemon, ROOT } from "./testing/daemon.ts";
import { deadline } from "./testing/deadline.ts";

/** A worker that responds with its process id; `/slow` waits until a file exists. */
const WORKER = `
import { serve } from "${ROOT}mod.ts";
const directory = Deno.args[0];
await serve(async (request) => {
  const { pathname } = new URL(request.url);
  if (pathname === "/die") Deno.exit(3);
  if (pathname === "/slow") {
    Deno.writeTextFileSync(directory + "/begun", "");
    while (!await Deno.stat(directory + "/go").catch(() => null)) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
  return new Response(String(Deno.pid));
});
`;
const SUPERVISOR = `
import { prefork } from "${ROOT}prefork.ts";
const [directory, listen] = Deno.args;
await prefork({
  listen,
  workers: 2,
  command: ["run", "--no-prompt", "--allow-read", "--allow-write", "--allow-env", directory + "/worker.ts", directory],
  onListen: (addr) => console.error("listening", JSON.stringify(addr)),
});
console.error("all ended");
`;

interface Fleet extends AsyncDisposable {
  daemon: Daemon;
  directory: string;
  /** Its address, or "" if it does not listen. */
  address: string;
}

async function start(
  transport: string,
  worker = WORKER,
  permissions = (_socket: string) => ["--allow-all"],
): Promise<Fleet> {
  const directory = await Deno.makeTempDir();
  await Deno.writeTextFile(`${directory}/worker.ts`, worker);
  await Deno.writeTextFile(`${directory}/supervisor.ts`, SUPERVISOR);
  const listen = transport === "unix" ? `unix:${directory}/app.sock` : "127.0.0.1:0";
  const daemon = new Daemon([
    ...permissions(`${directory}/app.sock`),
    `${directory}/supervisor.ts`,
    directory,
    listen,
  ]);
  // Without a worker that serves, it exits before it listens.
  const address = await addressOf(daemon).catch(() => "");
  return {
    daemon,
    directory,
    address,
    async [Symbol.asyncDispose]() {
      await daemon.stop();
      await Deno.remove(directory, { recursive: true });
    },
  };
}

async function addressOf(daemon: Daemon): Promise<string> {
  await daemon.says("listening");
  const addr = JSON.parse(/listening (.*)/.exec(daemon.log)![1]);
  return addr.path ? `unix:${addr.path}` : `${addr.hostname}:${addr.port}`;
}

async function request(fleet: Fleet, path = "/"): Promise<string> {
  const response = await deadline(
    fetchFastCGI(`http://localhost${path}`, fleet.address, { log: () => {} }),
    `a response to ${path}; the log: ${fleet.daemon.log}`,
  );
  return await response.text();
}

/** Sends requests until `count` workers have responded. Returns their process ids. */
async function workers(fleet: Fleet, count: number, without: string[] = []): Promise<string[]> {
  const seen = new Set<string>();
  const requesting = (async () => {
    while (seen.size < count) {
      const pids = await Promise.all(Array.from({ length: 8 }, () => request(fleet)));
      for (const pid of pids) if (!without.includes(pid)) seen.add(pid);
    }
  })();
  await deadline(requesting, `responses of ${count} workers; the log: ${fleet.daemon.log}`, 30_000);
  return [...seen];
}

for (const transport of ["tcp", "unix"]) {
  Deno.test(`prefork() shares one ${transport} socket among workers`, async () => {
    await using fleet = await start(transport);
    const [first, second] = await workers(fleet, 2);
    assertNotEquals(first, second);
    assertEquals((await fleet.daemon.stop()).code, 0);
    assert(fleet.daemon.log.includes("all ended"));
    if (transport === "unix") assertEquals([...Deno.readDirSync(fleet.directory)].length, 2);
  });

  Deno.test(`prefork() replaces a worker that ends, ${transport}`, async () => {
    await using fleet = await start(transport);
    const before = await workers(fleet, 2);
    await assertRejects(() => request(fleet, "/die"));
    await fleet.daemon.says("ended with code 3");
    const after = await workers(fleet, 2);
    assertEquals(after.filter((pid) => before.includes(pid)).length, 1);
  });
}

Deno.test("prefork() replaces all workers at SIGHUP and rejects no request", async () => {
  await using fleet = await start("unix");
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
  await using fleet = await start("unix");
  const before = await workers(fleet, 2);
  await Deno.writeTextFile(`${fleet.directory}/worker.ts`, "throw new Error('broken release')");
  fleet.daemon.child.kill("SIGHUP");
  await fleet.daemon.says("Kept the workers");
  assertEquals((await workers(fleet, 2)).sort(), before.sort());
});

Deno.test("prefork() finishes open requests at SIGTERM", async () => {
  await using fleet = await start("unix");
  await workers(fleet, 2);
  const slow = request(fleet, "/slow");
  const begun = (async () => {
    while (!await Deno.stat(`${fleet.directory}/begun`).catch(() => null)) await request(fleet);
  })();
  await deadline(begun, "the slow request to begin");
  fleet.daemon.child.kill("SIGTERM");
  await Deno.writeTextFile(`${fleet.directory}/go`, "");
  assert(/^\d+$/.test(await slow));
  assertEquals((await fleet.daemon.stop()).code, 0);
});

Deno.test("prefork() exits normally if the socket's file was removed", async () => {
  await using fleet = await start("unix");
  await workers(fleet, 2);
  await Deno.remove(`${fleet.directory}/app.sock`);
  assertEquals((await fleet.daemon.stop()).code, 0);
  assert(fleet.daemon.log.includes("all ended"), fleet.daemon.log);
});

Deno.test("prefork() throws if no worker starts, and removes the socket's file", async () => {
  await using fleet = await start("unix", "throw new Error('broken release');");
  const { code } = await deadline(fleet.daemon.child.status, "the supervisor's end");
  assertEquals(code, 1);
  assertStringIncludes(fleet.daemon.log, "Cannot start the workers as at least one must serve");
  assertEquals(fleet.daemon.log.split("ended with code 1").length - 1, 2);
  await assertRejects(() => Deno.stat(`${fleet.directory}/app.sock`), Deno.errors.NotFound);
});

Deno.test("prefork() replaces a worker that does not start if another does", async () => {
  const first = `
const isFirst = await Deno.mkdir(Deno.args[0] + "/first").then(() => true, () => false);
if (isFirst) throw new Error("the first one");
`;
  await using fleet = await start("unix", first + WORKER);
  await workers(fleet, 2);
});

Deno.test("prefork() replaces the socket file of a start that was killed", async () => {
  await using fleet = await start("unix", WORKER, (path) => {
    // Deno removes only the file that it created.
    const killed = Deno.listen({ transport: "unix", path: `${path}.old` });
    Deno.renameSync(`${path}.old`, `${path}.new`);
    killed.close();
    assert(Deno.lstatSync(`${path}.new`).isSocket);
    return ["--allow-all"];
  });
  await workers(fleet, 2);
});

Deno.test("prefork() needs only the documented permissions", async () => {
  await using fleet = await start("unix", WORKER, (path) => [
    "--allow-run",
    "--allow-env",
    ...["net=unix:", "read=", "write="].map((name) =>
      `--allow-${name}${path},${name.endsWith(":") ? "unix:" : ""}${path}.new`
    ),
  ]);
  await workers(fleet, 2);
});

Deno.test("prefork() forwards signals if it may run only Deno", async () => {
  await using fleet = await start("tcp", WORKER, () => [
    `--allow-run=${Deno.execPath()}`,
    "--allow-env",
    "--allow-net",
  ]);
  const before = await workers(fleet, 2);
  fleet.daemon.child.kill("SIGHUP");
  await workers(fleet, 2, before);
  assertEquals((await fleet.daemon.stop()).code, 0);
  assertEquals(fleet.daemon.log.includes("its supervisor must run"), false, fleet.daemon.log);
});

Deno.test("prefork() handles signals from its first moment", async () => {
  await using fleet = await start("unix");
  fleet.daemon.child.kill("SIGHUP");
  await workers(fleet, 2);
  await using other = await start("unix");
  assertEquals((await other.daemon.stop()).code, 0);
  assert(other.daemon.log.includes("all ended"), other.daemon.log);
});
