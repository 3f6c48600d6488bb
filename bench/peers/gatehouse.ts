/** Gatehouse over FastCGI: on a port, or on the socket that a prefork worker inherits. */
import { inheritedListener, serveFastCGI } from "../../fastcgi.ts";
import { apps, reportMemory } from "./app.ts";

const [port, load] = Deno.args;
const listener = port === "inherited"
  ? await inheritedListener()
  : Deno.listen({ hostname: "127.0.0.1", port: Number(port) });
const server = serveFastCGI(apps[load], listener, { maxConnections: 20_000 });
reportMemory();
// With --cpu-prof the profile is only written if the process ends by itself.
Deno.addSignalListener("SIGINT", () => server.shutdown());
await server.finished;
