#!/usr/bin/env -S deno run --allow-env --allow-net
/** A Hono app with routes, a cookie and a session. The session is an encrypted cookie, so it outlives a CGI process. */
import { type SessionEnv, useSession } from "@hono/session";
import { Hono } from "hono";
import { getCookie, setCookie } from "hono/cookie";
import { serve } from "../mod.ts";

const app = new Hono<SessionEnv<{ visits: number }>>();

app.use(useSession({ secret: Deno.env.get("SESSION_SECRET") ?? demonstrationSecret() }));

/** Returns a secret for sessions that end with this process, which only this machine can reach. */
function demonstrationSecret(): string {
  if (!import.meta.main || Deno.env.has("GATEWAY_INTERFACE")) {
    throw new Error("Set SESSION_SECRET, as in: export SESSION_SECRET=$(openssl rand -hex 32)");
  }
  return crypto.randomUUID();
}

app.get("/", (c) => c.text("Try /greet/you, /color/blue and /visits\n"));

app.get("/greet/:name", (c) => c.text(`Hello, ${c.req.param("name")}\n`));

app.get("/color/:color", (c) => {
  const before = getCookie(c, "color") ?? "none";
  setCookie(c, "color", c.req.param("color"), { path: "/", httpOnly: true });
  return c.text(`Your color was ${before} and is now ${c.req.param("color")}\n`);
});

app.get("/visits", async (c) => {
  const visits = ((await c.var.session.get())?.visits ?? 0) + 1;
  await c.var.session.update({ visits });
  return c.text(`Visit ${visits}\n`);
});

export default app.fetch;
// The routes do not depend on where the script is mounted.
if (import.meta.main) await serve(app, { basePath: "auto" });
