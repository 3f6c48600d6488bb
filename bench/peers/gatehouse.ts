/**
 * Gatehouse over FastCGI: on a port, or on the socket that a prefork worker inherits; with an access log if a format and a
 * file are named.
 */
import { type AccessLogFormat, openAccessLog } from "../../cli/access_log.ts";
import { inheritedListener, serveFastCGI } from "../../fastcgi.ts";
import { apps, reportMemory } from "./app.ts";

const [port, load, format, path] = Deno.args;
const listener = port === "inherited"
  ? await inheritedListener()
  : Deno.listen({ hostname: "127.0.0.1", port: Number(port) });
await using log = format === undefined ? undefined : openAccessLog(format as AccessLogFormat, path);
const server = serveFastCGI(apps[load], listener, {
  maxConnections: 20_000,
  onCompleted: log?.onCompleted,
});
reportMemory();
// With --cpu-prof the profile is only written if the process ends by itself.
Deno.addSignalListener("SIGINT", () => server.shutdown());
await server.finished;
