/**
 * Serves the demonstration on http://localhost:8000.
 *
 * @module
 */

import { Demo } from "./demo_app.ts";

const PORT = 8000;
const demo = await Demo.start();

async function stop(): Promise<void> {
  await demo[Symbol.asyncDispose]();
  Deno.exit();
}

Deno.addSignalListener("SIGINT", stop);
Deno.addSignalListener("SIGTERM", stop);

try {
  Deno.serve({
    hostname: "127.0.0.1",
    port: PORT,
    onListen: () => console.log(`Open http://localhost:${PORT}/ in a browser. Stop with Ctrl-C.`),
  }, demo.fetch);
} catch (error) {
  console.error(
    error instanceof Deno.errors.AddrInUse
      ? `Cannot start the demo as port ${PORT} must be free: another program listens there`
      : error,
  );
  await stop();
}
