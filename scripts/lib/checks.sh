# Counting checks and telling of them. Source common.sh first.
#
# Every check counts as one test. What it prints goes to build/test-logs/<name>.log and is shown when it fails.

PASSED=0
FAILED=0
FAILURES=()
SKIPS=()
LOGS=$ROOT/build/test-logs
# Lines of a failed check's log that are shown.
LOG_LINES=80

heading() {
    printf '\n== %s\n' "$*"
}

log_of() {
    printf '%s/%s.log' "$LOGS" "${1//[^A-Za-z0-9._-]/_}"
}

pass() {
    PASSED=$((PASSED + 1))
    printf 'ok      %s\n' "$1"
}

# skip NAME: could not be checked here; counts as neither.
skip() {
    SKIPS+=("$1")
    printf 'skipped %s\n' "$1"
}

# fail NAME [LOG]
fail() {
    FAILED=$((FAILED + 1))
    FAILURES+=("$1")
    printf 'FAILED  %s\n' "$1"
    [[ -z ${2:-} || ! -s ${2:-} ]] || show_log "$2"
}

show_log() {
    local lines
    lines=$(wc -l <"$1")
    ((lines <= LOG_LINES)) || printf '        … the last %d of %d lines of %s\n' $LOG_LINES "$lines" "$1"
    tail -n $LOG_LINES "$1" | sed 's/^/        /'
}

# took START: seconds since the value of $EPOCHREALTIME, such as "(1.2 s)".
took() {
    awk -v from="$1" -v to="$EPOCHREALTIME" 'BEGIN { printf "(%.1f s)", to - from }'
}

# check NAME COMMAND...: one check that passes when the command does. Returns the command's status. The command runs
# in a subshell, where it may exit; `set -e` does not reach into it, so a function says `|| return` itself.
check() {
    local name=$1 status=0 start=$EPOCHREALTIME log
    shift
    log=$(log_of "$name")
    ("$@") >"$log" 2>&1 </dev/null || status=$?
    if ((status == 0)); then
        pass "$name $(took "$start")"
    else
        fail "$name $(took "$start"): exit status $status" "$log"
    fi
    return $status
}

# What was skipped and what failed by name, then the count: the last line that is printed.
summary() {
    local name
    if ((${#SKIPS[@]})); then
        heading "skipped: ${#SKIPS[@]}"
        printf '        %s\n' "${SKIPS[@]}"
    fi
    if ((FAILED)); then
        heading "failed"
        for name in "${FAILURES[@]}"; do
            printf '        %s\n' "$name"
        done
        printf '        logs: %s\n' "$LOGS"
    fi
    printf '\n%d passed, %d failed\n' "$PASSED" "$FAILED"
    ((FAILED == 0 && PASSED > 0))
}
