#!/usr/bin/env bash
# CivetWeb gives CGI scripts a REQUEST_URI that is percent-decoded and has no query, so that "/a%3Fb" and "/a?b" cannot be
# distinguished from it. SERVER_NAME is "mydomain.com" whatever the client requested. Of two Cookie fields a script gets the last.
. "$(dirname "$0")/common.sh"

debian civetweb=1.15+dfsg-4 libcivetweb1=1.15+dfsg-4
mkdir "$work/www"
cat >"$work/www/env.cgi" <<'SH'
#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n%s|%s|%s|%s' "$REQUEST_URI" "$QUERY_STRING" "$SERVER_NAME" "$HTTP_COOKIE"
SH
chmod +x "$work/www/env.cgi"
port=$(free_port)
serve civetweb -listening_ports "127.0.0.1:$port" -document_root "$work/www" -cgi_pattern '**.cgi$'
await "$port"
civetweb -V 2>&1 | sed -n 1p || true
IFS='|' read -r uri query name cookie < <(
  curl -s -H 'Cookie: a=1' -H 'Cookie: b=2' "http://localhost:$port/env.cgi/a%3Fb%20c?q=%41"; echo
)
expect "REQUEST_URI" "$uri" "/env.cgi/a?b c"
expect "QUERY_STRING" "$query" "q=%41"
expect "SERVER_NAME" "$name" "mydomain.com"
expect "HTTP_COOKIE" "$cookie" "b=2"
conclude
