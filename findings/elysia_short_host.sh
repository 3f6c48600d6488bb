#!/usr/bin/env bash
# Elysia responds with 404 to every path if the authority of the URL has fewer than four characters, as the names of containers
# have ("http://web/", "http://db/"): it looks for the path's slash from the eleventh character on.
. "$(dirname "$0")/common.sh"

npm_packages elysia@1.4.30
cat >"$work/app.mjs" <<'JS'
import { Elysia } from "elysia";
const app = new Elysia({ aot: process.argv[2] === "aot" }).get("/hello", () => "hello");
for (const host of ["web1", "web", "db", "a"]) {
  const response = await app.fetch(new Request(`http://${host}/hello`));
  console.log(host, response.status);
}
JS
node --version
expect "with aot: false" "$(cd "$work" && node app.mjs jit | paste -sd,)" "web1 200,web 404,db 404,a 404"
expect "with aot: true" "$(cd "$work" && node app.mjs aot | paste -sd,)" "web1 200,web 404,db 404,a 404"
conclude
