import { ProtocolError } from "../wire/protocol_error.ts";
import type { Answer } from "./cgi_response.ts";
import type { Gateway, GatewayInfo, GatewayOptions } from "./gateway_options.ts";
import { describe, plainResponse } from "./respond.ts";

/** How many local redirects may follow one another (SPEC F16). */
const MAX_REDIRECTS = 5;
/** How many local redirects led to a request. */
const redirects = new WeakMap<Request, number>();

/**
 * Makes a handler of what asks an application: follows local redirects, and answers where there is no answer.
 *
 * @param ask Asks; throws a {@linkcode ProtocolError} with the status to answer.
 * @param end Ends what is held open.
 */
export function createGateway(
  options: GatewayOptions,
  ask: (request: Request, info: GatewayInfo | undefined) => Promise<Answer>,
  end: () => void,
): Gateway {
  const { log = console.error, allowedHosts } = options;
  async function answer(request: Request, info: GatewayInfo | undefined): Promise<Response> {
    const answered = await ask(request, info);
    if (answered instanceof Response) return answered;
    const next = redirectedRequest(request, answered.location);
    return options.redirect ? await options.redirect(next, info) : await answer(next, info);
  }
  async function gateway(request: Request, info?: GatewayInfo) {
    try {
      // Deno.serve makes it of any Host field.
      if (!URL.canParse(request.url)) {
        throw new ProtocolError(
          `Cannot answer as the request's URL must be a valid one: current value is ${request.url}`,
        );
      }
      if (allowedHosts !== undefined && !isAllowedHost(request, allowedHosts)) {
        throw new ProtocolError(
          `Cannot answer as the host must be this machine or in allowedHosts: current value is ${
            JSON.stringify(request.headers.get("host") ?? new URL(request.url).host)
          }`,
          421,
        );
      }
      return await answer(request, info);
    } catch (error) {
      if (!request.signal.aborted) {
        log(error instanceof ProtocolError ? error.message : describe(error));
      }
      return plainResponse(error instanceof ProtocolError ? error.status : 500);
    }
  }
  return Object.assign(gateway, { [Symbol.dispose]: end });
}

function redirectedRequest(request: Request, location: string): Request {
  const count = (redirects.get(request) ?? 0) + 1;
  if (count > MAX_REDIRECTS) {
    throw new ProtocolError(
      `Cannot follow local redirects as there must be at most ${MAX_REDIRECTS}: the next is to ${location}`,
      502,
    );
  }
  const headers = new Headers(request.headers);
  for (const name of ["content-length", "content-type", "transfer-encoding"]) headers.delete(name);
  const next = new Request(new URL(request.url).origin + location, {
    method: request.method === "HEAD" ? "HEAD" : "GET",
    headers,
    signal: request.signal,
  });
  redirects.set(next, count);
  return next;
}

function isAllowedHost(request: Request, allowed: string[]): boolean {
  // The URL's host comes of the Host field; one that is no host never gets here.
  const { hostname } = new URL(request.url);
  return /^(?:localhost|127(?:\.\d+){3}|\[::1\])$/.test(hostname) || allowed.includes(hostname);
}
