/** Gatehouse over FastCGI in several processes. */
import { prefork } from "../../prefork.ts";

const [address, load, workers] = Deno.args;
await prefork({
  listen: address,
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
