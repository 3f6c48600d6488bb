/** Workers that do not return to the event loop. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { fetchFastCGI } from "../gateway.ts";
import { importMapFlags } from "./testing/command_line.ts";
import { ROOT } from "./testing/daemon.ts";
import { deadline, eventually } from "./testing/deadline.ts";
import { loop, slowRequest, startFleet, workers } from "./testing/fleet.ts";
import { handDown } from "./testing/hand_down.ts";
import { ended, interruptUntil, isAlive } from "./testing/processes.ts";

const AT_ONCE = { options: { shutdownTimeout: 0 } };

Deno.test("prefork() kills a looping worker a second after the shutdown timeout at SIGTERM", async () => {
  await using fleet = await startFleet("unix", AT_ONCE);
  const looping = await loop(fleet);
  assertEquals((await fleet.daemon.stop()).code, 0);
  assertStringIncludes(
    fleet.daemon.log,
    `Worker ${looping} is killed: it still runs 1000 ms after SIGTERM`,
  );
  assert(!isAlive(looping));
});

Deno.test("prefork() replaces a looping worker at SIGHUP", async () => {
  await using fleet = await startFleet("unix", AT_ONCE);
  const before = await workers(fleet, 2);
  const looping = await loop(fleet);
  fleet.daemon.child.kill("SIGHUP");
  await workers(fleet, 2, before);
  await fleet.daemon.says(`Worker ${looping} is killed`);
  await ended(looping);
});

Deno.test("prefork() ends the CGI scripts of a worker that it kills", async () => {
  const worker = `
import { cgiGateway } from "${ROOT}gateway.ts";
import { serve } from "${ROOT}mod.ts";
const gateway = cgiGateway({ script: Deno.args[0] + "/sleep.sh", env: {} });
await serve((request, info) => {
  if (new URL(request.url).pathname !== "/loop") return gateway(request, info);
  console.error("loops " + Deno.pid + ".");
  for (;;);
});
`;
  await using fleet = await startFleet("unix", {
    worker,
    flags: "--allow-all",
    options: { ...AT_ONCE.options, workers: 1 },
  });
  const script = `${fleet.directory}/sleep.sh`;
  await Deno.writeTextFile(script, `#!/bin/sh\necho $$ > "$0.pid"\nsleep 1000\n`, { mode: 0o755 });
  const address = fleet.address as "unix:";
  fetchFastCGI("http://localhost/", address, { log: () => {} }).catch(() => {});
  const pid = await eventually("the script to start", async () => {
    const text = await Deno.readTextFile(`${script}.pid`).catch(() => "");
    return text.endsWith("\n") && Number(text);
  });
  await loop(fleet);
  assert(isAlive(pid));
  await fleet.daemon.stop();
  await ended(pid);
});

Deno.test("prefork() kills its workers at another SIGINT", async () => {
  await using fleet = await startFleet("unix", { options: { shutdownTimeout: "Infinity" } });
  const looping = await loop(fleet);
  const { child } = fleet.daemon;
  await interruptUntil(child.pid, child.status);
  assertEquals((await child.status).code, 130);
  assert(!isAlive(looping));
  assertEquals(fleet.daemon.log.includes("is killed"), false, fleet.daemon.log);
});

Deno.test("prefork() kills its workers at another SIGINT without a process for the supervisor", async () => {
  const directory = await Deno.makeTempDir();
  const app = `export default () => { console.error("loops"); for (;;); };`;
  await Deno.writeTextFile(`${directory}/app.ts`, app);
  const program = await handDown({ host: "127.0.0.1", port: 0 }, 0, {}, [
    "--allow-env",
    "--allow-net",
    "--allow-read",
    `--allow-run=${Deno.execPath()}`,
    ...importMapFlags(),
    `${ROOT}cli.ts`,
    ...["serve", `${directory}/app.ts`, "--workers", "1", "--listen", "fd:0"],
  ]);
  program.closeOurs();
  fetchFastCGI("http://localhost/", program.address as "127.0.0.1:0").catch(() => {});
  try {
    await program.says("loops");
    await interruptUntil(program.pid, program.ended);
    assertEquals(await program.ended, 130);
  } finally {
    program.kill();
  }
  await Deno.remove(directory, { recursive: true });
});

Deno.test("prefork() finishes requests although its processes get several signals", async () => {
  await using fleet = await startFleet("unix", { detached: true });
  const pids = (await workers(fleet, 2)).map(Number);
  const { response, pid, finish } = await slowRequest(fleet);
  const { pid: program } = fleet.daemon.child;
  // As a terminal does: to all processes of the program.
  Deno.kill(-program, "SIGINT");
  await ended(pids.find((other) => other !== pid)!);
  // The program has sent it to the supervisor, and that to the worker.
  Deno.kill(pid, "SIGINT");
  Deno.kill(pid, "SIGTERM");
  Deno.kill(program, "SIGTERM");
  await finish();
  assertEquals(await response, String(pid));
  assertEquals((await deadline(fleet.daemon.child.status, "the program's end")).code, 0);
  assertEquals(fleet.daemon.log.includes("replaced in"), false, fleet.daemon.log);
});
