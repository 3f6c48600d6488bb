/** Runs gateways in a server process: `gateway_front.ts '{"fronts": [...], "logFile": ...}'`. */
import { serveFastCGI } from "../../fastcgi.ts";
import { cgiGateway, fastCGIGateway, type Gateway, scgiGateway } from "../../gateway.ts";
import { serveSCGI } from "../../scgi.ts";

/** A gateway and the port that it is served on. */
export interface Front {
  port: number;
  /** The kind of gateway; "memory" serves this process's resident set size instead. */
  kind: "cgi" | "fastcgi" | "scgi" | "memory";
  address?: string;
  // deno-lint-ignore no-explicit-any
  options: Record<string, any>;
}

/** The program's argument. */
export interface Fronts {
  fronts: Front[];
  logFile: string;
  /** The ports of an app in this process that receives and sends large bodies. */
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

/** Returns the length of the request's body, or for an empty one a body of the length that the query gives. */
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
