#!/usr/bin/env bash
# Deno's node:net takes connections off a listening socket in batches. If the server closes after the first one, the rest
# of its batch is lost: no "connection" event, no error, and another process that shares the socket never gets them.
# Node leaves them in the system's queue.
. "$(dirname "$0")/common.sh"

npm_packages deno@2.9.6
cat >"$work/one.mjs" <<'JS'
import { createServer } from "node:net";
const server = createServer((socket) => {
  socket.destroy();
  server.close();
});
server.listen({ fd: 0 });
JS
# Connects 32 clients, lets a child accept one, and accepts what is left.
cat >"$work/share.py" <<'PYTHON'
import socket, subprocess, sys
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(64)
clients = [socket.create_connection(listener.getsockname()) for _ in range(32)]
subprocess.run(sys.argv[1:], stdin=listener, timeout=30, check=True)
listener.setblocking(False)
left = 0
try:
    while True: listener.accept(); left += 1
except BlockingIOError: pass
print(f"1 accepted, {left} left, {31 - left} lost")
PYTHON
deno --version | sed -n 1p
echo "Node $(node --version)"
expect "Node" "$(python3 "$work/share.py" node "$work/one.mjs")" "1 accepted, 31 left, 0 lost"
expect "Deno" "$(python3 "$work/share.py" deno run --quiet --allow-net "$work/one.mjs")" "1 accepted, 0 left, 31 lost"
conclude
