#!/usr/bin/env -S deno run --allow-env --allow-net
/**
 * Protects pages of the web server with a password: in FastCGI's authorizer role behind lighttpd and mod_fcgid, and
 * with `auth_request` behind nginx, which sends an ordinary request. docs/servers.md has the configurations.
 *
 * Run `deno run --allow-read --allow-env --allow-net cli.ts serve examples/authorizer.ts --protocol fastcgi`. The user is
 * `ann`, the password `open sesame`.
 */
import { allow } from "../fastcgi.ts";
import { type AppObject, serve } from "../mod.ts";

const EXPECTED = `Basic ${btoa("ann:open sesame")}`;

function authorize(request: Request): Response {
  if (request.headers.get("authorization") === EXPECTED) return allow({ MEMBER: "ann" });
  return new Response("Members only\n", {
    status: 401,
    headers: { "www-authenticate": 'Basic realm="Members"' },
  });
}

const app: AppObject = { fetch: authorize, authorize };

export default app;
if (import.meta.main) await serve(app);
