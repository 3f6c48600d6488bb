#!/usr/bin/env bash
# Bun makes a GET of a request with a method that it does not know: new Request(url, { method: "BREW" }).method is "GET".
# It writes "patch" in capitals, too. Fetch ("normalize a method") and Node keep both as they are.
. "$(dirname "$0")/common.sh"

npm_packages bun@1.4.5
cat >"$work/method.mjs" <<'JS'
const methods = ["PURGE", "REPORT", "QUERY", "BREW", "get", "patch"];
console.log(methods.map((method) => new Request("http://localhost/", { method }).method).join(" "));
JS
echo "Bun $(bun --version), Node $(node --version)"
expect "Bun" "$(bun "$work/method.mjs")" "PURGE REPORT QUERY GET GET PATCH"
expect "Node" "$(node "$work/method.mjs" 2>/dev/null)" "PURGE REPORT QUERY BREW GET patch"
conclude
