/** Serves the conformance app on a runtime: `daemon.ts fastcgi OPTIONS`. Prints the port. */
import { argv } from "node:process";
import { listen, serveFastCGI } from "../../fastcgi.ts";
import { runUntilTerminated } from "../../process/signals.ts";
import { serveSCGI } from "../../scgi.ts";
import app, { OPTION_SETS } from "./app.ts";

const [protocol, options] = argv.slice(2);
const serve = protocol === "scgi" ? serveSCGI : serveFastCGI;

const server = serve(app, await listen("127.0.0.1:0"), { ...OPTION_SETS[options], log() {} });
console.log(JSON.stringify(server.addr));
await runUntilTerminated(server);
