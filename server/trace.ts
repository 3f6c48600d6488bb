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
    version: VERSIONS.get(variables.byteString("SERVER_PROTOCOL") ?? ""),
    bodyLength: Number(variables.byteString("CONTENT_LENGTH") ?? 0) || 0,
    header: (name) => variables.byteString(fieldVariable(name)),
  });
}

/** The versions as OpenTelemetry writes them: 1.0 and 1.1, but 2 and 3. */
const VERSIONS = new Map(Object.entries({
  "HTTP/1.0": "1.0",
  "HTTP/1.1": "1.1",
  "HTTP/2": "2",
  "HTTP/2.0": "2",
  "HTTP/3": "3",
  "HTTP/3.0": "3",
}));
/** The variables of the header fields that carry a trace. */
const FIELDS = new Map<string, string>();

function fieldVariable(name: string): string {
  let variable = FIELDS.get(name);
  if (variable === undefined) {
    variable = `HTTP_${name.toUpperCase().replaceAll("-", "_")}`;
    FIELDS.set(name, variable);
  }
  return variable;
}
