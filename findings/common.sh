# Shared by the findings: source it, do not run it.
# A finding installs pinned public packages into a temporary folder, runs them without Gatehouse on valid input, prints
# what they do, and fails if that is no longer what it says.

set -euo pipefail
export LC_ALL=C.UTF-8 NO_COLOR=1 DEBIAN_FRONTEND=noninteractive

work=$(mktemp -d)
chmod 755 "$work"
pids=()
failed=0

finish() {
  local pid
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap finish EXIT

# Unpacks Debian packages, each NAME=VERSION, into $work/root.
debian() {
  local package
  mkdir -p "$work/root" "$work/deb"
  for package in "$@"; do
    (cd "$work/deb" && apt-get download -qq "$package" >/dev/null 2>&1) || {
      echo "cannot get $package: run apt-get update, or pin the version that the archive has" >&2
      exit 2
    }
  done
  local file
  for file in "$work"/deb/*.deb; do dpkg-deb -x "$file" "$work/root"; done
  export PATH="$work/root/usr/bin:$work/root/usr/sbin:$work/root/bin:$work/root/sbin:$PATH"
  local libraries
  libraries=$(find "$work/root" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)
  export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
}

# Installs packages from npm, each NAME@VERSION, into $work/node_modules.
npm_packages() {
  npm install --silent --no-audit --no-fund --prefix "$work" "$@" </dev/null >/dev/null
  export PATH="$work/node_modules/.bin:$PATH"
}

# Prints a port of the loopback interface that nothing listens on.
free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Runs a server in the background until the finding ends. Its output goes to $work/server.log.
serve() {
  "$@" </dev/null >>"$work/server.log" 2>&1 &
  pids+=($!)
}

# Waits until something listens on a port, or on the path of a Unix socket.
await() {
  local try
  for try in $(seq 100); do
    case "$1" in
      /*) [ -S "$1" ] && return ;;
      *) (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return ;;
    esac
    sleep 0.1
  done
  echo "nothing listens on $1 after 10 seconds:" >&2
  cat "$work/server.log" >&2
  exit 2
}

# Compares the result with the one that this finding states: expect WHAT SEEN SAID
expect() {
  printf '%-50s %s\n' "$1:" "$2"
  [ "$2" = "$3" ] && return
  printf '%-50s %s\n' "  this finding says" "$3"
  failed=1
}

# Ends the finding with 1 if anything differs.
conclude() {
  ((failed == 0)) && echo "as this finding says" || echo "CHANGED: this finding is no longer true"
  exit "$failed"
}
