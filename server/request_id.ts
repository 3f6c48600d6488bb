import type { Variables } from "../wire/variables.ts";

/** Matches an id that no log can be confused by: others are not used (rule A33). */
const ID = /^[\w.~:+/=@-]{1,128}$/;
/** Matches a traceparent header of W3C Trace Context, whose trace id is not all zeros. */
const TRACEPARENT = /^(?!ff)[\da-f]{2}-(?!0{32})([\da-f]{32})-[\da-f]{16}-[\da-f]{2}(?:-|$)/;

/** Returns the first id that can be used, or a new one. */
export function chooseRequestId(...ids: (string | null | undefined)[]): string {
  for (const id of ids) if (id && ID.test(id)) return id;
  return crypto.randomUUID();
}

/** Returns the id of a request: X-Request-Id, else the UNIQUE_ID of Apache's mod_unique_id, else a new one. */
export function requestIdOf(variables: Variables): string {
  return chooseRequestId(
    variables.byteString("HTTP_X_REQUEST_ID"),
    variables.byteString("UNIQUE_ID"),
  );
}

/** Returns the id of the trace that a traceparent header names, if it is valid. */
export function traceIdOf(traceparent: string | null | undefined): string | undefined {
  return traceparent ? TRACEPARENT.exec(traceparent)?.[1] : undefined;
}
