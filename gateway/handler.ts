import { checkNumbers } from "../io/check_numbers.ts";
import { describeError } from "../io/describe.ts";
import { plainResponse } from "../bridge/plain_response.ts";
import { isAuthority } from "../bridge/request.ts";
import { safeLog } from "../io/log.ts";
import { TRACED } from "../io/private_fields.ts";
import { Spool } from "../io/spool.ts";
import type { CallTrace } from "../io/telemetry.ts";
import { Ticker, tickFor } from "../io/ticker.ts";
import { isProtocolError, ProtocolError } from "../wire/protocol_error.ts";
import {
  type BufferOptions,
  DEFAULTS,
  type Gateway,
  type GatewayInfo,
  type GatewayOptions,
} from "./options.ts";
import type { ApplicationResponse } from "./response.ts";
import { FileSender } from "./send_file.ts";
import { disposed } from "./round_trip.ts";
import { mergeSlashes, type ScriptPath } from "./script_path.ts";

/** The maximum number of local redirects in a row (rule F16). */
const MAX_REDIRECTS = 5;
/** The number of local redirects that led to a request. */
const redirects = new WeakMap<Request, number>();

/**
 * Sends a request to the application.
 *
 * @param trace The span to begin when it is sent, if spans are exported.
 * @throws {ProtocolError} If there is no response; has the status to respond with.
 */
type Call = (
  request: Request,
  info: GatewayInfo | undefined,
  trace?: CallTrace,
) => Promise<ApplicationResponse>;

/**
 * Wraps a call of an application as a fetch handler: follows local redirects and turns failures into error responses.
 *
 * @param close Closes connections or kills processes.
 */
export function createGateway(
  options: GatewayOptions,
  call: Call,
  close: () => void,
): Gateway {
  const { allowedHosts } = options;
  const log = safeLog(options.log);
  const files = options.sendFile && new FileSender(options.sendFile);
  let open = true;
  async function respond(request: Request, info: GatewayInfo | undefined): Promise<Response> {
    const response = TRACED
      ? await callTraced(call, request, info, options)
      : await call(request, info);
    if (response instanceof Response) return response;
    // Only with the option does a response name a file.
    if ("field" in response) return await files!.send(request, response);
    const next = redirectedRequest(request, response.location);
    return options.redirect ? await options.redirect(next, info) : await respond(next, info);
  }
  async function gateway(request: Request, info?: GatewayInfo) {
    try {
      if (!open) throw disposed(503);
      checkHost(request);
      if (allowedHosts !== undefined && !isAllowedHost(request, allowedHosts)) {
        throw new ProtocolError(
          `Cannot respond as the host must be this machine or in allowedHosts: current value is ${
            JSON.stringify(request.headers.get("host") ?? new URL(request.url).host)
          }`,
          421,
        );
      }
      return await respond(request, info);
    } catch (error) {
      const known = isProtocolError(error);
      if (!request.signal.aborted) log(known ? error.message : describeError(error));
      return plainResponse(known ? error.status : 500);
    }
  }
  function dispose(): void {
    open = false;
    close();
  }
  return Object.assign(gateway, { [Symbol.dispose]: dispose });
}

/**
 * Creates the ticker that enforces a gateway's limits.
 *
 * @param once Whether it is for one request.
 * @throws {RangeError} If an option is negative or NaN, be it a limit or not.
 */
export function createTicker(
  options: GatewayOptions & { connectTimeout?: number },
  once = false,
): Ticker {
  checkNumbers("Cannot create a gateway", options);
  const {
    timeout = DEFAULTS.timeout,
    clientTimeout = DEFAULTS.clientTimeout,
    connectTimeout = DEFAULTS.connectTimeout,
  } = options;
  const ticker = new Ticker(tickFor(timeout, clientTimeout, connectTimeout), true);
  if (once) ticker.close();
  return ticker;
}

/** Creates the spool that buffers request bodies until all of them have arrived. */
export function createSpool(options: BufferOptions): Spool {
  const {
    maxBufferedTotal = DEFAULTS.maxBufferedTotal,
    maxBufferedBody = DEFAULTS.maxBufferedBody,
  } = options;
  return new Spool({ maxTotal: maxBufferedTotal, maxInMemory: maxBufferedBody });
}

/**
 * Calls an application once. A local redirect becomes a 302 response.
 */
export async function fetchOnce(
  options: GatewayOptions,
  call: Call,
  request: Request | string | URL,
): Promise<Response> {
  const sent = request instanceof Request ? request : new Request(request);
  const files = options.sendFile && new FileSender(options.sendFile);
  const response = TRACED
    ? await callTraced(call, sent, undefined, options)
    : await call(sent, undefined);
  if (response instanceof Response) return response;
  if ("field" in response) return await files!.send(sent, response);
  return new Response(null, { status: 302, headers: { location: response.location } });
}

let telemetry: typeof import("../io/telemetry.ts") | undefined;

/** Does the same as the call, and exports a span of it. */
async function callTraced(
  call: Call,
  request: Request,
  info: GatewayInfo | undefined,
  { redactQuery }: GatewayOptions,
): Promise<ApplicationResponse> {
  telemetry ??= await import("../io/telemetry.ts");
  const trace = new telemetry.CallTrace(request, redactQuery);
  try {
    const response = await call(request, info, trace);
    trace.responds(response instanceof Response ? response : undefined);
    return response;
  } catch (error) {
    trace.fails(error);
    throw error;
  }
}

/** Redirects the client to a folder's URL with a final slash, which the relative links of its index need. */
export function redirectToFolder(request: Request, pathname: string): Response {
  return redirectTo(request, pathname + "/");
}

/** Redirects the client to another path of the same server. */
function redirectTo(request: Request, pathname: string): Response {
  // Not "//host", which is another server.
  const location = pathname.replace(/^\/+/, "/") + new URL(request.url).search;
  return new Response(null, { status: 301, headers: { location } });
}

/** The result of looking up a path: a script, a redirect, or the reason why there is no script. */
type Found = { path: ScriptPath } | Response | { reason: string };

/**
 * Finds the script that a path names, also if slashes before or in its name are doubled: web servers merge them before
 * they check a request. The program around a gateway has checked the unmerged path. GET and HEAD are therefore
 * redirected to the merged path, which then passes all checks (rule F14).
 *
 * @param merges Whether to run the script in place of a redirect.
 * @param find Finds the script of a path; returns a refusal if it names none, or a redirect.
 */
export function findMerged<Result extends Found>(
  request: Request,
  pathname: string,
  merges: boolean,
  find: (pathname: string) => Result,
): Result | Response {
  const found = find(pathname);
  if (!("reason" in found) || !pathname.includes("//")) return found;
  const merged: Found = find(pathname.replace(/\/{2,}/g, "/"));
  if ("reason" in merged || !merges && !/^(?:GET|HEAD)$/.test(request.method)) return found;
  if (merged instanceof Response) return merged;
  const target = mergeSlashes(pathname, merged.path);
  return merges ? find(target) : redirectTo(request, target);
}

/**
 * Checks the Host field: `Deno.serve` puts any value into the URL, and `x/i.php?` would choose another path.
 *
 * @throws {ProtocolError} If it is not a host with an optional port.
 */
function checkHost(request: Request): void {
  const host = request.headers.get("host");
  if (host ? isAuthority(host) : URL.canParse(request.url)) return;
  throw new ProtocolError(
    `Cannot respond as the host must be valid: current value is ${JSON.stringify(host)}`,
  );
}

function redirectedRequest(request: Request, location: string): Request {
  const count = (redirects.get(request) ?? 0) + 1;
  if (count > MAX_REDIRECTS) {
    throw new ProtocolError(
      `Cannot follow more than ${MAX_REDIRECTS} local redirects: the next is to ${location}`,
      502,
    );
  }
  const headers = new Headers(request.headers);
  for (const name of ["content-length", "content-type", "transfer-encoding"]) headers.delete(name);
  // Not by "origin", which a URL of a Unix socket lacks.
  const next = new Request(request.url.replace(/^([a-z+]+:\/\/[^/?#]*).*$/s, "$1") + location, {
    method: request.method === "HEAD" ? "HEAD" : "GET",
    headers,
    signal: request.signal,
  });
  redirects.set(next, count);
  return next;
}

function isAllowedHost(request: Request, allowed: string[]): boolean {
  // The URL's host comes from the Host field. An invalid one has been rejected.
  const { hostname } = new URL(request.url);
  return /^(?:localhost|127(?:\.\d+){3}|\[::1\])$/.test(hostname) || allowed.includes(hostname);
}
