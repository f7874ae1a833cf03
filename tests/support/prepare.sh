# Sourced by tests/run and tests/demo: what a fresh Debian machine lacks is installed, once. Nothing here builds or tests.

# say TEXT: the headline of a part.
say() { printf '\n== %s\n' "$*"; }

# give_up TEXT HINT: the two lines of an error.
give_up() {
    printf '%s: %s\n  %s\n' "$(basename "$0")" "$1" "$2" >&2
    exit 1
}

# as_root COMMAND…: fails if this user may not become root.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        return 1
    fi
}

# apt_install PACKAGE…
apt_install() {
    command -v apt-get >/dev/null 2>&1 || return 1
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" && return 0
    # A fresh machine may have no package lists yet.
    as_root apt-get update -q && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}

# need_packages: the C compiler and the small tools that the build and the scripts call.
need_packages() {
    local lacking=()
    command -v cc >/dev/null 2>&1 && command -v make >/dev/null 2>&1 || lacking+=(build-essential)
    command -v pkg-config >/dev/null 2>&1 || lacking+=(pkg-config)
    command -v curl >/dev/null 2>&1 || lacking+=(curl ca-certificates)
    command -v zstd >/dev/null 2>&1 || lacking+=(zstd)
    python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || lacking+=(python3-venv)
    [ "${#lacking[@]}" -gt 0 ] || return 0
    say "install ${lacking[*]}"
    apt_install "${lacking[@]}" ||
        give_up "these packages are missing and could not be installed: ${lacking[*]}" "install them as root, then run this again"
}

# rust_wanted: the oldest Rust that builds this, from Cargo.toml.
rust_wanted() { sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml; }

rust_is_enough() {
    local have
    have=$(cargo --version 2>/dev/null | awk '{ print $2 }') || return 1
    [ -n "$have" ] && [ "$(printf '%s\n%s\n' "$(rust_wanted)" "$have" | sort -V | head -n 1)" = "$(rust_wanted)" ]
}

# need_rust: takes the cargo that is there, or a toolchain through rustup, for this run only.
need_rust() {
    [ -d "${CARGO_HOME:-${HOME:-}/.cargo}/bin" ] && PATH="${CARGO_HOME:-${HOME:-}/.cargo}/bin:$PATH"
    rust_is_enough && return 0
    local wanted
    wanted=$(rust_wanted)
    say "install Rust $wanted"
    command -v rustup >/dev/null 2>&1 || apt_install rustup || true
    if command -v rustup >/dev/null 2>&1; then
        rustup toolchain install "$wanted" --profile minimal --component rustfmt --component clippy || true
        export RUSTUP_TOOLCHAIN="$wanted"
    fi
    rust_is_enough ||
        give_up "Rust $wanted or newer is needed (found: $(cargo --version 2>/dev/null || echo none))" \
            "install it with rustup (a package of Debian 13 and newer, elsewhere its own installer), then run this again"
}

# unpack_captures ARCHIVE TARGET [MEMBER…]: unpacks once; an unpacking that was killed is done again.
unpack_captures() {
    local archive=$1 target=$2
    shift 2
    local done_mark
    done_mark="$target/.$(basename "$archive").unpacked"
    [ -e "$done_mark" ] && [ ! "$archive" -nt "$done_mark" ] && return 0
    mkdir -p "$target"
    zstd -dcq --long=27 "$archive" | tar -x --no-same-owner -C "$target" "$@"
    touch "$done_mark"
}
