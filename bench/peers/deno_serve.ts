/** Deno's own HTTP server: what an app gives up, or gains, by speaking FastCGI instead. */
import { apps, reportMemory } from "./app.ts";

const [port, load] = Deno.args;
Deno.serve({ hostname: "127.0.0.1", port: Number(port), onListen() {} }, apps[load]);
reportMemory();
