#!/usr/bin/env bash
# nginx ends a response that its FastCGI application cut off as if it were complete: the client gets the last chunk and no
# error. It reports the truncation only with both "fastcgi_keep_conn on" and "fastcgi_buffering on"; the default has the
# latter only. Buffering "off" is not sooner, either: with "on" nginx also passes on each record as it arrives.
. "$(dirname "$0")/common.sh"

debian nginx-light=1.22.1-9+deb12u11 nginx=1.22.1-9+deb12u11
# A FastCGI application that ends its connection in the middle of the body, or sends two records, the second one only
# when a file says that the client has the first.
cat >"$work/app.py" <<'PYTHON'
import os, socket, struct, sys, time
path, got = sys.argv[1:]
server = socket.socket(socket.AF_UNIX)
server.bind(path)
os.chmod(path, 0o666)
server.listen(8)
record = lambda type, content: struct.pack(">BBHHBB", 1, type, 1, len(content), 0, 0) + content
for _ in range(16):
    connection, _ = server.accept()
    request = b""
    # FCGI_STDIN's empty record ends the request.
    while record(5, b"") not in request:
        request += connection.recv(65536)
    head = b"Content-Type: text/plain\r\n\r\n"
    connection.sendall(record(6, head + b"first\n"))
    if b"/cut" not in request:
        for _ in range(100):
            if os.path.exists(got): break
            time.sleep(0.1)
        connection.sendall(record(6, b"second\n") + record(6, b"") + record(3, b"\0" * 8))
    connection.close()
PYTHON
port=$(free_port)
cat >"$work/nginx.conf" <<CONF
daemon off; pid $work/nginx.pid; error_log $work/error.log; worker_processes 1;
events {}
http {
  access_log off;
  client_body_temp_path $work/a; proxy_temp_path $work/b; fastcgi_temp_path $work/c;
  uwsgi_temp_path $work/d; scgi_temp_path $work/e;
  fastcgi_param REQUEST_METHOD \$request_method; fastcgi_param REQUEST_URI \$request_uri;
  server {
    listen 127.0.0.1:$port;
    location /on/ { fastcgi_pass unix:$work/app.sock; }
    location /off/ { fastcgi_pass unix:$work/app.sock; fastcgi_buffering off; }
    location /kept-on/ { fastcgi_pass unix:$work/app.sock; fastcgi_keep_conn on; }
    location /kept-off/ { fastcgi_pass unix:$work/app.sock; fastcgi_keep_conn on; fastcgi_buffering off; }
  }
}
CONF
serve python3 "$work/app.py" "$work/app.sock" "$work/got"
await "$work/app.sock"
serve nginx -p "$work" -c "$work/nginx.conf"
await "$port"
nginx -v 2>&1

# Prints curl's exit code: 0 for a complete response, 18 for a partial one.
code() { curl -s -m 20 -o /dev/null "http://127.0.0.1:$port/$1" && echo 0 || echo $?; }
cut() { expect "cut off, $1" "curl exits with $(code "$2/cut")" "curl exits with $3"; }
cut "the default" on 0
cut "fastcgi_buffering off" off 0
cut "fastcgi_keep_conn on" kept-on 18
cut "fastcgi_keep_conn on, fastcgi_buffering off" kept-off 0

# The application sends its second record only once curl has written the first line.
curl -sN -m 20 "http://127.0.0.1:$port/on/whole" | while read -r line; do
  echo "$line" >>"$work/lines"
  touch "$work/got"
done
expect "two records, buffering on" "$(paste -sd' ' "$work/lines")" "first second"
conclude
