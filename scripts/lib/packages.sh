# Debian packages: install what is missing, say so, be silent when all is there. Source common.sh first.

PACKAGES_BUILD=(build-essential cmake ninja-build pkg-config libuv1-dev libwslay-dev libhiredis-dev
    libssl-dev libmicrohttpd-dev libconfuse-dev libsystemd-dev)
# The build makes the unit tests too.
PACKAGES_BUILD+=(libcmocka-dev)
PACKAGES_TEST=(redis-server redis-tools python3-websockets python3-redis chromium clang-format curl iproute2 nftables jq
    procps systemd util-linux valgrind keepalived)
PACKAGES_FUZZ=(clang)
PACKAGES_TIDY=(clang clang-tidy)
PACKAGES_COV=(lcov)

package_missing() {
    local status
    status=$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) || return 0
    [[ $status != installed ]]
}

# Runs a command as root: as it is, or with sudo.
as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -- "$@"
    else
        return 1
    fi
}

# Keeps packages from starting their services while the command runs: policy-rc.d is what invoke-rc.d asks.
# A subshell with an EXIT trap, so that an interrupt too puts back what was there.
without_services() (
    policy=/usr/sbin/policy-rc.d
    saved=$policy.before-halley
    restore() {
        as_root rm -f $policy
        ! as_root test -e $saved || as_root mv $saved $policy
    }
    ! as_root test -e $policy || as_root mv $policy $saved
    trap restore EXIT
    printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
    as_root chmod 755 $policy
    "$@"
)

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120 \
        install -y --no-install-recommends "$@"
}

# Installs those of the named packages that are missing. Returns at once when there are none.
need_packages() {
    local name missing=()
    for name in "$@"; do
        ! package_missing "$name" || missing+=("$name")
    done
    ((${#missing[@]})) || return 0
    say "installing Debian packages: ${missing[*]}"
    if ((EUID != 0)) && ! command -v sudo >/dev/null; then
        die "these packages are missing and need root: run \`apt-get install ${missing[*]}\` as root"
    fi
    local redis_is_new=no
    [[ " ${missing[*]} " != *' redis-server '* ]] || redis_is_new=yes
    as_root apt-get -q update >&2 || die "apt-get update failed: see its message above"
    without_services apt_install "${missing[@]}" >&2 ||
        die "apt-get could not install: ${missing[*]} (see its message above)"
    # Tests start Redis servers of their own; the package's service need not run from the next boot on.
    if [[ $redis_is_new == yes ]] && command -v systemctl >/dev/null; then
        as_root systemctl disable redis-server.service >/dev/null 2>&1 || true
    fi
}

# Node.js as it is on the PATH, else Debian's.
need_node() {
    if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
        need_packages nodejs npm
    fi
}
