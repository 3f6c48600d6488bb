#!/usr/bin/env bash
# Deno keeps the IPC channel of a child process that ended before it read a message, with a descriptor, and dispatches no
# "disconnect"; Node closes it.
. "$(dirname "$0")/common.sh"

npm_packages deno@2.9.6 node@24.11.0
cat >"$work/child.mjs" <<'JS'
import process from "node:process";
process.on("message", () => {});
process.send("ready");
JS
cat >"$work/parent.mjs" <<'JS'
import { fork } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import process from "node:process";
const descriptors = () => readdirSync("/proc/self/fd").length;
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
let disconnected = 0;
async function lose() {
  const child = fork(new URL("child.mjs", import.meta.url).pathname);
  child.on("disconnect", () => disconnected++);
  await new Promise((resolve) => child.once("message", resolve));
  process.kill(child.pid, "SIGSTOP");
  while (!/ T /.test(readFileSync(`/proc/${child.pid}/stat`, "latin1"))) await wait(10);
  child.send("unread");
  await wait(50);
  process.kill(child.pid, "SIGKILL");
  await new Promise((resolve) => child.once("exit", resolve));
  await wait(50);
}
await lose();
const before = descriptors();
disconnected = 0;
for (let i = 0; i < 10; i++) await lose();
// The runtime may hold one or two of its own at the moment.
const more = descriptors() - before;
console.log(`${disconnected} disconnected, ${more < 10 ? more : "10 or more"} descriptors more`);
process.exit();
JS
deno --version | sed -n 1p
node --version
expect "Deno, of 10 children" "$(deno run --quiet --allow-all "$work/parent.mjs")" "0 disconnected, 10 or more descriptors more"
expect "Node, of 10 children" "$(node "$work/parent.mjs")" "10 disconnected, 0 descriptors more"
conclude
