#!/usr/bin/env bash
# BusyBox httpd takes the status of a CGI script from its first line only: after "Location", a Status of 303 or 404 is
# lost, and the client gets 200 OK. RFC 3875, section 6.3, lets the fields come in any order.
. "$(dirname "$0")/common.sh"

debian busybox=1:1.35.0-4+deb12u1+b1
mkdir -p "$work/www/cgi-bin"
script() {
  printf '#!/bin/sh\nprintf "%s\\r\\n\\r\\nhello"\n' "$2" >"$work/www/cgi-bin/$1"
  chmod +x "$work/www/cgi-bin/$1"
}
script first 'Status: 303 See Other\r\nLocation: /there'
script second 'Location: /there\r\nStatus: 303 See Other'
script third 'X-Note: 1\r\nStatus: 404 Not Found\r\nContent-Type: text/plain'

port=$(free_port)
serve busybox httpd -f -p "127.0.0.1:$port" -h "$work/www"
await "$port"
busybox 2>&1 | sed -n 1p
status() { curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$port/cgi-bin/$1"; }
expect "Status, then Location" "$(status first)" 303
expect "Location, then Status" "$(status second)" 200
expect "X-Note, then Status 404" "$(status third)" 200
conclude
