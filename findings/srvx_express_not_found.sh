#!/usr/bin/env bash
# srvx's bridge from Node's (req, res) to Request and Response loses the status of Express: a path without a route is a
# 200 with an empty body, where node:http sends Express's 404 page.
. "$(dirname "$0")/common.sh"

npm_packages srvx@1.0.8 express@5
cat >"$work/app.mjs" <<'JS'
import express from "express";
import { toFetchHandler } from "srvx/node";
import { createServer } from "node:http";
const app = express();
app.get("/there", (_req, res) => res.send("there"));
const bridged = toFetchHandler(app);
for (const path of ["/there", "/missing"]) {
  const response = await bridged(new Request(`http://localhost${path}`));
  console.log("srvx", path, response.status, (await response.text()).length > 0);
}
const server = createServer(app).listen(0, "127.0.0.1", async () => {
  const { port } = server.address();
  console.log("node:http", (await fetch(`http://127.0.0.1:${port}/missing`)).status);
  server.closeAllConnections();
  server.close();
});
JS
seen=$(cd "$work" && node app.mjs)
line() { grep "^$1" <<<"$seen"; }
expect "a route" "$(line "srvx /there")" "srvx /there 200 true"
expect "no route, through srvx" "$(line "srvx /missing")" "srvx /missing 200 false"
expect "no route, from node:http" "$(line node:http)" "node:http 404"
conclude
