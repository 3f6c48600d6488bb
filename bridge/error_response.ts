import { reasonPhrase } from "../wire/cgi.ts";
import type { AppOptions, HandlerInfo } from "./app.ts";
import { describeError } from "./describe.ts";
import { checkResponse } from "./response_head.ts";

/** What the debug page needs from outside of this layer. */
export interface DebugTools {
  /** Loads what reads the sources and stacks. */
  load(): Promise<SourceReader>;
  /** The address that the server listens on, if it does. */
  address?: Deno.Addr;
}

/** Reads the sources and stacks of errors. */
export interface SourceReader {
  /** Reads a source file; undefined if it cannot be read. */
  readSource(url: string): Promise<string | undefined>;
  /** Returns the frames of an error's stack, as the runtime has them; undefined if it does not. */
  readFrames(error: unknown): RuntimeFrame[] | undefined;
}

/** A frame of an error's stack, as V8 has it. */
export interface RuntimeFrame {
  /** The class of the method; null for a function. */
  typeName: string | null;
  /** The function's name; null at the top level of a module. */
  functionName: string | null;
  /** The URL of its source; null for a native function. */
  fileName: string | null;
  lineNumber: number | null;
  columnNumber: number | null;
  isToplevel: boolean;
  isConstructor: boolean;
  isAsync: boolean;
}

/** Creates a response whose body is its status as plain text. */
export function plainResponse(status: number): Response {
  return new Response(`${status} ${reasonPhrase(status)}\n`, {
    status,
    headers: { "content-type": "text/plain;charset=UTF-8" },
  });
}

/**
 * Creates the response to a request whose handler failed: that of `onError`, the debug page, or a plain 500. Logs the
 * error unless `onError` handles it.
 *
 * @param request The request, if it could be created.
 */
export async function errorResponse(
  error: unknown,
  request: Request | undefined,
  info: HandlerInfo,
  options: AppOptions,
  tools: DebugTools,
): Promise<Response> {
  if (options.onError) {
    try {
      const response = await options.onError(error);
      checkResponse(response);
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
    const { debugPage } = await import("./debug_page.ts");
    return await debugPage(error, request, info, tools);
  } catch (failure) {
    info.log(describeError(failure));
    return plainResponse(500);
  }
}
