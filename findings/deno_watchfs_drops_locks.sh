#!/usr/bin/env bash
# Deno.watchFs() loses the locks of its process: it opens and closes each file that changes in the folder, and a close ends
# all POSIX locks that the process has on a file. A second process then begins to write to an SQLite database in the middle of
# the first one's transaction. Deno's own caches are SQLite databases: if DENO_DIR is in the folder, the process may end with
# SIGBUS.
. "$(dirname "$0")/common.sh"

npm_packages deno@2.9.6
cat >"$work/writer.js" <<'JS'
import { DatabaseSync } from "node:sqlite";
const [folder, watches] = Deno.args;
const database = new DatabaseSync(`${folder}/a.db`);
database.exec("CREATE TABLE IF NOT EXISTS t (a); BEGIN IMMEDIATE");
const inode = Deno.statSync(`${folder}/a.db`).ino;
const locks = () =>
  Deno.readTextFileSync("/proc/locks").split("\n")
    .filter((line) => line.includes(` ${Deno.pid} `) && line.includes(`:${inode} `)).length;
const run = (...words) => new Deno.Command(words[0], { args: words.slice(1) }).outputSync().success;
const before = locks();
if (watches === "watch") {
  const watcher = Deno.watchFs(folder);
  run("touch", `${folder}/a.db`);
  await watcher[Symbol.asyncIterator]().next();
} else run("touch", `${folder}/a.db`);
const second = run(Deno.execPath(), "run", "-A", new URL("second.js", import.meta.url).pathname, folder);
console.log(before > 0 ? "locked," : "no lock,", locks() > 0 ? "locked," : "no lock,", second ? "a second writer" : "one writer");
JS
cat >"$work/second.js" <<'JS'
import { DatabaseSync } from "node:sqlite";
new DatabaseSync(`${Deno.args[0]}/a.db`, { timeout: 0 }).exec("BEGIN IMMEDIATE");
JS
deno --version | head -1
mkdir "$work/data"
expect "before, after a touch, and then" "$(deno run -A "$work/writer.js" "$work/data" 2>&1)" "locked, locked, one writer"
expect "the same with a watch on the folder" "$(deno run -A "$work/writer.js" "$work/data" watch 2>&1)" \
  "locked, no lock, a second writer"
conclude
