/** Serves the test app as a daemon: `daemon.ts fastcgi 127.0.0.1:0`, or `daemon.ts scgi /path/of.sock /base`. */
import { serveFastCGI } from "../../fastcgi.ts";
import { serveSCGI } from "../../scgi.ts";
import app from "./app.ts";

const [protocol, address, basePath = "auto"] = Deno.args;
const options = {
  basePath: basePath as "auto",
  // nginx leaves a body unfinished once the answer has begun: a test waits for this.
  bodyTimeout: 2_000,
  onListen: (addr: Deno.Addr) =>
    console.log(
      "listening on",
      "hostname" in addr ? `${addr.hostname}:${addr.port}` : (addr as Deno.UnixAddr).path,
    ),
};

function listen(): Deno.Listener {
  if (!address.startsWith("/")) {
    const [hostname, port] = address.split(":");
    return Deno.listen({ hostname, port: Number(port) });
  }
  const listener = Deno.listen({ transport: "unix", path: address });
  Deno.chmodSync(address, 0o666);
  return listener as unknown as Deno.Listener;
}

if (protocol === "fastcgi") serveFastCGI(app, listen(), options);
else if (protocol === "scgi") serveSCGI(app, listen(), options);
else throw new Error(`No such protocol: ${protocol}`);
