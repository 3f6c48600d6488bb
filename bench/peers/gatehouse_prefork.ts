/** Gatehouse over FastCGI in several processes. */
import { prefork } from "../../prefork.ts";

const [port, load, workers] = Deno.args;
await prefork({
  listen: `127.0.0.1:${port}`,
  workers: Number(workers),
  command: [
    "run",
    "--no-prompt",
    "--no-config",
    "--allow-env",
    new URL("gatehouse.ts", import.meta.url).href,
    "inherited",
    load,
  ],
});
