/** The metrics of workers, which their supervisor exports. */
import { assertEquals } from "@std/assert";
import { deadline } from "../testing/deadline.ts";
import { type Fleet, loop, request, startFleet, workers } from "../testing/fleet.ts";
import { attributesOf, OTLPReceiver } from "../testing/otlp_receiver.ts";

/** Returns the values of a metric by the one attribute that its points have. */
function valuesOf({ metrics }: OTLPReceiver, name: string): Record<string, number> {
  const metric = metrics.get(name);
  const points = (metric?.gauge ?? metric?.sum)?.dataPoints ?? [];
  return Object.fromEntries(points.map((point) => {
    const [{ stringValue }] = Object.values(attributesOf(point));
    return [stringValue, Number(point.asInt ?? point.asDouble)];
  }));
}

async function startExporting(
  receiver: OTLPReceiver,
  options: Record<string, unknown>,
): Promise<Fleet> {
  const env = { ...receiver.env, OTEL_METRIC_EXPORT_INTERVAL: "50" };
  return await startFleet("unix", { env, options });
}

/** Waits until a metric has some values, and no others. */
async function exports(
  receiver: OTLPReceiver,
  name: string,
  expected: Record<string, number>,
): Promise<void> {
  const matches = () => {
    const values = valuesOf(receiver, name);
    return Object.keys(values).length === Object.keys(expected).length &&
      Object.entries(expected).every(([key, value]) => values[key] === value);
  };
  await deadline(receiver.until(matches), `${name} to be ${JSON.stringify(expected)}`).catch(
    (error) => {
      assertEquals(valuesOf(receiver, name), expected, error.message);
    },
  );
}

const COUNT = "gatehouse.worker.count";
const RESTARTS = "gatehouse.worker.restart.count";

Deno.test("a supervisor exports the number of workers by state", async () => {
  await using receiver = new OTLPReceiver();
  await using fleet = await startExporting(receiver, {});
  await workers(fleet, 2);
  await exports(receiver, COUNT, { starting: 0, serving: 2, stopping: 0 });
  const slow = request(fleet, "/slow");
  await deadline(begun(fleet), "the request to begin");
  fleet.daemon.child.kill("SIGTERM");
  await exports(receiver, COUNT, { starting: 0, serving: 0, stopping: 1 });
  await Deno.writeTextFile(`${fleet.directory}/go`, "");
  await slow;
  const { unit, gauge } = receiver.metrics.get(COUNT)!;
  assertEquals([unit, gauge !== undefined], ["{worker}", true]);
  assertEquals(receiver.metrics.has(RESTARTS), false);
});

async function begun({ directory }: Fleet): Promise<void> {
  const watcher = Deno.watchFs(directory);
  if (await Deno.stat(`${directory}/begun`).catch(() => null)) return watcher.close();
  for await (const { paths } of watcher) if (paths.some((path) => path.endsWith("begun"))) break;
}

Deno.test("a supervisor counts restarts by reason", async () => {
  await using receiver = new OTLPReceiver();
  await using fleet = await startExporting(receiver, { workers: 1, maxMemory: 250 * 2 ** 20 });
  const [first] = await workers(fleet, 1);
  Deno.kill(Number(first), "SIGKILL");
  await exports(receiver, RESTARTS, { crash: 1 });
  const [second] = await workers(fleet, 1, [first]);
  await request(fleet, "/grow");
  await exports(receiver, RESTARTS, { crash: 1, max_memory: 1 });
  await workers(fleet, 1, [second]);
  fleet.daemon.child.kill("SIGHUP");
  await exports(receiver, RESTARTS, { crash: 1, max_memory: 1, reload: 1 });
  const { unit, sum } = receiver.metrics.get(RESTARTS)!;
  assertEquals([unit, sum?.isMonotonic], ["{restart}", true]);
});

Deno.test("a supervisor counts restarts of workers whose event loop does not turn", async () => {
  await using receiver = new OTLPReceiver();
  await using fleet = await startExporting(receiver, { workers: 1, workerTimeout: 1000 });
  await loop(fleet);
  await exports(receiver, RESTARTS, { worker_timeout: 1 });
});

Deno.test("a supervisor counts restarts after maxRequests", async () => {
  await using receiver = new OTLPReceiver();
  await using fleet = await startExporting(receiver, { workers: 1, maxRequests: 1 });
  const pid = await request(fleet);
  // The limit varies: it is 1 or 2.
  await request(fleet);
  const counted = receiver.until(() => valuesOf(receiver, RESTARTS).max_requests >= 1);
  await deadline(counted, "a restart after maxRequests");
  assertEquals(Object.keys(valuesOf(receiver, RESTARTS)), ["max_requests"]);
  await workers(fleet, 1, [pid]);
});

Deno.test("a supervisor counts restarts of workers that do not start in time", async () => {
  await using receiver = new OTLPReceiver();
  await using fleet = await startExporting(receiver, { startTimeout: 4000 });
  const [pid] = await workers(fleet, 2);
  const source = await Deno.readTextFile(`${fleet.directory}/worker.ts`);
  await Deno.writeTextFile(`${fleet.directory}/worker.ts`, "setInterval(() => {}, 1000);");
  Deno.kill(Number(pid), "SIGKILL");
  await exports(receiver, COUNT, { starting: 1, serving: 1, stopping: 0 });
  await exports(receiver, RESTARTS, { crash: 1 });
  await fleet.daemon.says("is killed: it does not serve 4000 ms after its start");
  await Deno.writeTextFile(`${fleet.directory}/worker.ts`, source);
  // On a busy machine the next one may be late, too.
  const counted = receiver.until(() => valuesOf(receiver, RESTARTS).start_timeout >= 1);
  await deadline(counted, "the restart to be counted");
  assertEquals(valuesOf(receiver, RESTARTS).crash, 1);
});
