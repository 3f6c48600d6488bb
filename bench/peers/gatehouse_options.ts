/** Gatehouse over FastCGI or HTTP, with options. */
import { serveFastCGI } from "../../fastcgi.ts";
import { serveHTTP } from "../../http.ts";
import { appOf } from "./app.ts";

const [port, load, protocol, options] = Deno.args;
const app = await appOf(load);
const address = { hostname: "127.0.0.1", port: Number(port) };
if (protocol === "http") {
  serveHTTP(app, { ...address, onListen() {}, ...JSON.parse(options) });
} else {
  serveFastCGI(app, Deno.listen(address), JSON.parse(options));
}
