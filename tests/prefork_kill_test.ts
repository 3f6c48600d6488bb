/** Workers that are killed while others replace them. */
import { assertEquals, assertNotEquals } from "@std/assert";
import { fetchFastCGI } from "../gateway.ts";
import { Daemon, ROOT } from "./testing/daemon.ts";
import { deadline, eventually } from "./testing/deadline.ts";
import { ended, isAlive } from "./testing/processes.ts";

/** A worker that loads as long as a file is there. */
const WORKER = `
import { serve } from "${ROOT}mod.ts";
const [directory] = Deno.args;
console.error("loads " + Deno.pid + ". child of " + Deno.ppid + ".");
while (await Deno.stat(directory + "/hold").catch(() => null)) {
  await new Promise((resolve) => setTimeout(resolve, 10));
}
const serving = serve(async () => {
  console.error("responds " + Deno.pid + ".");
  while (await Deno.stat(directory + "/hold").catch(() => null)) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return new Response("served");
});
console.error("serves " + Deno.pid + ".");
addEventListener("unload", () => console.error("exits with " + Deno.exitCode + "."));
await serving;
`;
const SUPERVISOR = `
import { prefork } from "${ROOT}prefork.ts";
const [directory] = Deno.args;
await prefork({
  listen: "127.0.0.1:0",
  workers: 2,
  onListen: (addr) => console.error("listens on " + addr.hostname + ":" + addr.port + "."),
  command: ["run", "--no-prompt", "--allow-read", "--allow-env", directory + "/worker.ts", directory],
});
`;

/** Starts a program with two workers, and calls back once both serve. The directory has the program's files. */
async function withWorkers(
  run: (daemon: Daemon, directory: string) => Promise<void>,
): Promise<void> {
  const directory = await Deno.makeTempDir();
  await Deno.writeTextFile(`${directory}/worker.ts`, WORKER);
  await Deno.writeTextFile(`${directory}/supervisor.ts`, SUPERVISOR);
  {
    await using daemon = new Daemon(["--allow-all", `${directory}/supervisor.ts`, directory]);
    await daemon.says("serves", 2);
    await daemon.says("listens on");
    await run(daemon, directory);
  }
  await Deno.remove(directory, { recursive: true });
}

/** The process ids that a daemon has logged after a word. */
function pidsOf(daemon: Daemon, word: string): number[] {
  return [...daemon.log.matchAll(new RegExp(`${word} (\\d+)\\.`, "g"))].map(([, pid]) =>
    Number(pid)
  );
}

const living = (daemon: Daemon) => pidsOf(daemon, "loads").filter(isAlive);

/** Waits until two workers are there that are no others than these. */
async function settled(daemon: Daemon, before: number[]): Promise<number[]> {
  const check = () => {
    const pids = living(daemon);
    const serving = pidsOf(daemon, "serves");
    const fresh = pids.length === 2 && pids.every((pid) => !before.includes(pid));
    return fresh && pids.every((pid) => serving.includes(pid)) && pids;
  };
  return await eventually(`two new workers instead of ${before}`, check);
}

for (const victims of [[0], [1], [0, 1]]) {
  const which = victims.map((victim) => ["first", "second"][victim]).join(" and ");
  Deno.test(`prefork() has as many workers as before when the ${which} is killed during SIGHUP`, () =>
    withWorkers(async (daemon, directory) => {
      // In the order in which they were started, which is the order in which SIGHUP replaces them.
      const before = living(daemon).sort((a, b) => a - b);
      assertEquals(before.length, 2);
      await Deno.writeTextFile(`${directory}/hold`, "");
      daemon.child.kill("SIGHUP");
      await daemon.says("loads", 3);
      for (const victim of victims) Deno.kill(before[victim], "SIGKILL");
      if (victims.includes(1)) await daemon.says(`Worker ${before[1]} ended with SIGKILL`);
      await Deno.remove(`${directory}/hold`);
      const after = await settled(daemon, before);
      // SIGHUP still works.
      daemon.child.kill("SIGHUP");
      assertNotEquals(await settled(daemon, after), after);
    }));
}

Deno.test("prefork() starts no worker after SIGTERM when others end during SIGHUP", () =>
  withWorkers(async (daemon, directory) => {
    const before = living(daemon).sort((a, b) => a - b);
    await Deno.writeTextFile(`${directory}/hold`, "");
    // Requests, until one keeps the second worker busy.
    const [, address] = /listens on (.*)\./.exec(daemon.log)!;
    const requests: Promise<unknown>[] = [];
    while (!pidsOf(daemon, "responds").includes(before[1])) {
      requests.push(fetchFastCGI("http://localhost/", address as "127.0.0.1:0").catch(() => {}));
      await daemon.says("responds", requests.length);
    }
    daemon.child.kill("SIGHUP");
    await daemon.says("loads", 3);
    Deno.kill(before[0], "SIGKILL");
    await ended(before[0]);
    daemon.child.kill("SIGTERM");
    // Its successor ends, while the second worker still responds.
    const [, , successor] = pidsOf(daemon, "loads");
    await ended(successor);
    await Deno.remove(`${directory}/hold`);
    assertEquals((await deadline(daemon.child.status, "the end of all workers")).code, 0);
    await daemon.ended;
    assertEquals(pidsOf(daemon, "loads").length, 3);
    await Promise.all(requests);
  }));

for (const victim of ["supervisor", "program"]) {
  Deno.test(`prefork()'s workers end when the ${victim} is killed, and the log says why`, () =>
    withWorkers(async (daemon) => {
      const killsSupervisor = victim === "supervisor";
      Deno.kill(killsSupervisor ? pidsOf(daemon, "child of")[0] : daemon.child.pid, "SIGKILL");
      await deadline(daemon.ended, `the end of all: ${daemon.log}`);
      const count = (text: string) => daemon.log.split(text).length - 1;
      // The supervisor of a program that is killed ends its workers.
      const expected = killsSupervisor ? [2, 2] : [1, 0];
      const orphans = count("Stopping with exit code 1: the supervisor has ended");
      assertEquals([orphans, count("exits with 1.")], expected, daemon.log);
    }));
}
