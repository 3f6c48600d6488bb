/** Deno's own HTTP server, to compare FastCGI with. */
import { appOf, reportMemory } from "./app.ts";

const [port, load] = Deno.args;
Deno.serve({ hostname: "127.0.0.1", port: Number(port), onListen() {} }, await appOf(load));
reportMemory();
