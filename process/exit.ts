import { TRACED } from "../io/private_fields.ts";
import { runtime } from "../io/runtime.ts";

/** How long the exit may take with telemetry, in milliseconds: longer than Deno tries to export the last of it. */
const LIMIT = 30_000;
/** The variable with the time between two collections of metrics, in milliseconds, and what applies without it. */
const INTERVAL = { variable: "OTEL_METRIC_EXPORT_INTERVAL", usual: 60_000 };

/**
 * Exits this process. With OTEL_DENO, `Deno.exit()` of 2.9.6 may wait forever: for a collection of metrics that waits for
 * this thread. Another thread then kills the process, unless it is process 1, which the system does not let it kill.
 *
 * @param code The exit code. @default that of the process
 * @param limit In milliseconds.
 * @returns Never settles.
 */
export function exit(code?: number, limit: number = LIMIT): Promise<never> {
  // The thread takes as long to start as a script.
  if (!TRACED || performance.now() + limit < firstCollection()) runtime.exit(code);
  // To signal itself, a process needs no permission.
  const program = `setTimeout(() => Deno.kill(Deno.pid, "SIGKILL"), ${limit}); postMessage(0)`;
  const guard = new Worker(`data:text/javascript,${encodeURIComponent(program)}`, {
    type: "module",
  });
  guard.onmessage = guard.onerror = () => runtime.exit(code);
  return new Promise(() => {});
}

/** Returns when metrics are first collected, in milliseconds since the start of this process; 0 if that is not known. */
function firstCollection(): number {
  const { variable, usual } = INTERVAL;
  if (runtime.permissions.querySync({ name: "env", variable }).state !== "granted") return 0;
  return Number(runtime.env.get(variable)) || usual;
}
