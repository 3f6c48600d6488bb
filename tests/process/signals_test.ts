import { assertEquals } from "@std/assert";
import { Daemon, ROOT } from "../testing/daemon.ts";
import { deadline } from "../testing/deadline.ts";
import { interruptUntil } from "../testing/processes.ts";

/** A program that counts the requests to stop, and runs on. At SIGUSR2 its clock is ahead by two seconds. */
const PROGRAM = `
import { onTermination } from "${ROOT}process/signals.ts";
onTermination(() => console.error("stops"));
Deno.addSignalListener("SIGUSR2", () => {
  const now = performance.now() + 2000;
  performance.now = () => now;
  console.error("is late");
});
addEventListener("unload", () => console.error("unloads"));
console.error("runs");
setInterval(() => {}, 1000);
`;

async function withProgram(use: (daemon: Daemon) => Promise<void>): Promise<void> {
  const program = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(program, PROGRAM);
  await using daemon = new Daemon(["--allow-env", program]);
  await daemon.says("runs");
  await use(daemon);
  await Deno.remove(program);
}

Deno.test("onTermination() stops once, and another SIGINT exits the process", () =>
  withProgram(async (daemon) => {
    await interruptUntil(daemon.child.pid, daemon.child.status);
    assertEquals((await daemon.child.status).code, 130);
    await daemon.ended;
    assertEquals(daemon.log, "runs\nstops\nunloads\n");
  }));

Deno.test("onTermination() stops once at any number of SIGTERMs", () =>
  withProgram(async (daemon) => {
    daemon.child.kill("SIGTERM");
    await daemon.says("stops");
    // One may be handled after the SIGUSR2 that follows it, but not after the next.
    for (const times of [1, 2, 3]) {
      daemon.child.kill("SIGTERM");
      daemon.child.kill("SIGUSR2");
      await daemon.says("is late", times);
    }
    daemon.child.kill("SIGKILL");
    await deadline(daemon.ended, "its end");
    assertEquals(daemon.log, `runs\nstops\n${"is late\n".repeat(3)}`);
  }));
