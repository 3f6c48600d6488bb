#!/usr/bin/env bash
# A user who may only read DENO_DIR uses its compiled code only while the files of SQLite are beside each database (-shm and
# -wal). Deno deletes them if it has time to close the databases at its end, so that a cache that was filled well may not be used
# by others. Empty files do.
. "$(dirname "$0")/common.sh"

[ "$(id -u)" = 0 ] || { echo "only root can run a script as another user" >&2; exit 2; }
npm_packages deno@2.9.6
deno=$(python3 -c 'import os, sys; print(os.path.realpath(sys.argv[1]))' "$work/node_modules/.bin/deno")
[ "$(head -c 2 "$deno")" != "#!" ] || deno=$(find "$work/node_modules" -name deno -type f -size +10M | head -1)
chmod -R a+rX "$work"
echo 'console.log("Hello");' >"$work/hello.js"
mkdir "$work/cache"
for _ in 1 2; do DENO_DIR=$work/cache "$deno" run --no-config "$work/hello.js" >/dev/null; done
start() {
  if setpriv --reuid=65534 --regid=65534 --clear-groups env DENO_DIR="$work/cache" DENO_LOG=debug \
    "$deno" run --no-config "$work/hello.js" 2>&1 | grep -q "V8 code cache hit for ES module: file://"; then
    echo "uses the compiled code"
  else
    echo "compiles"
  fi
}
"$deno" --version | head -1
# As Deno does at its end.
for file in "$work"/cache/*_v2; do
  python3 -c 'import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("pragma wal_checkpoint(truncate)").fetchall()
database.close()' "$file"
  rm -f "$file-shm" "$file-wal"
done
expect "another user, once the databases are closed" "$(start)" "compiles"
for file in "$work"/cache/*_v2; do touch "$file-shm" "$file-wal"; done
expect "the same with empty files" "$(start)" "uses the compiled code"
conclude
