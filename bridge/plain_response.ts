import { reasonPhrase } from "../wire/cgi.ts";

/**
 * Creates a response whose body is its status as plain text.
 *
 * @param retryAfter When the client may try again, in seconds.
 */
export function plainResponse(status: number, retryAfter?: number): Response {
  return new Response(`${status} ${reasonPhrase(status)}\n`, {
    status,
    headers: {
      "content-type": "text/plain;charset=UTF-8",
      ...(retryAfter === undefined ? {} : { "retry-after": String(retryAfter) }),
    },
  });
}
