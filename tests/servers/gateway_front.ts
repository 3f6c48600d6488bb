/** Runs gateways as a web server would: `gateway_front.ts '{"ports": {...}, ...}'`. */
import { cgiGateway, fastCGIGateway, type Gateway, scgiGateway } from "../../gateway.ts";

/** What to ask on which port. */
export interface Front {
  port: number;
  /** "memory" tells how much of it this process has. */
  kind: "cgi" | "fastcgi" | "scgi" | "memory";
  address?: string;
  // deno-lint-ignore no-explicit-any
  options: Record<string, any>;
}

const { fronts, logFile }: { fronts: Front[]; logFile: string } = JSON.parse(Deno.args[0]);
const log = (line: string) => Deno.writeTextFileSync(logFile, line + "\n", { append: true });

function createHandler({ kind, address, options }: Front): Deno.ServeHandler | Gateway {
  if (kind === "memory") return () => Response.json(Deno.memoryUsage().rss);
  if (kind === "cgi") return cgiGateway({ ...options, log });
  if (kind === "scgi") return scgiGateway(address!, { ...options, log });
  return fastCGIGateway(address!, { ...options, log });
}

for (const front of fronts) {
  Deno.serve({ hostname: "127.0.0.1", port: front.port, onListen() {} }, createHandler(front));
}
