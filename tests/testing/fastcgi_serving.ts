import type { App } from "../../bridge/app.ts";
import { type FastCGIOptions, serveFastCGI } from "../../fastcgi.ts";
import { FastCGIClient } from "./fastcgi_client.ts";
import type { Received } from "./fastcgi_records.ts";
import { type Medium, type Served, serving as servingBy } from "./serving.ts";

/** Serves an app over FastCGI for a test, and shuts the server down even if the test fails. */
export const serving = (
  app: App,
  options: FastCGIOptions,
  use: (served: Served<FastCGIClient>) => Promise<void>,
  over: Medium = "memory",
): Promise<void> =>
  servingBy(
    over,
    (listener, own) => serveFastCGI(app, listener, { ...own, ...options }),
    (conn) => new FastCGIClient(conn),
    use,
  );

/** Responds with the request's body. */
export const echo: App = async (request) =>
  new Response(await request.bytes(), { headers: { "x-url": request.url } });
export const hello: App = () => new Response("Hello");

export const types = (records: Received[]): number[] => records.map(({ type }) => type);

/** The variables that make a request a POST. */
export const post = { REQUEST_METHOD: "POST" };
