import type { App, AppOptions, Handler } from "../bridge/app.ts";
import { plainResponse } from "../bridge/plain_response.ts";
import { isAuthority, NO_REQUEST } from "../bridge/request.ts";
import type { Addr } from "../io/addr.ts";
import { describeError } from "../io/describe.ts";
import { safeLog } from "../io/log.ts";
import {
  bufferedResponse,
  hasLeft,
  readNative,
  requestField,
  TRACED,
} from "../io/private_fields.ts";
import type { ServeInfo } from "../io/runtime.ts";
import { Ticker, tickFor } from "../io/ticker.ts";
import { ProtocolError } from "../wire/protocol_error.ts";
import type { DebugHook } from "./debug_hook.ts";
import { errorResponse } from "./error_response.ts";
import { CLIENT_CLOSED } from "./exchange.ts";
import { isTrusted } from "./forwarded.ts";
import { HTTPCompletion, LONG, SWITCHING_PROTOCOLS } from "./http_completion.ts";
import { HTTPDeadline } from "./http_deadline.ts";
import { HTTPInfo, type LoggedOptions, withURL } from "./http_info.ts";
import { type Limited, withHost } from "./moved_request.ts";
import { toHandler } from "./respond.ts";
import { checkHeaders, checkResponse } from "./response_head.ts";
import type { ServerOptions } from "./server.ts";

/** Matches what may be a dot segment. `Deno.serve` leaves these in the URL, `Request` resolves them (rule A14). */
const DOTS = /\/(?:\.|%2e)/i;

/** The options of a server that its requests need, and the path of its socket if it is a Unix socket. */
export interface HTTPServiceOptions extends AppOptions, Pick<ServerOptions, "log"> {
  path?: string;
}

/** Serves the requests of one server over HTTP: what `Deno.serve` calls for each. */
export class HTTPService {
  #handler: Handler;
  #options: LoggedOptions;
  #debug: DebugHook;
  /** The options for the peers that a list of `trustForwarded` includes, and for others. */
  #trusting: LoggedOptions;
  #distrusting: LoggedOptions;
  /** Whether the app sees another URL than Deno. On a Unix socket, its URLs have the scheme "http+unix". */
  #moved: boolean;
  /** The requests whose handlers run, if their ends are reported. */
  #pending = new Ticker<HTTPCompletion>(tickFor(LONG));
  #requestTimeout: number;
  /** The requests whose apps must respond in time. */
  #limited: Ticker<HTTPDeadline>;
  #telemetry: typeof import("../io/telemetry.ts") | undefined;

  constructor(app: App, options: HTTPServiceOptions, debug: DebugHook) {
    this.#debug = debug;
    this.#handler = toHandler(app);
    this.#options = { ...options, log: safeLog(options.log) };
    this.#trusting = { ...this.#options, trustForwarded: true };
    this.#distrusting = { ...this.#options, trustForwarded: false };
    const { path, basePath, trustForwarded, requestTimeout = Infinity } = options;
    this.#requestTimeout = requestTimeout;
    this.#limited = new Ticker(tickFor(requestTimeout));
    if (TRACED && options.onCompleted !== undefined) this.#loadTelemetry();
    this.#moved = path !== undefined || basePath !== undefined || Boolean(trustForwarded);
  }

  async #loadTelemetry(): Promise<void> {
    this.#telemetry = await import("../io/telemetry.ts");
  }

  close(): void {
    this.#pending.close();
    this.#limited.close();
  }

  /** Responds to a request. Not async, as the response of an app that does not wait costs less without a promise. */
  serve(native: Request, info: ServeInfo): Response | Promise<Response> {
    const { onCompleted } = this.#options;
    const given = requestField(native, "host");
    const refusal = refusalOf(native, given);
    const addressed = refusal === undefined && given ? addressedHost(native.url, given) : undefined;
    const request = addressed === undefined ? native : withHost(native, addressed);
    const host = addressed ?? given;
    if (onCompleted === undefined) {
      const own = new HTTPInfo(request, host, info, this.#optionsFor(info));
      return this.#respond(request, refusal, own);
    }
    // Read now, as Deno knows neither once the response is sent.
    const { remoteAddr, completed } = info;
    const kept = { remoteAddr, completed };
    const own = new HTTPInfo(request, host, kept, this.#optionsFor(kept));
    const traceId = this.#telemetry?.activeTraceId();
    const completion = new HTTPCompletion(request, own, onCompleted, traceId);
    return this.#report(completion, request, refusal, own);
  }

  #optionsFor(info: ServeInfo): LoggedOptions {
    const options = this.#options;
    if (!Array.isArray(options.trustForwarded)) return options;
    return isTrusted(options, nameOfPeer(info.remoteAddr)) ? this.#trusting : this.#distrusting;
  }

  async #report(
    completion: HTTPCompletion,
    request: Request,
    refusal: number | undefined,
    info: HTTPInfo,
  ): Promise<Response> {
    this.#pending.add(completion);
    completion.onreported = () => this.#pending.delete(completion);
    return completion.responded(await this.#respond(request, refusal, info, completion));
  }

  #respond(
    request: Request,
    refusal: number | undefined,
    info: HTTPInfo,
    completion?: HTTPCompletion,
  ): Response | Promise<Response> {
    return this.#requestTimeout === Infinity || refusal !== undefined
      ? this.#call(request, refusal, info, completion)
      : this.#callInTime(request, info, completion);
  }

  async #callInTime(
    request: Request,
    info: HTTPInfo,
    completion: HTTPCompletion | undefined,
  ): Promise<Response> {
    const deadline = new HTTPDeadline(request, this.#requestTimeout, this.#options.log);
    this.#limited.add(deadline);
    const responding = this.#call(request, undefined, info, completion, deadline);
    const response = await deadline.race(Promise.resolve(responding));
    deadline.drain().then(() => this.#limited.delete(deadline));
    return response;
  }

  #call(
    request: Request,
    refusal: number | undefined,
    info: HTTPInfo,
    completion?: HTTPCompletion,
    deadline?: HTTPDeadline,
  ): Response | Promise<Response> {
    let seen: Request | undefined;
    const fail = (error: unknown) => this.#fail(error, request, seen, info, deadline);
    try {
      const normal = refusal ??
        (this.#moved || DOTS.test(request.url)
          ? normalize(info, deadline)
          : deadline === undefined
          ? request
          : withURL(request, request.url, deadline));
      if (typeof normal === "number") return plainResponse(normal);
      seen = completion === undefined ? normal : completion.requested(normal);
      const response = this.#handler(seen, info);
      // An app without types may return anything.
      return response instanceof Response
        ? checked(response)
        : Promise.resolve(response).then(checked).catch(fail);
    } catch (error) {
      return fail(error);
    }
  }

  /** Creates the response if the app throws, or returns what cannot be sent. */
  async #fail(
    error: unknown,
    request: Request,
    seen: Request | undefined,
    info: HTTPInfo,
    deadline: HTTPDeadline | undefined,
  ): Promise<Response> {
    if (hasLeft(request)) return new Response(null, { status: CLIENT_CLOSED });
    if (deadline?.isOver) {
      if (!deadline.isReason(error)) info.log(describeError(error));
      return plainResponse(503);
    }
    return await errorResponse(error, seen, info, this.#options, this.#debug);
  }
}

/** Returns a response that can be sent. */
function checked(response: Response): Response {
  // A response that is in memory has a status, and was not read: both cost more to ask.
  const isChecked = bufferedResponse(response) !== undefined ||
    response?.status === SWITCHING_PROTOCOLS;
  if (!isChecked) {
    checkResponse(response);
    if (readNative(response, "body")?.locked) {
      throw new TypeError(
        "Cannot send response: its body is locked by a reader. Release it, or return a response with another body",
      );
    }
  }
  checkHeaders(response);
  return response;
}

/** Returns the request with the URL that the app sees, or the status to refuse it with. */
function normalize(info: HTTPInfo, limited: Limited | undefined): Request | number {
  try {
    return HTTPInfo.normalize(info, limited);
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    info.log(error.message);
    return error.status;
  }
}

/** Returns the status to refuse a request with, or undefined. */
function refusalOf({ method, url }: Request, host: string | null): number | undefined {
  if (NO_REQUEST.test(method)) return 501;
  // Deno.serve puts any Host into the URL: "x/y?" would change its path.
  if (host && !isAuthority(host)) return 400;
  const addressed = addressedHost(url, host);
  return addressed !== undefined && !isAuthority(addressed) ? 400 : undefined;
}

/**
 * Returns the authority of a URL as the client wrote it, which an absolute target has set; undefined if it is that of Host,
 * and on a Unix socket.
 */
function addressedHost(url: string, host: string | null): string | undefined {
  if (host !== null && url.startsWith(`http://${host}/`)) return undefined;
  const addressed = /^https?:\/\/([^/?#]*)/.exec(url)?.[1];
  return addressed === host ? undefined : addressed;
}

/** Returns a peer as REMOTE_ADDR names it, one on a Unix socket as HAProxy does: "unix". */
function nameOfPeer(addr: Addr): string {
  return "hostname" in addr ? addr.hostname : addr.transport;
}
