#!/usr/bin/env bash
# bench_peers.sh PEER: installs a server that scripts/bench measures beside Halley: Debian packages, and npm
# packages into build/bench-peers. Fails, having said why, where that is not possible.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source "$ROOT/scripts/lib/packages.sh"

# A package whose service nobody asked for: the service need not run from the next boot on.
need_server() {
    local service=$1 is_new=no
    shift
    ! package_missing "$1" || is_new=yes
    need_packages "$@"
    if [[ $is_new == yes ]] && command -v systemctl >/dev/null; then
        as_root systemctl disable "$service.service" >/dev/null 2>&1 || true
    fi
}

# The servers are copied beside their packages, because that is where Node.js looks for those.
need_npm() {
    local from=$ROOT/scripts/bench-peers to=$ROOT/build/bench-peers want
    need_node
    mkdir -p "$to"
    cp "$from"/*.mjs "$from"/package.json "$from"/package-lock.json "$to"
    want=$(cat "$from"/package.json "$from"/package-lock.json | sha256sum)
    [[ ! -f $to/node_modules/.halley-stamp || $(<"$to/node_modules/.halley-stamp") != "$want" ]] || return 0
    say "installing npm packages of scripts/bench-peers/package.json"
    npm ci --prefix "$to" --no-audit --no-fund --loglevel=error </dev/null >&2
    printf '%s\n' "$want" >"$to/node_modules/.halley-stamp"
}

case ${1:-} in
nchan) need_server nginx nginx-light libnginx-mod-nchan ;;
nats) need_server nats-server nats-server ;;
mosquitto) need_server mosquitto mosquitto ;;
ws | socket.io) need_npm ;;
*) die "usage: bench_peers.sh nchan|nats|mosquitto|ws|socket.io" ;;
esac
