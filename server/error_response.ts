import type { AppOptions, HandlerInfo } from "../bridge/app.ts";
import { describeError } from "../io/describe.ts";
import { plainResponse } from "../bridge/plain_response.ts";
import type { DebugHook } from "./debug_hook.ts";
import { checkHeaders, checkResponse } from "./response_head.ts";

/**
 * Creates the response to a request whose handler failed: that of `onError`, the debug page, or a plain 500. Logs the
 * error unless `onError` handles it.
 *
 * @param request The request that the app got. Absent if it could not be created: then `onError` is not called.
 */
export async function errorResponse(
  error: unknown,
  request: Request | undefined,
  info: HandlerInfo,
  options: AppOptions,
  debug: DebugHook,
): Promise<Response> {
  if (options.onError && request !== undefined) {
    try {
      const response = await options.onError(error, request, info);
      checkResponse(response);
      if (info.protocol === "http") checkHeaders(response);
      return response;
    } catch (nested) {
      info.log(describeError(error));
      error = nested;
    }
  }
  info.log(describeError(error));
  if (info.protocol !== "http" && info.variables.has("HTTP_UPGRADE")) {
    info.log(
      `The client requested an upgrade, which only HTTP carries: proxy this path to serveHTTP(), not over ${info.protocol}`,
    );
  }
  if (!options.debug) return plainResponse(500);
  try {
    const { debugPage } = await debug.load();
    return await debugPage(error, request, info, debug.address);
  } catch (failure) {
    info.log(describeError(failure));
    return plainResponse(500);
  }
}
