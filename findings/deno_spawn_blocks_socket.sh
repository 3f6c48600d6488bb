#!/usr/bin/env bash
# A socket that Deno passes to a child by its descriptor becomes blocking for all processes that share it, also as a descriptor
# beyond 2, which Node leaves as it is. Only "inherit" does not change it: a process that opens a socket cannot let several
# workers accept on it.
. "$(dirname "$0")/common.sh"

npm_packages deno@2.9.6
cat >"$work/pass.mjs" <<'JS'
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import process from "node:process";
const server = createServer().listen({ host: "127.0.0.1", port: 0 });
await once(server, "listening");
const { _handle: handle } = server;
const fd = globalThis.Deno ? handle.fdForIpc() : handle.fd;
const mode = () => {
  const flags = parseInt(/flags:\s*(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"))[1], 8);
  return flags & 0o4000 ? "non-blocking" : "blocking";
};
const states = [mode()];
const stdio = { third: ["ignore", "inherit", "inherit", fd], inherit: ["inherit", "inherit", "inherit"] };
await once(spawn("true", [], { stdio: stdio[process.argv[2]] }), "exit");
states.push(mode());
console.log(states.join(", then "));
process.exit();
JS
deno --version | head -1
expect "Deno, inherit" "$(deno run -A "$work/pass.mjs" inherit 2>&1)" "non-blocking, then non-blocking"
expect "Deno, descriptor 3" "$(deno run -A "$work/pass.mjs" third 2>&1)" "non-blocking, then blocking"
expect "Node, descriptor 3" "$(node "$work/pass.mjs" third 2>&1)" "non-blocking, then non-blocking"
conclude
