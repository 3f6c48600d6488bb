import type { App } from "../../bridge/app.ts";
import { type SCGIOptions, serveSCGI } from "../../scgi.ts";
import { encodeSCGIHeaders } from "../../wire/scgi.ts";
import { bytes, concat } from "./bytes.ts";
import { SCGIClient } from "./scgi_client.ts";
import { type Medium, type Served, serving as servingBy } from "./serving.ts";

/** Serves an app over SCGI for a test, and shuts the server down even if the test fails. */
export const serving = (
  app: App,
  options: SCGIOptions,
  use: (served: Served<SCGIClient>) => Promise<void>,
  over: Medium = "memory",
): Promise<void> =>
  servingBy(
    over,
    (listener, own) => serveSCGI(app, listener, { ...own, ...options }),
    (conn) => new SCGIClient(conn),
    use,
  );

/** Returns the headers of a request, as web servers send them. */
export function head(length: number, others: Record<string, string> = {}): Uint8Array {
  return encodeSCGIHeaders(Object.entries({
    CONTENT_LENGTH: String(length),
    REQUEST_METHOD: length > 0 ? "POST" : "GET",
    REQUEST_URI: "/",
    HTTP_HOST: "example.org",
    SCGI: "1",
    ...others,
  }));
}

/** Returns the bytes of a whole request. */
export function request(body = "", others?: Record<string, string>): Uint8Array {
  return concat([head(body.length, others), bytes(body)]);
}
