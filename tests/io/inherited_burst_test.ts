/** Bursts of connections on a socket that workers share, each with one request. */
import { assert, assertEquals } from "@std/assert";
import { fetchFastCGI } from "../../gateway.ts";
import type { Address } from "../../io/address.ts";
import { Daemon, ROOT } from "../testing/daemon.ts";
import { deadline } from "../testing/deadline.ts";

const AT_ONCE = 500;
const BURSTS = 3;
/** How often the workers are replaced meanwhile, and the maximum number of bursts that this may take. */
const RELOADS = 2;
const MAX_BURSTS = 200;

const WORKER = `
import { InheritedListener } from "${ROOT}io/inherited_listener.ts";
import { runUntilTerminated } from "${ROOT}process/signals.ts";
import { reportReady } from "${ROOT}process/worker.ts";
import { serveFastCGI } from "${ROOT}fastcgi.ts";
const listener = await InheritedListener.open(0, Deno.args[0] === "native" ? undefined : null);
const server = serveFastCGI(() => new Response("Hello"), listener, {
  // On a busy machine a burst takes longer than the default.
  shutdownTimeout: 60_000,
});
console.error("a worker serves");
await Promise.all([runUntilTerminated(server), reportReady(() => server.shutdown())]);
`;
const SUPERVISOR = `
import { prefork } from "${ROOT}prefork.ts";
const [worker, listen, workers, way] = Deno.args;
await prefork({
  listen,
  workers: Number(workers),
  shutdownTimeout: 60_000,
  command: ["run", "--no-prompt", "--allow-read", "--allow-env", worker, way],
  onListen: (addr) => console.error("listens on " + (addr.path ? "unix:" + addr.path : "127.0.0.1:" + addr.port) + "."),
});
`;

interface Case {
  workers: number;
  way: "native" | "node:net";
  reload: boolean;
}

const cases: Case[] = [
  ...[1, 2, 4].map((workers): Case => ({ workers, way: "native", reload: false })),
  { workers: 2, way: "native", reload: true },
  { workers: 2, way: "node:net", reload: false },
];

/** Sends requests, each on a connection of its own, all at once. Returns what fails. */
async function sendBurst(address: Address): Promise<string[]> {
  const failures: string[] = [];
  const log = (line: string) => failures.push(line);
  const responses = Array.from({ length: AT_ONCE }, async () => {
    const response = await fetchFastCGI("http://localhost/", address, { log });
    const text = await response.text();
    if (text !== "Hello") failures.push(`${response.status} ${text}`);
  });
  const settled = await deadline(Promise.allSettled(responses), "the responses of a burst", 60_000);
  for (const response of settled) {
    if (response.status === "rejected") failures.push(String(response.reason));
  }
  return failures;
}

for (const medium of ["TCP", "Unix"]) {
  for (const { workers, way, reload } of cases) {
    const name = [medium, way, `workers: ${workers}`, ...reload ? ["SIGHUP"] : []].join(", ");
    Deno.test(`a burst of connections is served whole, ${name}`, async () => {
      const directory = await Deno.makeTempDir();
      await Deno.writeTextFile(`${directory}/worker.ts`, WORKER);
      await Deno.writeTextFile(`${directory}/supervisor.ts`, SUPERVISOR);
      await using supervisor = new Daemon([
        "--allow-all",
        `${directory}/supervisor.ts`,
        `${directory}/worker.ts`,
        medium === "TCP" ? "127.0.0.1:0" : `unix:${directory}/app.sock`,
        `${workers}`,
        way,
      ]);
      await supervisor.says("listens on");
      const [, address] = /listens on (.*)\./.exec(supervisor.log)!;
      const started = () => supervisor.log.split("a worker serves").length - 1;
      let reloads = 0;
      const wanted = (reload ? RELOADS + 1 : 1) * workers;
      for (let burst = 0; burst < BURSTS || burst < MAX_BURSTS && started() < wanted; burst++) {
        if (reload && reloads < RELOADS && started() >= (reloads + 1) * workers) {
          supervisor.child.kill("SIGHUP");
          reloads++;
        }
        const failures = await sendBurst(address as Address);
        assertEquals(failures, [], `burst ${burst}; the log: ${supervisor.log}`);
      }
      assert(started() >= wanted, `${started()} workers started`);
      assertEquals((await supervisor.stop()).code, 0);
      await Deno.remove(directory, { recursive: true });
    });
  }
}
