#!/usr/bin/env bash
# uwsgi's CGI plugin responds with 302 when a script writes Location before "Status: 303 See Other": Location sets the status and
# a later Status does not change it. With Status first, 303 and 201 arrive. RFC 3875, section 6.3, has no order.
. "$(dirname "$0")/common.sh"

debian uwsgi-core=2.0.21-5.1
mkdir "$work/cgi-bin"
script() {
  printf '#!/bin/sh\nprintf "%s\\r\\n\\r\\nhello"\n' "$2" >"$work/cgi-bin/$1"
  chmod +x "$work/cgi-bin/$1"
}
script status-first 'Status: 303 See Other\r\nLocation: /there'
script location-first 'Location: /there\r\nStatus: 303 See Other'
script created 'Location: /new\r\nStatus: 201 Created'
port=$(free_port)
plugins=$(dirname "$(find "$work/root" -name cgi_plugin.so)")
serve uwsgi-core --plugin-dir "$plugins" --plugin http,cgi --http "127.0.0.1:$port" --http-modifier1 9 --cgi "$work/cgi-bin"
await "$port"
uwsgi-core --version
status() { curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$port/$1"; }
expect "Status: 303, then Location" "$(status status-first)" 303
expect "Location, then Status: 303" "$(status location-first)" 302
expect "Location, then Status: 201" "$(status created)" 302
conclude
