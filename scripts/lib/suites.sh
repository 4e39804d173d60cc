# The suites that scripts/test is made of. Source common.sh, build.sh, files.sh and checks.sh first.

E2E_SECONDS=${HALLEY_E2E_SECONDS:-240}
FUZZ_SECONDS=${HALLEY_FUZZ_SECONDS:-20}
FUZZ_JOBS=2
# Exposure times ten, as systemd-analyze takes it: 20 is a score of 2.0.
SANDBOX_THRESHOLD=20

shell_syntax() {
    local path status=0
    while IFS= read -r path; do
        bash -n "$ROOT/$path" || status=1
    done < <(list_shell_files)
    return $status
}

# The shipped units with the built binary in place of an installed one, as verify looks for it on disk.
units_verify() {
    local folder=$ROOT/build/test-units status=0 unit
    rm -rf "$folder"
    mkdir -p "$folder"
    for unit in halley.service halley@.service halley.socket; do
        sed "s,/usr/local/bin/halley,$ROOT/build/release/halley," \
            "$ROOT/conf/$unit" >"$folder/$unit"
    done
    mv "$folder/halley@.service" "$folder/halley@one.service"
    systemd-analyze verify --man=no "$folder/halley.service" "$folder/halley@one.service" \
        "$folder/halley.socket" >"$folder/said" 2>&1 || status=$?
    cat "$folder/said"
    # Warnings about our own units fail too; those about the machine's other units do not.
    ! grep -qE '(^|/)halley[^/ ]*\.(service|socket):' "$folder/said" || status=1
    return $status
}

# generated OPTION FILE: what halley prints is what is committed.
generated() {
    local printed=$ROOT/build/test-logs/printed$1
    "$ROOT/build/release/halley" "$1" >"$printed" || return 1
    diff -u "$ROOT/$2" "$printed" || {
        printf '%s is not what the table makes: run `build/release/halley %s > %s`\n' "$2" "$1" "$2"
        return 1
    }
}

# heartbeat_ms CONF KEY: a duration of the section heartbeat, in milliseconds; nothing where it is not there.
heartbeat_ms() {
    awk -v key="$2" 'BEGIN { unit["ms"] = 1; unit["s"] = 1000; unit["m"] = 60000; unit["h"] = 3600000 }
        $1 == "heartbeat" { inside = 1 }
        inside && $1 == key && match($3, /^[0-9]+/) { print substr($3, 1, RLENGTH) * unit[substr($3, RLENGTH + 1)] }
        $1 == "}" { inside = 0 }' "$1"
}

# lvs_outlasts_heartbeats KEEPALIVED CONF DOCUMENT: IPVS forgets no connection that is silent as long as the gateway lets it be: the longest interval,
# and the time that a sign of life may take. The document names the same timeout.
lvs_outlasts_heartbeats() {
    local tcp interval max timeout silent
    tcp=$(awk '$1 == "lvs_timeouts" && $2 == "tcp" { print $3 }' "$1")
    interval=$(heartbeat_ms "$2" interval)
    max=$(heartbeat_ms "$2" max)
    timeout=$(heartbeat_ms "$2" timeout)
    if [[ -z $tcp || -z $interval || -z $max || -z $timeout ]]; then
        printf 'not found: lvs_timeouts tcp in %s, or interval, max, timeout of heartbeat in %s\n' "$1" "$2"
        return 1
    fi
    silent=$(((interval > max ? interval : max) + 5000 + timeout))
    if ((tcp * 1000 <= silent)); then
        printf '%s: lvs_timeouts tcp %s is not above heartbeat.max + 5 s + heartbeat.timeout = %s s of %s: raise it\n' \
            "$1" "$tcp" $((silent / 1000)) "$2"
        return 1
    fi
    grep -q "^| \`lvs_timeouts tcp $tcp\` |" "$3" || {
        printf '%s does not tell of lvs_timeouts tcp %s\n' "$3" "$tcp"
        return 1
    }
}

suite_static() {
    heading "static checks"
    check "scripts parse (bash -n)" shell_syntax || true
    check "layers (scripts/check-layers)" "$ROOT/scripts/check-layers" || true
    check "format (scripts/format --check)" "$ROOT/scripts/format" --check || true
    local unit
    for unit in halley.service halley@.service; do
        check "sandbox of conf/$unit scores 2.0 or better" systemd-analyze security --no-pager \
            --offline=true --threshold=$SANDBOX_THRESHOLD "$ROOT/conf/$unit" || true
    done
    check "units verify (systemd-analyze verify)" units_verify || true
    check "keepalived example (keepalived --config-test)" keepalived --config-test \
        --use-file "$ROOT/conf/keepalived/keepalived.conf" || true
    check "keepalived example outlasts heartbeat.max" lvs_outlasts_heartbeats \
        "$ROOT/conf/keepalived/keepalived.conf" "$ROOT/conf/halley.conf" "$ROOT/docs/lvs.md" || true
    check "conf/halley.conf is current" generated --print-sample conf/halley.conf || true
    check "docs/config.md is current" generated --print-docs docs/config.md || true
    check "docs/metrics.md is current" generated --print-metrics-docs docs/metrics.md || true
}

# The figures are shown whatever came of them.
suite_guard() {
    heading "costs against those recorded in docs/benchmarks.md"
    check "guard (scripts/bench guard)" "$ROOT/scripts/bench" --no-build guard || return 0
    grep -E '^\||, load before ' "$(log_of "guard (scripts/bench guard)")" | sed 's/^/        /' || true
}

suite_build() {
    heading "build $1"
    check "build $1" build_preset "$1"
}

# The thread sanitizer of gcc 12 cannot start where the kernel spreads mappings widely; setarch -R helps there.
# Sets LAUNCH to the prefix that programs of the preset need.
choose_launch() {
    LAUNCH=()
    [[ $1 == tsan ]] || return 0
    local probe=$ROOT/build/tsan/probe
    printf 'int main(void) { return 0; }\n' | gcc -fsanitize=thread -x c -o "$probe" -
    if ! "$probe" >/dev/null 2>&1 && setarch "$(uname -m)" -R "$probe" >/dev/null 2>&1; then
        LAUNCH=(setarch "$(uname -m)" -R)
    fi
}

# suite_unit PRESET: the ctest tests, each one counted.
suite_unit() {
    local preset=$1 log start=$EPOCHREALTIME line name
    heading "unit tests, $preset"
    log=$(log_of "unit-$preset")
    choose_launch "$preset"
    "${LAUNCH[@]}" ctest --test-dir "$ROOT/build/$preset" --output-on-failure --no-tests=error \
        --parallel 2 >"$log" 2>&1 </dev/null || true
    local before=$((PASSED + FAILED))
    while IFS= read -r line; do
        name=$(sed -E 's/.*Test +#[0-9]+: ([^ ]+).*/\1/' <<<"$line")
        if [[ $line == *' Passed '* ]]; then
            pass "$preset $name"
        else
            fail "$preset $name: ${line##*\*\*\*}"
        fi
    done < <(grep -E '^ *[0-9]+/[0-9]+ Test +#' "$log" | sort -t'#' -k2n)
    ((PASSED + FAILED > before)) || fail "unit tests, $preset: no test ran" "$log"
    if ! grep -q '^100% tests passed' "$log"; then
        grep -vE '^\[ +(RUN|OK|PASSED) +\]|^\[===|^ +Start ' "$log" >"$log.short" || true
        show_log "$log.short"
    fi
    printf '        %s\n' "$(took "$start")"
}

# npm packages of the end-to-end tests, as package-lock.json names them; installed again when it changes.
install_node_packages() {
    local folder=$ROOT/tests/e2e stamp want
    [[ -f $folder/package.json ]] || return 0
    stamp=$folder/node_modules/.halley-stamp
    want=$(cd "$folder" && cat package.json package-lock.json 2>/dev/null | sha256sum)
    [[ ! -f $stamp || $(<"$stamp") != "$want" ]] || return 0
    say "installing npm packages of tests/e2e/package.json"
    local verb=install
    [[ ! -f $folder/package-lock.json ]] || verb=ci
    npm $verb --prefix "$folder" --no-audit --no-fund --loglevel=error </dev/null || return
    printf '%s\n' "$want" >"$stamp"
}

# e2e_run PRESET FILE: runs one file against build/PRESET/halley; leaves its log, "STATUS TOOK" and the sanitizers' reports.
e2e_run() {
    local preset=$1 path=$2 name status=0 start=$EPOCHREALTIME log reports options
    name="$preset $(basename "$path")"
    log=$(log_of "e2e-$name")
    reports=$(log_of "sanitizer-$name")
    rm -f "$reports".*
    options=log_path=$reports:exitcode=99
    choose_launch "$preset"
    HALLEY_BIN=$ROOT/build/$preset/halley \
        ASAN_OPTIONS=$options UBSAN_OPTIONS=$options:print_stacktrace=1 \
        TSAN_OPTIONS=$options:second_deadlock_stack=1:$(tsan_suppressions) \
        "${LAUNCH[@]}" timeout --kill-after=10 "$E2E_SECONDS" "$path" >"$log" 2>&1 </dev/null || status=$?
    printf '%s %s\n' "$status" "$(took "$start")" >"$log.end"
}

# e2e_count PRESET FILE: counts the `ok` and `not ok` lines of what e2e_run left.
e2e_count() {
    local name log status=1 time=
    name="$1 $(basename "$2")"
    log=$(log_of "e2e-$name")
    read -r status time <"$log.end" || true
    count_tap "$name" "$status" "$log" "$time"
    # A report counts even where the test's own checks did not feel it.
    local report
    for report in "$(log_of "sanitizer-$name")".*; do
        [[ ! -f $report ]] || fail "$name: the sanitizer found something" "$report"
    done
}

tsan_suppressions() {
    [[ ! -f $ROOT/tests/tsan.supp ]] || printf 'suppressions=%s' "$ROOT/tests/tsan.supp"
}

# count_tap NAME STATUS LOG TOOK
count_tap() {
    local name=$1 status=$2 log=$3 good bad skipped line
    skipped=$(grep -cE '^ok .* # skip( |$)' "$log") || true
    good=$(($(grep -cE '^ok( |$)' "$log" || true) - skipped))
    bad=$(grep -cE '^not ok( |$)' "$log") || true
    PASSED=$((PASSED + good))
    printf '%-7s %s: %d of %d checks %s\n' "$( ((bad || status)) && echo FAILED || echo ok)" "$name" \
        "$good" $((good + bad + skipped)) "$4"
    while IFS= read -r line; do
        skip "$name: ${line#ok }"
    done < <(grep -E '^ok .* # skip( |$)' "$log")
    while IFS= read -r line; do
        fail "$name: ${line#not ok }"
    done < <(grep -E '^not ok( |$)' "$log")
    if ((status == 124 || status == 137)); then
        fail "$name: stopped after $E2E_SECONDS s" "$log"
    elif ((status != 0 && bad == 0)); then
        fail "$name: exit status $status" "$log"
    elif ((bad)); then
        show_log "$log"
    elif ((good + skipped == 0)); then
        fail "$name: it made no check" "$log"
    fi
}

# is_listed FILE LIST: whether tests/e2e/LIST names the file.
is_listed() {
    grep -qxF "$(basename "$1")" "$ROOT/tests/e2e/$2" 2>/dev/null
}

# e2e_batch "PRESET FILE"...: runs them at the same time, then counts each.
e2e_batch() {
    local one
    for one in "$@"; do
        rm -f "$(log_of "e2e-${one%% *} $(basename "$one")").end"
        if (($# == 1)); then
            e2e_run "${one%% *}" "${one#* }" # in the foreground, where Ctrl-C reaches it
        else
            e2e_run "${one%% *}" "${one#* }" &
        fi
    done
    wait
    for one in "$@"; do
        e2e_count "${one%% *}" "${one#* }"
    done
}

# e2e_files PRESET: those to run against it, a line each; all against release, those of sanitized.txt against the others.
e2e_files() {
    local path
    for path in "$ROOT"/tests/e2e/test_*.mjs "$ROOT"/tests/e2e/test_*.py; do
        [[ -x $path ]] || continue
        [[ -z ${ONLY:-} || $path == *"$ONLY"* ]] || continue
        [[ $1 == release ]] || is_listed "$path" sanitized.txt || continue
        printf '%s\n' "$path"
    done
}

# suite_e2e PRESET...: what mostly waits runs at the same time: the files of waiting.txt, those of links.txt (which judge delays, so
# nothing that uses the processor runs beside them), and a file against several presets.
suite_e2e() {
    local preset path list batch files=()
    heading "end-to-end tests, $*"
    for preset in "$@"; do
        [[ -x $ROOT/build/$preset/halley ]] || {
            fail "end-to-end tests, $preset: build/$preset/halley is missing"
            return 0
        }
    done
    mapfile -t files < <(e2e_files "$1")
    ((${#files[@]})) || fail "end-to-end tests, $*: no file to run in tests/e2e"
    for path in "${files[@]}"; do
        [[ $1 != release ]] || ! { is_listed "$path" waiting.txt || is_listed "$path" links.txt; } || continue
        batch=()
        for preset in "$@"; do
            batch+=("$preset $path")
        done
        e2e_batch "${batch[@]}"
    done
    [[ $1 == release ]] || return 0
    for list in waiting.txt links.txt; do
        batch=()
        for path in "${files[@]}"; do
            ! is_listed "$path" "$list" || batch+=("release $path")
        done
        ((${#batch[@]} == 0)) || e2e_batch "${batch[@]}"
    done
}

# fuzz_one TARGET: a bounded run. What it finds on the way is kept in build/, crashing inputs beside the logs.
fuzz_one() {
    local name=$1 folders=() folder
    mkdir -p "$ROOT/build/fuzz/found/$name"
    for folder in build/fuzz/found tests/fuzz/corpus tests/fuzz/regress; do
        [[ ! -d $ROOT/$folder/$name ]] || folders+=("$ROOT/$folder/$name")
    done
    "$ROOT/build/fuzz/fuzz_$name" -max_total_time="$FUZZ_SECONDS" -timeout=10 -rss_limit_mb=2048 \
        -print_final_stats=1 -artifact_prefix="$LOGS/fuzz-$name-" "${folders[@]}"
}

suite_fuzz() {
    heading "fuzz targets, $FUZZ_SECONDS s each"
    local source name names=() running=0
    rm -f "$LOGS"/fuzz-*
    for source in "$ROOT"/tests/fuzz/fuzz_*.c; do
        [[ -f $source ]] || continue
        name=$(basename "$source" .c)
        names+=("${name#fuzz_}")
    done
    ((${#names[@]})) || fail "fuzz targets: none in tests/fuzz"
    for name in "${names[@]}"; do
        ((running < FUZZ_JOBS)) || { wait -n || true; running=$((running - 1)); }
        { fuzz_one "$name" >"$LOGS/fuzz-$name.log" 2>&1 </dev/null &&
            touch "$LOGS/fuzz-$name.passed"; } &
        running=$((running + 1))
    done
    wait
    for name in "${names[@]}"; do
        if [[ -f $LOGS/fuzz-$name.passed ]]; then
            pass "fuzz $name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$LOGS/fuzz-$name.log") runs"
        else
            fail "fuzz $name (input kept as $LOGS/fuzz-$name-*)" "$LOGS/fuzz-$name.log"
        fi
    done
}
