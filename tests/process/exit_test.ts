import { assertEquals } from "@std/assert";
import { ROOT } from "../testing/daemon.ts";
import { deadline } from "../testing/deadline.ts";

/** A program that exits, and may hang while it does. */
const PROGRAM = `
import { exit } from "${ROOT}process/exit.ts";
const [hangs, limit] = Deno.args;
addEventListener("unload", () => {
  console.log("unloads");
  if (hangs === "hangs") Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
});
setInterval(() => {}, 1000);
exit(7, Number(limit));
`;

/** Runs it without permissions but for the environment. */
async function run(env: Record<string, string>, ...args: string[]): Promise<Deno.CommandOutput> {
  const program = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(program, PROGRAM);
  const output = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--no-config", "--allow-env", program, ...args],
    env: { OTEL_EXPORTER_OTLP_PROTOCOL: "console", ...env },
  }).output();
  try {
    return await deadline(output, "the end of the program", 60_000);
  } finally {
    await Deno.remove(program);
  }
}

for (const traced of ["true", "false"]) {
  for (const limit of ["60000", "1000"]) {
    Deno.test(`exit() exits with its code, with OTEL_DENO=${traced} and a limit of ${limit} ms`, async () => {
      const { code, signal, stdout } = await run({ OTEL_DENO: traced }, "ends", limit);
      assertEquals([code, signal, new TextDecoder().decode(stdout)], [7, null, "unloads\n"]);
    });
  }
}

Deno.test({
  name: "exit() kills a process with telemetry whose exit hangs",
  ignore: Deno.build.os === "windows",
  async fn() {
    const env = { OTEL_DENO: "true", OTEL_METRIC_EXPORT_INTERVAL: "500" };
    const { signal, stdout } = await run(env, "hangs", "500");
    assertEquals([signal, new TextDecoder().decode(stdout)], ["SIGKILL", "unloads\n"]);
  },
});
