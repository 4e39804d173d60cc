# Which files are ours. Source common.sh first.

# list_files GLOB...: files of the repository (committed or new, not ignored) whose path matches, a line each.
# Without git, as in an unpacked release, what stands in the folders of the source.
list_files() {
    if git -C "$ROOT" rev-parse --is-inside-work-tree >/dev/null 2>&1; then
        (cd "$ROOT" && git ls-files --cached --others --exclude-standard --deduplicate -- "$@" |
            while IFS= read -r path; do [[ ! -f $path ]] || printf '%s\n' "$path"; done)
    else
        local glob
        for glob in "$@"; do
            (cd "$ROOT" && find src include tests scripts .ci -name node_modules -prune -o \
                -type f -path "$glob" -print)
        done
    fi
}

list_c_files() {
    list_files '*.c' '*.h'
}

# Bash scripts: by their first line or their name.
list_shell_files() {
    local path
    list_files 'scripts/*' '.ci/*' '*.sh' | sort -u | while IFS= read -r path; do
        if [[ $path == *.sh ]] || head -c 64 "$ROOT/$path" | head -n 1 | grep -q '^#!.*bash'; then
            printf '%s\n' "$path"
        fi
    done
}
