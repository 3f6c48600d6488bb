#!/usr/bin/env bash
# The CGI of Erlang's inets httpd adds the query to SCRIPT_NAME, and sends no QUERY_STRING with a POST. RFC 3875 has no query in
# SCRIPT_NAME (section 4.1.13), and requires QUERY_STRING (section 4.1.7). A script that builds links from SCRIPT_NAME repeats the
# query in them.
. "$(dirname "$0")/common.sh"

debian erlang-base=1:25.2.3+dfsg-1+deb12u4 erlang-inets=1:25.2.3+dfsg-1+deb12u4
mkdir -p "$work/cgi-bin" "$work/www"
cat >"$work/cgi-bin/show" <<'SH'
#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n%s' "SCRIPT_NAME=$SCRIPT_NAME QUERY_STRING=${QUERY_STRING-absent}"
SH
chmod +x "$work/cgi-bin/show"
export ROOTDIR="$work/root/usr/lib/erlang" EMU=beam PROGNAME=erl HOME="$work" ERL_CRASH_DUMP_SECONDS=0
BINDIR=$(dirname "$(find "$ROOTDIR" -name erlexec)")
export BINDIR
port=$(free_port)
serve "$BINDIR/erlexec" -noshell -eval "inets:start(), {ok, _} = inets:start(httpd, [{port, $port},
  {bind_address, {127, 0, 0, 1}}, {server_name, \"localhost\"}, {server_root, \"$work\"}, {document_root, \"$work/www\"},
  {modules, [mod_alias, mod_cgi]}, {script_alias, {\"/cgi-bin/\", \"$work/cgi-bin/\"}}])."
await "$port"
curl -s -I "http://127.0.0.1:$port/" | grep -i '^server:' | tr -d '\r'
url="http://127.0.0.1:$port/cgi-bin/show"
expect "GET ?a=1" "$(curl -s -m 10 "$url?a=1")" "SCRIPT_NAME=/cgi-bin/show?a=1 QUERY_STRING=a=1"
expect "GET without a query" "$(curl -s -m 10 "$url")" "SCRIPT_NAME=/cgi-bin/show QUERY_STRING=absent"
expect "POST ?a=1" "$(curl -s -m 10 -d b=2 "$url?a=1")" "SCRIPT_NAME=/cgi-bin/show?a=1 QUERY_STRING=absent"
conclude
