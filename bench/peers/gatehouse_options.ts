/** Gatehouse over FastCGI or HTTP, with options. */
import { serveFastCGI } from "../../fastcgi.ts";
import { serveHTTP } from "../../http.ts";
import { apps } from "./app.ts";

const [port, load, protocol, options] = Deno.args;
const address = { hostname: "127.0.0.1", port: Number(port) };
if (protocol === "http") {
  serveHTTP(apps[load], { ...address, onListen() {}, ...JSON.parse(options) });
} else {
  serveFastCGI(apps[load], Deno.listen(address), JSON.parse(options));
}
