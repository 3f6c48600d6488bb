import { plainResponse } from "../../bridge/error_response.ts";
import type { GatewayInfo } from "../../gateway.ts";
import { isLoopback } from "../../io/peers.ts";
import { runUntilTerminated } from "../../io/signals.ts";
import { Failure } from "../errors.ts";

/** Handles a request; `info` has the client's address. */
export type DevelopmentHandler = (request: Request, info: GatewayInfo) => Promise<Response>;

/**
 * Serves HTTP on loopback until a signal arrives, and prints each request with its status and time.
 *
 * @param port The port; 0 for a free one.
 * @throws {Failure} If the port is in use.
 */
export async function serveDevelopment(handler: DevelopmentHandler, port: number): Promise<void> {
  let server: Deno.HttpServer;
  try {
    server = Deno.serve({
      hostname: "127.0.0.1",
      port,
      onListen: (addr) =>
        console.log(`Open http://localhost:${addr.port}/ in a browser. Stop with Ctrl-C.`),
    }, async (request, info) => {
      const start = performance.now();
      const { hostname, pathname, search } = new URL(request.url);
      // Rejects websites whose name resolves to 127.0.0.1 (DNS rebinding).
      const isLocal = isLoopback(hostname.replaceAll(/[[\]]/g, ""));
      const response = isLocal ? await handler(request, info) : plainResponse(421);
      const time = (performance.now() - start).toFixed(1);
      console.log(`${response.status} ${request.method} ${pathname}${search} ${time} ms`);
      return response;
    });
  } catch (error) {
    if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    throw new Failure(`Port ${port} is in use. Try --port ${port + 1}`);
  }
  await runUntilTerminated(server);
}
