/**
 * The client of SCGI, and the gateway to an SCGI application.
 *
 * @module
 */

import type { Address } from "../io/address.ts";
import type { Spool } from "../io/spool.ts";
import type { CallTrace } from "../io/telemetry.ts";
import type { Ticker } from "../io/ticker.ts";
import { encodeSCGIHeaders } from "../wire/scgi.ts";
import { plainResponse } from "../bridge/plain_response.ts";
import { ApplicationConnections, type Connection } from "./connection.ts";
import { createGateway, createSpool, createTicker, fetchOnce } from "./handler.ts";
import type { Gateway, GatewayInfo, SCGIGatewayOptions } from "./options.ts";
import type { ApplicationResponse } from "./response.ts";
import { RoundTrip, type Transport } from "./round_trip.ts";
import {
  type BasePath,
  decodeTarget,
  pathBelow,
  readBasePath,
  type ScriptPath,
} from "./script_path.ts";

/**
 * Creates a handler that calls an SCGI application, over a new connection for each request.
 *
 * Needs `--allow-net` of the address; for a Unix socket `--allow-net=unix:/path`, and `--allow-read` and
 * `--allow-write` of its path.
 *
 * @param address `host:port`, `[ipv6]:port` or `unix:/path`.
 * @throws {TypeError} If the address or the base path is invalid.
 * @throws {RangeError} If a limit or timeout is negative or NaN.
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
  const application = new Application(address, options, createTicker(options));
  return createGateway(
    options,
    (request, info, trace) => application.call(request, info, trace),
    () => application.close(),
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
  const application = new Application(address, options, createTicker(options, true));
  return fetchOnce(options, (sent, info, trace) => application.call(sent, info, trace), request);
}

/** An SCGI application, as a gateway calls it. */
class Application {
  #options: SCGIGatewayOptions;
  #connections: ApplicationConnections;
  #ticker: Ticker;
  #spool: Spool;
  #base: BasePath;

  constructor(address: Address, options: SCGIGatewayOptions, ticker: Ticker) {
    this.#options = options;
    this.#connections = new ApplicationConnections(address, options, ticker);
    this.#ticker = ticker;
    this.#spool = createSpool(options);
    this.#base = readBasePath(options);
  }

  /** Closes all connections. */
  close(): void {
    this.#connections.close();
    this.#ticker.close();
  }

  /** Sends a request. */
  async call(
    request: Request,
    info: GatewayInfo | undefined,
    trace?: CallTrace,
  ): Promise<ApplicationResponse> {
    const { bufferBody = false } = this.#options;
    const url = new URL(request.url);
    const rest = pathBelow(url.pathname, this.#base);
    if (rest === undefined) return plainResponse(404);
    const path = { scriptName: this.#base.name, pathInfo: decodeTarget(rest) };
    const roundTrip = new RoundTrip(request, info, this.#options, this.#ticker, trace);
    try {
      await roundTrip.receive(bufferBody ? "whole" : "length", this.#spool);
      const head = encodeHead(roundTrip, url, path);
      const connection = await this.#connections.connect(roundTrip);
      if (connection !== undefined) {
        new SCGIClient(roundTrip, connection).run(head)
          .then(() => this.#connections.release(connection, false));
      }
    } catch (error) {
      roundTrip.abort(error);
    }
    return await roundTrip.response;
  }
}

function encodeHead(roundTrip: RoundTrip, url: URL, path: ScriptPath): Uint8Array {
  const pairs: [name: string, value: string][] = [
    ["CONTENT_LENGTH", String(roundTrip.length)],
    ["SCGI", "1"],
  ];
  roundTrip.variables(url, path, undefined, (name, value) => {
    if (name !== "CONTENT_LENGTH" && name !== "SCGI") pairs.push([name, value]);
  });
  return encodeSCGIHeaders(pairs);
}

/** One request to an SCGI application. */
class SCGIClient implements Transport {
  #roundTrip: RoundTrip;
  #connection: Connection;

  constructor(roundTrip: RoundTrip, connection: Connection) {
    this.#roundTrip = roundTrip;
    this.#connection = connection;
  }

  /** Sends the request and reads the response. Resolves when the connection is no longer needed. */
  async run(head: Uint8Array): Promise<void> {
    const roundTrip = this.#roundTrip;
    const connection = this.#connection;
    const { reader } = roundTrip;
    roundTrip.transport = this;
    try {
      connection.out.append(head);
      if (roundTrip.request.body !== null) connection.setNoDelay();
      connection.flush();
      this.#sendBody();
      while (!reader.ended) {
        const bytes = await connection.read();
        roundTrip.progressed();
        if (bytes === null) {
          reader.end();
          break;
        }
        reader.push(bytes);
        reader.flushSoon();
        const room = roundTrip.room();
        if (room) await room;
      }
    } catch (error) {
      roundTrip.fail(error);
    }
    roundTrip.finish();
  }

  #sendBody(): void {
    if (this.#roundTrip.request.body === null) return;
    const { out } = this.#connection;
    this.#roundTrip.send((chunk) => {
      out.append(chunk);
      return this.#connection.flush();
    });
  }

  abort(): void {
    this.#connection.close();
  }
}
