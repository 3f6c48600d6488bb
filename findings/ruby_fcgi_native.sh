#!/usr/bin/env bash
# Debian 12's ruby-fcgi installs a native extension that Debian 12's own Ruby 3.1 cannot load: it needs the symbol rb_secure,
# which Ruby 3 no longer has. `require "fcgi"` says so in one line and goes on in pure Ruby.
. "$(dirname "$0")/common.sh"

debian ruby-fcgi=0.9.2.1-3+b2 ruby3.1=3.1.7+really3.1.2-0+deb12u1 libruby3.1=3.1.7+really3.1.2-0+deb12u1 \
  libfcgi0ldbl=2.4.2-2+deb12u1
lib="$work/root/usr/lib"
native=$(find "$lib" -name fcgi.so)
arch=$(dirname "$(find "$lib" -name socket.so -path '*/ruby/3.1.0/*')")
export RUBYLIB="$lib/ruby/vendor_ruby:$(dirname "$native"):$lib/ruby/3.1.0:$arch"
ruby() { ruby3.1 --disable-gems "$@"; }
ruby --version
expect "the native part alone" "$(ruby -e 'begin; require "fcgi.so"; puts "loads"; rescue LoadError => e; puts e.message[/undefined symbol: \w+/]; end')" \
  "undefined symbol: rb_secure"
expect "require \"fcgi\" runs" "$(ruby -e 'require "fcgi"; puts FCGI::Record ? "pure Ruby" : ""' 2>/dev/null)" "pure Ruby"
conclude
