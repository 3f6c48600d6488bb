import type { PreforkOptions } from "../../prefork.ts";
import { eventually, type Program, type Rig } from "./harness.ts";

/**
 * Starts two workers on one socket.
 *
 * @param worker The program of a worker.
 * @param flags Its permissions, in addition to `--allow-env`.
 * @param options Further options of `prefork()`.
 * @returns The supervisor, and the address that it listens on.
 */
export async function startWorkers(
  rig: Rig,
  worker: string,
  address: string,
  flags: string[] = [],
  options: Partial<PreforkOptions> = {},
): Promise<[Program, string]> {
  const command = ["run", "--no-prompt", "--no-config", "--allow-env", ...flags, worker];
  const supervisor = rig.write(
    "supervisor.ts",
    `
import { prefork } from "${rig.root}/prefork.ts";
await prefork({
  listen: Deno.args[0],
  mode: 0o666,
  workers: 2,
  onListen: (addr) => console.log("listening on", addr.path ? "unix:" + addr.path : addr.hostname + ":" + addr.port),
  ...${JSON.stringify({ command, ...options })},
});
`,
  );
  const program = rig.spawn("workers", Deno.execPath(), [
    ...["run", "--no-prompt", "--no-config", "--allow-all"],
    ...[supervisor, address],
  ]);
  await eventually("the workers listen", () => program.output.includes("listening on"));
  return [program, /listening on (\S+)/.exec(program.output)![1]];
}
