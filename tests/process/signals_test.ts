import { assertEquals } from "@std/assert";
import { Daemon, ROOT } from "../testing/daemon.ts";
import { deadline } from "../testing/deadline.ts";
import { interruptUntil } from "../testing/processes.ts";

/** A program that counts the requests to stop, and runs on for more than a second. */
const PROGRAM = `
import { onTermination } from "${ROOT}process/signals.ts";
onTermination(() => {
  console.error("stops");
  setTimeout(() => console.error("still runs"), 1500);
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
    const signals = setInterval(() => daemon.child.kill("SIGTERM"), 10);
    await daemon.says("still runs");
    clearInterval(signals);
    daemon.child.kill("SIGKILL");
    await deadline(daemon.ended, "its end");
    assertEquals(daemon.log, "runs\nstops\nstill runs\n");
  }));
