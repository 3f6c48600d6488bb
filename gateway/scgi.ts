/**
 * The client of SCGI, and the gateway to an SCGI application.
 *
 * @module
 */

import type { Address } from "../io/address.ts";
import { toByteString } from "../wire/byte_string.ts";
import { encodeSCGIHeaders } from "../wire/scgi.ts";
import { plainResponse } from "../bridge/error_response.ts";
import { ApplicationConnections, type Connection } from "./connection.ts";
import { createGateway, fetchOnce } from "./handler.ts";
import { DEFAULTS, type Gateway, type GatewayInfo, type SCGIGatewayOptions } from "./options.ts";
import type { ApplicationResponse } from "./response.ts";
import { RoundTrip, type VariablePairs } from "./round_trip.ts";
import { pathBelow } from "./script_path.ts";

/**
 * Creates a handler that calls an SCGI application, over a new connection for each request.
 *
 * Needs `--allow-net` of the address; for a Unix socket `--allow-net=unix:/path`, and `--allow-read` and
 * `--allow-write` of its path.
 *
 * @param address `host:port`, `[ipv6]:port` or `unix:/path`.
 * @throws {TypeError} If the address is invalid.
 *
 * @example
 * ```ts no-assert
 * import { scgiGateway } from "@gatehouse/cgi/gateway";
 *
 * using gateway = scgiGateway("127.0.0.1:4000");
 * const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, gateway);
 * await server.shutdown();
 * ```
 */
export function scgiGateway(address: Address, options: SCGIGatewayOptions = {}): Gateway {
  const connections = new ApplicationConnections(address, options);
  return createGateway(
    options,
    (request, info) => callSCGI(request, info, connections, options),
    () => connections.close(),
  );
}

/**
 * Sends one request to an SCGI application.
 *
 * @param request A request, or its URL.
 * @param address `host:port`, `[ipv6]:port` or `unix:/path`.
 * @throws {Error} If the application does not respond, or its response is invalid.
 *
 * @example
 * ```ts
 * import { serveSCGI } from "@gatehouse/cgi/scgi";
 * import { fetchSCGI } from "@gatehouse/cgi/gateway";
 * import { assertEquals } from "@std/assert";
 *
 * const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
 * await using server = serveSCGI(() => new Response("Hello"), listener);
 * const { port } = server.addr as Deno.NetAddr;
 * const response = await fetchSCGI("http://localhost/", `127.0.0.1:${port}`);
 * assertEquals(await response.text(), "Hello");
 * ```
 */
export function fetchSCGI(
  request: Request | string | URL,
  address: Address,
  options: SCGIGatewayOptions = {},
): Promise<Response> {
  const connections = new ApplicationConnections(address, options);
  return fetchOnce((sent) => callSCGI(sent, undefined, connections, options), request);
}

async function callSCGI(
  request: Request,
  info: GatewayInfo | undefined,
  connections: ApplicationConnections,
  options: SCGIGatewayOptions,
): Promise<ApplicationResponse> {
  const { prefix = DEFAULTS.prefix, maxBufferedBody = DEFAULTS.maxBufferedBody } = options;
  const pathInfo = pathBelow(request, prefix);
  if (pathInfo === undefined) return plainResponse(404);
  const roundTrip = new RoundTrip(request, options);
  try {
    await roundTrip.measure(maxBufferedBody);
    const variables = roundTrip.variables(info, { scriptName: toByteString(prefix), pathInfo });
    const connection = await connections.acquire(true, request.signal);
    if (roundTrip.over) connection.release(false);
    else sendSCGI(roundTrip, connection, variables).finally(() => connection.release(false));
  } catch (error) {
    roundTrip.abort(error);
  }
  return await roundTrip.response;
}

/** Sends the request and reads the response. Resolves when the connection is no longer needed. */
async function sendSCGI(
  roundTrip: RoundTrip,
  connection: Connection,
  variables: VariablePairs,
): Promise<void> {
  roundTrip.onabort = () => connection.close();
  try {
    connection.out.append(encodeSCGIHeaders([
      ["CONTENT_LENGTH", String(roundTrip.length)],
      ["SCGI", "1"],
      ...variables.filter(([name]) => name !== "CONTENT_LENGTH" && name !== "SCGI"),
    ]));
    connection.flush();
    roundTrip.send((chunk) => {
      connection.out.append(chunk);
      return connection.flush();
    });
    while (!roundTrip.reader.ended) {
      const bytes = await connection.read();
      if (bytes === null) roundTrip.reader.end();
      else roundTrip.reader.push(bytes);
      roundTrip.watchdog.moved();
      await roundTrip.room();
    }
  } catch (error) {
    roundTrip.fail(error);
  }
  roundTrip.finish();
}
