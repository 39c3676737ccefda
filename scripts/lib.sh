# Shared by the scripts of this folder: what to install, what to say. Sourced, not run.
# shellcheck shell=bash

# A step for the reader; bold on a terminal.
say() {
    if [ -t 1 ]; then printf '\033[1m==> %s\033[0m\n' "$*"; else printf '==> %s\n' "$*"; fi
}

die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# need COMMAND=PACKAGE…: installs the Debian packages of the commands that are missing.
need() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null 2>&1 || [ -e "${pair%%=*}" ] || missing+=("${pair#*=}")
    done
    [ ${#missing[@]} -eq 0 ] && return
    [ "$(id -u)" = 0 ] || die "missing packages: ${missing[*]}; run as root, or install them yourself"
    say "installing Debian packages: ${missing[*]}"
    apt-get install -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1 || {
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    }
}

# Rust as new as Cargo.toml asks; Debian 12's own is too old.
need_rust() {
    local wanted have
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    [ -x "$HOME/.cargo/bin/cargo" ] && PATH=$HOME/.cargo/bin:$PATH
    have=$(cargo --version 2>/dev/null | cut -d' ' -f2)
    if [ -n "$have" ] && [ "$(printf '%s\n%s\n' "$wanted" "$have" | sort -V | head -n1)" = "$wanted" ]; then
        return
    fi
    say "installing Rust $wanted or later with rustup (found: ${have:-none})"
    need curl=curl
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal \
        --component rustfmt --component clippy || die "rustup could not be fetched; install Rust $wanted yourself"
    PATH=$HOME/.cargo/bin:$PATH
}

# What building needs besides Rust.
need_build() {
    need cc=gcc make=make pkg-config=pkg-config cmake=cmake
    need_rust
}

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/lantern
# Where scripts/demo-image puts the demo's image; another name whenever the image changes.
# shellcheck disable=SC2034
DEMO_IMAGE=$CACHE/demo-image-2
