import { TRACED } from "../io/private_fields.ts";
import { runtime } from "../io/runtime.ts";

/** How long the exit may take with telemetry, in milliseconds: longer than Deno tries to export the last of it. */
const LIMIT = 30_000;

/**
 * Exits this process. With OTEL_DENO, `Deno.exit()` of 2.9.6 may wait forever: for a collection of metrics that waits for
 * this thread. Another thread then kills the process.
 *
 * @param code The exit code. @default that of the process
 * @param limit In milliseconds.
 * @returns Never settles.
 */
export function exit(code?: number, limit: number = LIMIT): Promise<never> {
  if (!TRACED) runtime.exit(code);
  // To signal itself, a process needs no permission.
  const program = `setTimeout(() => Deno.kill(Deno.pid, "SIGKILL"), ${limit}); postMessage(0)`;
  const guard = new Worker(`data:text/javascript,${encodeURIComponent(program)}`, {
    type: "module",
  });
  guard.onmessage = guard.onerror = () => runtime.exit(code);
  return new Promise(() => {});
}
