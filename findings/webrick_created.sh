#!/usr/bin/env bash
# WEBrick's CGI handler turns "201 Created" with a Location into 302 Found, so that a client that has made something is
# sent away from it. It passes REQUEST_URI as an absolute URL.
. "$(dirname "$0")/common.sh"

command -v ruby >/dev/null || { echo "needs ruby: apt-get install ruby" >&2; exit 2; }
debian ruby-webrick=1.8.1-1
cat >"$work/created" <<SH
#!/bin/sh
echo "\$REQUEST_URI" >$work/uri
printf 'Status: 201 Created\\r\\nLocation: /new\\r\\nContent-Type: text/plain\\r\\n\\r\\nmade'
SH
chmod +x "$work/created"
port=$(free_port)
cat >"$work/server.rb" <<'RUBY'
require 'webrick'
port, script = ARGV
server = WEBrick::HTTPServer.new(Port: port.to_i, BindAddress: '127.0.0.1', AccessLog: [],
                                 Logger: WEBrick::Log.new(File::NULL))
server.mount('/created', WEBrick::HTTPServlet::CGIHandler, script)
server.start
RUBY
serve ruby -I "$work/root/usr/share/rubygems-integration/all/gems/webrick-1.8.1/lib" "$work/server.rb" "$port" "$work/created"
await "$port"
expect "Status: 201 with Location" "$(curl -s -o /dev/null -w '%{http_code}' --data '' "http://127.0.0.1:$port/created?q=1")" 302
expect "REQUEST_URI" "$(sed "s/$port/PORT/" "$work/uri")" "http://127.0.0.1:PORT/created?q=1"
conclude
