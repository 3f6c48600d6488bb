#!/usr/bin/env -S deno run --allow-net --allow-read --allow-write=/run/php
/**
 * A PHP application with its static files: `php_front.ts unix:/run/php/php-fpm.sock /srv/www`. Hono serves the files
 * with the extensions below, and PHP handles everything else. An allowlist is safer than a blocklist: the folder also
 * has scripts, and perhaps their configuration (composer.json, phpunit.xml) and backups.
 */
import { Hono } from "hono";
import { serveStatic } from "hono/deno";
import { type Address, fastCGIGateway, type Gateway } from "../gateway.ts";

const STATIC =
  /^(?!.*(?:\/\.|%00|\.php\/))(?:.*\.(?:css|gif|html|ico|jpe?g|js|mp4|pdf|png|svg|ttf|webmanifest|webp|woff2?)|\/(?:robots\.txt|sitemap\.xml))$/i;

/** Creates the server's app. PHP handles files that do not exist: many applications create them on demand. */
export function createApp(php: Gateway, root: string): Hono<{ Bindings: Deno.ServeHandlerInfo }> {
  const app = new Hono<{ Bindings: Deno.ServeHandlerInfo }>();
  const files = serveStatic({ root });
  app.get("*", (c, next) => STATIC.test(c.req.path) ? files(c, next) : next());
  app.all("*", (c) => php(c.req.raw, c.env));
  return app;
}

if (import.meta.main) {
  const [address, root] = Deno.args;
  const php = fastCGIGateway(address as Address, { root, fallback: "/index.php" });
  Deno.serve({ hostname: "127.0.0.1", port: 8000 }, createApp(php, root).fetch);
}
