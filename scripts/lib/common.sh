# Sourced by the scripts beside this folder: where the repository is, and how to speak.
#
# Works from any directory and under any umask; what it builds must be readable by other users of the
# machine (a service account, a container), so the usual mask is set.
set -euo pipefail
umask 022

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PRESETS=(dev release asan tsan tidy cov fuzz)

die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

say() {
    printf '%s\n' "$*" >&2
}
