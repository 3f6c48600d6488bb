/** Workers that are replaced as they do not respond, or have reached a limit. */
import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { prefork, type PreforkOptions } from "../prefork.ts";
import { deadline } from "./testing/deadline.ts";
import { type Fleet, loop, request, startFleet, WORKER, workers } from "./testing/fleet.ts";
import { ended, suspend } from "./testing/processes.ts";

Deno.test("prefork() kills a worker that blocks its event loop, and replaces it at once", async () => {
  await using fleet = await startFleet("unix", { options: { workers: 1, workerTimeout: 1000 } });
  const [first] = await workers(fleet, 1);
  const looping = await loop(fleet);
  assertEquals(String(looping), first);
  await fleet.daemon.says(`Worker ${looping} has blocked its event loop for`);
  await fleet.daemon.says(
    `Worker ${looping} is killed: it has blocked its event loop for`,
  );
  assertMatch(
    fleet.daemon.log,
    /is killed: .* ms, with requests in progress: 1\. The limit is 1000 ms$/m,
  );
  await ended(looping);
  await workers(fleet, 1, [first]);
  assertEquals(fleet.daemon.log.includes("replaced in"), false, fleet.daemon.log);
});

Deno.test("prefork() does not kill a worker that is stopped by a signal", async () => {
  await using fleet = await startFleet("unix", { options: { workerTimeout: 1000 } });
  const [stopped] = await workers(fleet, 2);
  Deno.kill(Number(stopped), "SIGSTOP");
  // The other one loops later, and is killed.
  const looping = await loop(fleet);
  await fleet.daemon.says(`Worker ${looping} is killed`);
  assertEquals(fleet.daemon.log.includes(`Worker ${stopped}`), false, fleet.daemon.log);
  Deno.kill(Number(stopped), "SIGCONT");
  await serves(fleet, stopped);
});

/** Returns the process id of a process's parent. */
async function parentOf(pid: string): Promise<number> {
  const { stdout } = await new Deno.Command("cat", { args: [`/proc/${pid}/stat`] }).output();
  return Number(/\) \w (\d+)/.exec(new TextDecoder().decode(stdout))![1]);
}

Deno.test({
  name: "prefork() does not kill a worker after all of its processes were suspended",
  ignore: Deno.build.os !== "linux",
  async fn() {
    const options = { workers: 1, workerTimeout: 1000 };
    await using fleet = await startFleet("unix", { options });
    await using other = await startFleet("unix", { options });
    const [pid] = await workers(fleet, 1);
    {
      using _supervisor = await suspend({ pid: await parentOf(pid) });
      using _worker = await suspend({ pid: Number(pid) });
      // That takes longer than the timeout.
      await other.daemon.says(`Worker ${await loop(other)} is killed`);
    }
    await serves(fleet, pid);
    await other.daemon.says(`Worker ${await loop(other)} is killed`);
    assertEquals(fleet.daemon.log.includes(`Worker ${pid}`), false, fleet.daemon.log);
  },
});

for (
  const [how, inspected] of [
    ["by its flags", { flags: "--allow-read --allow-write --allow-env --inspect=127.0.0.1:0" }],
    ["while it runs", {
      flags: "--allow-read --allow-write --allow-env --allow-sys --allow-net=127.0.0.1:0",
      worker: `import inspector from "node:inspector";\ninspector.open(0, "127.0.0.1");\n${WORKER}`,
    }],
  ] as const
) {
  Deno.test(`prefork() does not kill a worker that is under an inspector ${how}`, async () => {
    const options = { workers: 1, workerTimeout: 1000 };
    await using fleet = await startFleet("unix", { ...inspected, options });
    const [pid] = await workers(fleet, 1);
    assertEquals(String(await loop(fleet)), pid);
    // One that loops later is killed.
    await using other = await startFleet("unix", { options });
    await other.daemon.says(`Worker ${await loop(other)} is killed`);
    assertEquals(fleet.daemon.log.includes(`Worker ${pid}`), false, fleet.daemon.log);
    fleet.daemon.child.kill("SIGTERM");
    Deno.kill(Number(pid), "SIGKILL");
  });
}

Deno.test("prefork() does not kill a worker that is busy with short requests", async () => {
  await using fleet = await startFleet("unix", { options: { workerTimeout: 1000 } });
  const pids = await workers(fleet, 2);
  const looping = String(await loop(fleet));
  const busy = pids.find((pid) => pid !== looping)!;
  let isOver = false;
  const load = Array.from({ length: 8 }, async () => {
    // One that the looping worker has accepted fails when it is killed.
    while (!isOver) await request(fleet).catch(() => {});
  });
  await fleet.daemon.says(`Worker ${looping} is killed`);
  isOver = true;
  await Promise.all(load);
  assertEquals(fleet.daemon.log.includes(`Worker ${busy}`), false, fleet.daemon.log);
});

/** Waits until a worker responds. */
async function serves(fleet: Fleet, pid: string): Promise<void> {
  const responding = async () => {
    while (!(await Promise.all(Array.from({ length: 8 }, () => request(fleet)))).includes(pid));
  };
  await deadline(responding(), `worker ${pid} to respond: ${fleet.daemon.log}`, 30_000);
}

Deno.test("prefork() replaces workers after maxRequests, and loses no request", async () => {
  await using fleet = await startFleet("unix", { options: { maxRequests: 50 } });
  const seen = new Set<string>();
  const load = Array.from({ length: 4 }, async () => {
    while (seen.size < 6) seen.add(await request(fleet));
  });
  await deadline(Promise.all(load), `requests to six workers: ${fleet.daemon.log}`, 30_000);
  const counts = [...fleet.daemon.log.matchAll(/is replaced as it has begun (\d+) requests/g)];
  assert(counts.length >= 4, fleet.daemon.log);
  // The limit, and up to a tenth; the four clients may each have sent one more.
  for (const [, count] of counts) assert(Number(count) >= 50 && Number(count) <= 59, count);
  // This was no failure. The end of a worker that is being replaced is not logged.
  const replaced = [...fleet.daemon.log.matchAll(/Worker (\d+) is replaced/g)];
  const [pid] = await workers(fleet, 1, replaced.map(([, pid]) => pid));
  Deno.kill(Number(pid), "SIGKILL");
  await fleet.daemon.says("ended with SIGKILL");
  assertMatch(fleet.daemon.log, /ended with SIGKILL(?:$|: replaced in 100 ms)/m);
});

Deno.test("prefork() replaces a worker that exceeds maxMemory", async () => {
  await using fleet = await startFleet("unix", {
    // Far from both: what a busy machine takes from the resident memory of a process is the code that it maps.
    options: { workers: 1, maxMemory: 180 * 2 ** 20 },
  });
  const first = await request(fleet, "/grow");
  await fleet.daemon.says(`Worker ${first} is replaced as it must take at most 180 MiB of memory`);
  await workers(fleet, 1, [first]);
  await ended(Number(first));
});

Deno.test("prefork() fails if a new worker exceeds maxMemory at once", async () => {
  await using fleet = await startFleet("unix", { options: { maxMemory: 2 ** 20 } });
  assertEquals((await deadline(fleet.daemon.child.status, "the end")).code, 1);
  assertMatch(
    fleet.daemon.log,
    /^Worker \d+ was stopped as it must take at most 1 MiB of memory: it takes \d+ MiB$/m,
  );
  assertStringIncludes(
    fleet.daemon.log,
    "Cannot start the workers: a new one takes more memory than its limit, 1 MiB. Raise the limit",
  );
});

Deno.test("prefork() keeps its workers at SIGHUP if a new one hangs", async () => {
  await using fleet = await startFleet("unix", { options: { startTimeout: 1500 } });
  const before = await workers(fleet, 2);
  await Deno.writeTextFile(`${fleet.directory}/worker.ts`, "setInterval(() => {}, 1000);");
  fleet.daemon.child.kill("SIGHUP");
  await fleet.daemon.says("is killed: it does not serve 1500 ms after its start");
  await fleet.daemon.says("Reload failed: ");
  assertEquals((await workers(fleet, 2)).sort(), before.sort());
});

const INVALID: [Partial<PreforkOptions>, string][] = [
  [{ workers: 0 }, "workers must be an integer from 1: current value is 0"],
  [{ workers: 1.5 }, "workers must be an integer from 1: current value is 1.5"],
  [{ shutdownTimeout: -1 }, "shutdownTimeout must be from 0: current value is -1"],
  [{ startTimeout: 0 }, "startTimeout must be from 1: current value is 0"],
  [{ workerTimeout: 999 }, "workerTimeout must be 0 or from 1000: current value is 999"],
  [{ maxRequests: 0 }, "maxRequests must be an integer from 1, or Infinity: current value is 0"],
  [{ maxMemory: NaN }, "maxMemory must be from 1: current value is NaN"],
];
for (const [options, message] of INVALID) {
  Deno.test(`prefork() rejects an option out of range: ${Object.keys(options)} ${Object.values(options)}`, async () => {
    await assertRejects(
      () => prefork({ listen: "fd:1000", workers: 1, command: [], ...options }),
      RangeError,
      `Cannot start workers as ${message}`,
    );
  });
}
