/**
 * Serves the demonstration on http://localhost:8000, or the port that `--port` names.
 *
 * @module
 */

import { Arguments, type Usage } from "../cli/arguments.ts";
import { serveDevelopment } from "../cli/dev/server.ts";
import { Failure, UsageError } from "../cli/errors.ts";
import { onTermination } from "../process/signals.ts";
import { Demo } from "./demo_app.ts";

const USAGE: Usage = {
  name: "demo",
  operands: "",
  about: "Shows Gatehouse at work.",
  options: [{ name: "port", value: "N", about: "the port. Default: 8000" }],
  example: "deno task demo --port 8001",
};

async function run(port: number): Promise<void> {
  const stop = new AbortController();
  using _ = onTermination(() => stop.abort(), { hangup: true });
  await using demo = await Demo.start();
  await serveDevelopment(demo.fetch, { port }, stop.signal);
}

try {
  await run(Arguments.parse(USAGE, Deno.args).number("port", 0) ?? 8000);
} catch (error) {
  if (!(error instanceof UsageError || error instanceof Failure)) throw error;
  console.error(error.message);
  Deno.exit(1);
}
Deno.exit();
