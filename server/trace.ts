/**
 * How a request is described to `io/telemetry.ts`. Loaded only if the runtime exports telemetry.
 *
 * @module
 */

import { type RequestTrace, traceRequest } from "../io/telemetry.ts";
import type { Variables } from "../wire/variables.ts";

/** Begins the trace of a request. Returns null if neither spans nor metrics are exported. */
export function startTrace(variables: Variables): RequestTrace | null {
  return traceRequest({
    method: variables.byteString("REQUEST_METHOD") ?? "HTTP",
    version: httpVersion(variables.byteString("SERVER_PROTOCOL")),
    bodyLength: Number(variables.byteString("CONTENT_LENGTH") ?? 0) || 0,
    header: (name) => variables.byteString(`HTTP_${name.toUpperCase().replaceAll("-", "_")}`),
  });
}

/** Returns the version as OpenTelemetry writes it: 1.0 and 1.1, but 2 and 3. */
function httpVersion(protocol: string | undefined): string | undefined {
  const version = /^HTTP\/(\d(?:\.\d)?)$/.exec(protocol ?? "")?.[1];
  return version?.replace(/^([2-9])\.0$/, "$1");
}
