import { serveCGI } from "../../cgi.ts";
import app, { OPTION_SETS } from "./app.ts";

// A global of all runtimes. To import node:process would change how Node reads standard input.
const { process } = globalThis as unknown as { process: { env: Record<string, string> } };

await serveCGI(app, OPTION_SETS[process.env.CONFORMANCE_OPTIONS]);
