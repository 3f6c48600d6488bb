#!/usr/bin/env -S deno run --allow-env --allow-net
/**
 * Sessions and a counter in Redis, for an app that runs on several machines. A POST counts a visit, a GET shows the counts.
 *
 * Run `redis-server`, then `./examples/visits.ts`, and open http://localhost:8000.
 */
import { createClient } from "npm:@redis/client@6.3.1";
import { type Handler, serve } from "../mod.ts";

const ONE_DAY = 86_400;

const redis = createClient({
  url: Deno.env.get("REDIS_URL") ?? "redis://127.0.0.1:6379",
  // While Redis cannot be reached, requests fail at once.
  disableOfflineQueue: true,
});
redis.on("error", (error: Error) => console.error(`Redis: ${error.message}`));
// A worker serves once it is connected.
await redis.connect();

const app: Handler = async (request) => {
  const { pathname, protocol } = new URL(request.url);
  if (pathname === "/health") return new Response("ok\n");
  // The id of a session is all that the client has. Nobody can guess it, and it needs no secret.
  const [, id = crypto.randomUUID()] =
    /(?:^|; )session=([\da-f-]{36})(?:;|$)/.exec(request.headers.get("cookie") ?? "") ?? [];
  const session = `session:${id}`;
  const [visits, all] = request.method === "POST"
    // Redis deletes sessions by its own clock.
    ? await redis.multi().hIncrBy(session, "visits", 1).incr("visits").expire(session, ONE_DAY)
      .exec()
    : await redis.multi().hGet(session, "visits").get("visits").exec();
  const secure = protocol === "https:" ? "; Secure" : "";
  return new Response(`Visits: ${visits ?? 0} of ${all ?? 0}\n`, {
    headers: {
      "cache-control": "no-store",
      "set-cookie": `session=${id}; Path=/; HttpOnly; SameSite=Lax; Max-Age=${ONE_DAY}${secure}`,
    },
  });
};

export default app;
if (import.meta.main) await serve(app, { basePath: "auto" });
