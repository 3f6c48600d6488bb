#!/usr/bin/env bash
# Deno.serve exports http.response.status_code as a string in spans and as an integer in metrics; the semantic conventions
# of OpenTelemetry say integer for both.
. "$(dirname "$0")/common.sh"

npm_packages deno@2.9.6
# An OTLP receiver that writes each attribute named http.response.status_code with the path that it was sent to.
cat >"$work/receiver.py" <<'PYTHON'
import http.server, json, sys
def attributes(node):
    if isinstance(node, dict):
        if node.get("key") == "http.response.status_code": yield node["value"]
        for child in node.values(): yield from attributes(child)
    elif isinstance(node, list):
        for child in node: yield from attributes(child)
class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with open(sys.argv[2], "a") as file:
            for value in attributes(body): print(self.path, json.dumps(value), file=file)
        self.send_response(200); self.send_header("content-length", "0"); self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
PYTHON
cat >"$work/app.ts" <<'TS'
const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, () => new Response("hello"));
await (await fetch(`http://127.0.0.1:${server.addr.port}/`)).text();
await server.shutdown();
TS
port=$(free_port)
touch "$work/seen"
serve python3 "$work/receiver.py" "$port" "$work/seen"
await "$port"
deno --version | sed -n 1p
OTEL_DENO=true OTEL_EXPORTER_OTLP_PROTOCOL=http/json OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:$port" \
  deno run --quiet --allow-net="127.0.0.1" "$work/app.ts"
seen() { grep "^$1 " "$work/seen" | sort -u | cut -d' ' -f2-; }
expect "in spans" "$(seen /v1/traces)" '{"stringValue": "200"}'
expect "in metrics" "$(seen /v1/metrics)" '{"intValue": "200"}'
conclude
