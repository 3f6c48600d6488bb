import { reasonPhrase } from "../wire/cgi.ts";

/** Creates a response whose body is its status as plain text. */
export function plainResponse(status: number): Response {
  return new Response(`${status} ${reasonPhrase(status)}\n`, {
    status,
    headers: { "content-type": "text/plain;charset=UTF-8" },
  });
}
