# Building one preset. Source common.sh and packages.sh first.

# build_preset NAME [TARGET...]: installs what is missing, configures and builds build/NAME, all of it or the targets.
build_preset() {
    local preset=$1 targets=()
    shift
    (($# == 0)) || targets=(--target "$@")
    [[ " ${PRESETS[*]} " == *" $preset "* ]] ||
        die "unknown preset '$preset'; choose one of: ${PRESETS[*]}"
    need_packages "${PACKAGES_BUILD[@]}"
    case $preset in
    fuzz) need_packages "${PACKAGES_FUZZ[@]}" ;;
    tidy) need_packages "${PACKAGES_TIDY[@]}" ;;
    cov) need_packages "${PACKAGES_COV[@]}" ;;
    esac
    # Progress is for people; into a log go only the commands that failed.
    local quiet=()
    [[ -t 1 ]] || quiet=(-- --quiet)
    (
        cd "$ROOT"
        cmake --preset "$preset" >"$(configure_log "$preset")" 2>&1 ||
            { cat "$(configure_log "$preset")" >&2; exit 1; }
        cmake --build --preset "$preset" --parallel "$(nproc)" "${targets[@]}" "${quiet[@]}"
    )
}

configure_log() {
    mkdir -p "$ROOT/build"
    printf '%s/build/configure-%s.log' "$ROOT" "$1"
}
