#!/usr/bin/env bash
# When HAProxy is reloaded, its old process aborts FastCGI requests that it has just accepted: it sends FCGI_ABORT_REQUEST right
# after FCGI_PARAMS, and their clients get nothing for as long as they wait. To an HTTP application it sends all of them.
. "$(dirname "$0")/common.sh"

debian haproxy=2.6.12-1+deb12u4
# An application over FastCGI, or HTTP. It keeps connections and responds after a millisecond; it writes a line for each
# FCGI_ABORT_REQUEST.
cat >"$work/app.py" <<'PYTHON'
import asyncio, struct, sys
kind, port, log = sys.argv[1], int(sys.argv[2]), open(sys.argv[3], "a", buffering=1)
def record(type, id, content):
    return struct.pack(">BBHHBB", 1, type, id, len(content), 0, 0) + content
async def fastcgi(reader, writer):
    while True:
        _, type, id, length, padding, _ = struct.unpack(">BBHHBB", await reader.readexactly(8))
        await reader.readexactly(length + padding)
        end = record(3, id, b"\0" * 8)
        if type == 2:
            log.write("abort\n")
            writer.write(end)
        elif type == 5 and length == 0:
            await asyncio.sleep(0.001)
            head = b"Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n"
            writer.write(record(6, id, head + b"hi") + record(6, id, b"") + end)
async def http(reader, writer):
    while True:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.001)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
async def serve(reader, writer):
    try:
        await (fastcgi if kind == "fastcgi" else http)(reader, writer)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()
asyncio.run(main())
PYTHON
# Six clients, each with a new connection for each request. Prints how many requests got no byte within four seconds.
cat >"$work/load.py" <<'PYTHON'
import socket, sys, threading, time
port, end = int(sys.argv[1]), time.monotonic() + 7
waited = []
def client():
    while time.monotonic() < end:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.settimeout(4)
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            try:
                connection.recv(1000)
            except TimeoutError:
                waited.append(1)
threads = [threading.Thread(target=client) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("some" if waited else "none")
PYTHON
haproxy -v | head -1

for kind in fastcgi http; do
  app=$(free_port)
  front=$(free_port)
  serve python3 "$work/app.py" "$kind" "$app" "$work/$kind.log"
  await "$app"
  cat >"$work/$kind.cfg" <<CONF
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend front
  bind 127.0.0.1:$front
  default_backend app
backend app
$([ "$kind" = http ] || echo "  use-fcgi-app app")
  server app1 127.0.0.1:$app $([ "$kind" = http ] || echo "proto fcgi")
fcgi-app app
  docroot /
CONF
  serve haproxy -W -f "$work/$kind.cfg"
  master=${pids[-1]}
  await "$front"
  python3 "$work/load.py" "$front" >"$work/$kind.waited" &
  load=$!
  for _ in 1 2 3 4 5 6 7 8; do
    sleep 0.7
    kill -USR2 "$master"
  done
  wait "$load"
  said=$([ "$kind" = http ] && echo none || echo some)
  expect "$kind: requests without a response" "$(cat "$work/$kind.waited")" "$said"
done
aborts=$(grep -c abort "$work/fastcgi.log" || true)
expect "FCGI_ABORT_REQUEST, though no client left" "$([ "$aborts" -gt 0 ] && echo some || echo none)" some
conclude
