#!/usr/bin/env bash
# With OTEL_DENO=true Deno.serve continues a trace by the header `traceparent`, but not by `Traceparent`, as Go's net/http
# writes the name: the span starts a trace of its own. Field names have no case (RFC 9110, section 5.1).
. "$(dirname "$0")/common.sh"

npm_packages deno@2.9.6
# An OTLP receiver that writes each trace id.
cat >"$work/receiver.py" <<'PYTHON'
import http.server, json, sys
class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with open(sys.argv[2], "a") as file:
            for resource in body.get("resourceSpans", []):
                for scope in resource["scopeSpans"]:
                    for span in scope["spans"]: print(span["traceId"], file=file)
        self.send_response(200); self.send_header("content-length", "0"); self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
PYTHON
# Sends one request whose header has the name as it is given.
cat >"$work/app.ts" <<'TS'
const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, () => new Response("hello"));
const client = await Deno.connect({ hostname: "127.0.0.1", port: server.addr.port });
const request = `GET / HTTP/1.1\r\nHost: localhost\r\n${Deno.args[0]}: 00-${Deno.args[1]}-00f067aa0ba902b7-01\r\nConnection: close\r\n\r\n`;
await client.write(new TextEncoder().encode(request));
for await (const _ of client.readable);
await server.shutdown();
TS
deno --version | sed -n 1p
trace=4bf92f3577b34da6a3ce929d0e0e4736
seen() {
  local port file=$work/seen-$1
  port=$(free_port)
  : >"$file"
  serve python3 "$work/receiver.py" "$port" "$file"
  await "$port"
  OTEL_DENO=true OTEL_EXPORTER_OTLP_PROTOCOL=http/json OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:$port" \
    deno run --quiet --allow-net=127.0.0.1 "$work/app.ts" "$1" "$trace"
  case "$(sort -u "$file")" in
    "$trace") result="the client's trace" ;;
    "") result="no span" ;;
    *) result="a trace of its own" ;;
  esac
}
seen traceparent
expect "traceparent" "$result" "the client's trace"
seen Traceparent
expect "Traceparent" "$result" "a trace of its own"
conclude
