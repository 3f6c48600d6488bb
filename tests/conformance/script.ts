import { serveCGI } from "../../cgi.ts";
import app, { OPTION_SETS } from "./app.ts";

await serveCGI(app, OPTION_SETS[Deno.env.get("CONFORMANCE_OPTIONS")!]);
