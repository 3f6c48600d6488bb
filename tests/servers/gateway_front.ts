/** Runs gateways as a web server would: `gateway_front.ts '{"fronts": [...], "logFile": ...}'`. */
import { serveFastCGI } from "../../fastcgi.ts";
import { cgiGateway, fastCGIGateway, type Gateway, scgiGateway } from "../../gateway.ts";
import { serveSCGI } from "../../scgi.ts";

/** What to ask on which port. */
export interface Front {
  port: number;
  /** "memory" tells how much of it this process has. */
  kind: "cgi" | "fastcgi" | "scgi" | "memory";
  address?: string;
  // deno-lint-ignore no-explicit-any
  options: Record<string, any>;
}

/** All that is run. */
export interface Fronts {
  fronts: Front[];
  logFile: string;
  /** Where an app listens that takes and sends large bodies, in this process. */
  bulkPorts?: { fastcgi: number; scgi: number };
}

const { fronts, logFile, bulkPorts }: Fronts = JSON.parse(Deno.args[0]);
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

/** Counts what it is sent, and sends as many bytes as it is asked for. */
async function bulk(request: Request): Promise<Response> {
  let left = 0;
  for await (const part of request.body ?? []) left += part.length;
  if (left > 0) return new Response(String(left));
  left = Number(new URL(request.url).searchParams.get("length"));
  const block = new Uint8Array(65536);
  return new Response(
    new ReadableStream({
      pull(controller) {
        if (left === 0) return controller.close();
        const part = block.subarray(0, left);
        left -= part.length;
        controller.enqueue(part);
      },
    }),
  );
}

if (bulkPorts) {
  const listen = (port: number) => Deno.listen({ hostname: "127.0.0.1", port });
  serveFastCGI(bulk, listen(bulkPorts.fastcgi));
  serveSCGI(bulk, listen(bulkPorts.scgi));
}
