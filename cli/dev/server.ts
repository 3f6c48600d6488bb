import { plainResponse } from "../../bridge/plain_response.ts";
import type { GatewayInfo } from "../../gateway.ts";
import { dropWarnings, writeLine } from "../../io/log.ts";
import { isLoopback } from "../../server/peers.ts";
import { Failure } from "../errors.ts";

/** How Deno's notice begins that `request.signal` aborts after a complete response too. The gateway allows for it. */
const NOTICE = "Deno.serve: request.signal aborts";

/** Handles a request; `info` has the client's address. */
export type DevelopmentHandler = (request: Request, info: GatewayInfo) => Promise<Response>;

/**
 * Serves HTTP on loopback, and prints each request with its status and time.
 *
 * @param port The port; 0 for a free one.
 * @param stop Ends it, once the requests in progress are finished.
 * @throws {Failure} If the port is in use.
 */
export async function serveDevelopment(
  handler: DevelopmentHandler,
  port: number,
  stop: AbortSignal,
): Promise<void> {
  if (stop.aborted) return;
  dropWarnings(NOTICE);
  let server: Deno.HttpServer;
  try {
    server = Deno.serve({
      hostname: "127.0.0.1",
      port,
      onListen: (addr) =>
        writeLine(
          Deno.stdout,
          `Open http://localhost:${addr.port}/ in a browser. Stop with Ctrl-C.`,
        ),
    }, async (request, info) => {
      const start = performance.now();
      const { hostname, pathname, search } = new URL(request.url);
      // Rejects websites whose name resolves to 127.0.0.1 (DNS rebinding).
      const isLocal = isLoopback(hostname.replaceAll(/[[\]]/g, ""));
      const response = isLocal ? await handler(request, info) : plainResponse(421);
      const time = (performance.now() - start).toFixed(1);
      writeLine(
        Deno.stdout,
        `${response.status} ${request.method} ${pathname}${search} ${time} ms`,
      );
      return response;
    });
  } catch (error) {
    if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    throw new Failure(`Port ${port} is in use. Try --port ${port + 1}`);
  }
  // If it rejects, so does finished.
  stop.addEventListener("abort", () => void server.shutdown().catch(() => {}));
  await server.finished;
}
