/** Gatehouse over SCGI. */
import { serveSCGI } from "../../scgi.ts";
import { apps } from "./app.ts";

const [port, load] = Deno.args;
serveSCGI(apps[load], Deno.listen({ hostname: "127.0.0.1", port: Number(port) }));
