#!/usr/bin/env bash
# mini_httpd gives a CGI script the client's connection as its standard error: what a
# script logs arrives in the middle of its response.
. "$(dirname "$0")/common.sh"

debian mini-httpd=1.30-3
mkdir -p "$work/www/cgi-bin"
cat >"$work/www/cgi-bin/log" <<'SH'
#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\nbefore '
echo 'a line for the log' >&2
printf 'after\n'
SH
chmod +x "$work/www/cgi-bin/log"
port=$(free_port)
serve mini_httpd -D -h 127.0.0.1 -p "$port" -d "$work/www" -c 'cgi-bin/*' -u "$(id -un)"
await "$port"
mini_httpd -V
body=$(curl -s "http://127.0.0.1:$port/cgi-bin/log" | paste -sd'|')
expect "the body that the client gets" "$body" "before a line for the log|after"
conclude
