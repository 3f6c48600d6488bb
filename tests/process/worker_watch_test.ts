import { assertEquals, assertStringIncludes } from "@std/assert";
import type { WorkerProcess } from "../../process/worker_process.ts";
import { WorkerWatch } from "../../process/worker_watch.ts";
import { deadline } from "../testing/deadline.ts";

const RESPONDING = { running: 0, begun: 0, rss: 0, inspected: false };

/** A watch with a timeout of 4 ticks, of a worker that does not exist, or of a process. */
class Watched {
  readonly worker = { phase: "serving", pid: Deno.pid, title: "Worker 1" } as
    & Pick<WorkerProcess, "phase" | "title">
    & { pid: number };
  readonly killed = Promise.withResolvers<void>();
  isKilled = false;
  readonly watch = new WorkerWatch(this.worker as WorkerProcess, 4, () => {
    this.isKilled = true;
    this.killed.resolve();
  });

  tick(count: number): void {
    for (let i = 0; i < count; i++) this.watch.tick(1);
  }

  /** Ticks until the worker is killed. */
  async killing(): Promise<void> {
    const timer = setInterval(() => this.tick(1), 1);
    await deadline(this.killed.promise, "the worker to be killed").finally(() =>
      clearInterval(timer)
    );
  }
}

Deno.test("WorkerWatch kills a worker that has not reported within the timeout", async () => {
  const watched = new Watched();
  watched.watch.heard(RESPONDING);
  await watched.killing();
});

Deno.test("WorkerWatch warns before it kills, however long it takes to look at the worker", async () => {
  const { error } = console;
  const lines: string[] = [];
  console.error = (line) => lines.push(line);
  try {
    const watched = new Watched();
    watched.watch.heard(RESPONDING);
    // All of the timeout is over before it knows whether a signal has stopped the worker.
    watched.tick(4);
    await watched.killing();
  } finally {
    console.error = error;
  }
  assertEquals(lines.length, 2);
  assertStringIncludes(lines[0], "Worker 1 has blocked its event loop for");
  assertStringIncludes(lines[1], "Worker 1 is killed: it has blocked its event loop for");
});

Deno.test("WorkerWatch does not kill a worker that reports, however many ticks it counts", () => {
  const watched = new Watched();
  for (let i = 0; i < 100; i++) {
    watched.watch.heard(RESPONDING);
    watched.tick(1);
  }
  assertEquals(watched.isKilled, false);
});

Deno.test("WorkerWatch does not kill a worker that reports again before it is killed", async () => {
  const watched = new Watched();
  watched.watch.heard(RESPONDING);
  watched.tick(4);
  // What it looks up for this one is known before what it looks up for the next.
  const other = new Watched();
  other.watch.heard(RESPONDING);
  await other.killing();
  watched.watch.heard(RESPONDING);
  watched.tick(1);
  assertEquals(watched.isKilled, false);
});

for (
  const [which, report, phase] of [
    ["starts", RESPONDING, "starting"],
    ["stops", RESPONDING, "stopping"],
    ["is under an inspector", { ...RESPONDING, inspected: true }, "serving"],
    ["has never reported", undefined, "serving"],
  ] as const
) {
  Deno.test(`WorkerWatch does not kill a worker that ${which}`, async () => {
    const watched = new Watched();
    watched.worker.phase = phase;
    if (report !== undefined) watched.watch.heard(report);
    watched.tick(1000);
    const other = new Watched();
    other.watch.heard(RESPONDING);
    await other.killing();
    watched.tick(1000);
    assertEquals(watched.isKilled, false);
  });
}

Deno.test("WorkerWatch does not kill a worker that is stopped, but once it is continued", async () => {
  const child = new Deno.Command("sleep", { args: ["1000"] }).spawn();
  child.kill("SIGSTOP");
  const watched = new Watched();
  watched.worker.pid = child.pid;
  watched.watch.heard(RESPONDING);
  const timer = setInterval(() => watched.tick(1), 1);
  const other = new Watched();
  other.watch.heard(RESPONDING);
  await other.killing();
  assertEquals(watched.isKilled, false);
  child.kill("SIGCONT");
  await deadline(watched.killed.promise, "the worker to be killed");
  clearInterval(timer);
  child.kill("SIGKILL");
  await child.status;
});
