#!/usr/bin/env bash
# Without a permission Deno names the access "inspector" of --allow-sys, a query of it works, and the flag refuses it.
. "$(dirname "$0")/common.sh"

npm_packages deno@2.9.6
cat >"$work/query.ts" <<'TS'
const { state } = Deno.permissions.querySync({ name: "sys", kind: "inspector" });
console.log(state);
TS
cat >"$work/open.ts" <<'TS'
import inspector from "node:inspector";
inspector.open(0, "127.0.0.1");
TS
run() { deno run --quiet --no-prompt "$@" 2>&1 | sed -n 1p; }
deno --version | sed -n 1p
expect "node:inspector without a permission" "$(run "$work/open.ts")" \
  'error: Uncaught (in promise) NotCapable: Requires sys access to "inspector", run again with the --allow-sys flag'
expect "the state of the permission with --allow-sys" "$(run --allow-sys "$work/query.ts")" "granted"
expect "with --allow-sys=inspector" "$(run --allow-sys=inspector "$work/query.ts")" "error: unknown sys descriptor: 'inspector'"
conclude
