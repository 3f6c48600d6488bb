/** Serves the test app as a daemon: `daemon.ts fastcgi 127.0.0.1:0`, or `daemon.ts scgi unix:/path/of.sock /base`. */
import { openAccessLog } from "../../cli/access_log.ts";
import { listen, serveFastCGI } from "../../fastcgi.ts";
import { runUntilTerminated } from "../../process/signals.ts";
import { serveSCGI } from "../../scgi.ts";
import app from "./authorizer.ts";

const [protocol, address, basePath = "auto"] = Deno.args;
const serve = protocol === "scgi" ? serveSCGI : serveFastCGI;

await using log = openAccessLog("common");
const server = serve(app, await listen(address, { mode: 0o666 }), {
  basePath: basePath as "auto",
  // nginx stops sending the body once the response has begun, and a test waits for this timeout.
  bodyTimeout: 2_000,
  shutdownTimeout: 5_000,
  onCompleted: log.onCompleted,
  onListen: (addr) =>
    console.log(
      "listening on",
      "hostname" in addr ? `${addr.hostname}:${addr.port}` : (addr as Deno.UnixAddr).path,
    ),
});
await runUntilTerminated(server);
