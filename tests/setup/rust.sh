#!/usr/bin/env bash
# Makes sure of a Rust toolchain that is new enough, with clippy, rustfmt and a linker.
# A toolchain that is there, rustup's or another, is used as it is and never changed. Only
# where there is none are Debian's packages installed, after saying so.
set -euo pipefail

repo=$(cd "$(dirname "$0")/../.." && pwd)
minimum=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$repo/Cargo.toml")
# Debian's `rustc` and `cargo` follow the release of Debian. These follow the needs of its
# browsers, so a stable Debian has a recent compiler in them.
packages=(rustc-web cargo-web rust-web-clippy rustfmt-web)

say() { echo "rust setup: $*"; }
fail() {
    echo "rust setup: $*" >&2
    exit 1
}

at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }
found() { rustc --version 2>/dev/null | cut -d' ' -f2; }
new_enough() { [ -n "$(found)" ] && at_least "$minimum" "$(found)" && cargo --version >/dev/null 2>&1; }
complete() { cargo clippy --version >/dev/null 2>&1 && cargo fmt --version >/dev/null 2>&1; }

missing=()
if ! new_enough; then
    if command -v rustup >/dev/null; then
        have=$(found)
        fail "rustup has Rust ${have:-none}, and softnet needs $minimum: rustup update stable"
    fi
    missing+=("${packages[@]}")
elif ! complete; then
    if command -v rustup >/dev/null; then
        fail "clippy or rustfmt is missing: rustup component add clippy rustfmt"
    fi
    missing+=(rust-web-clippy rustfmt-web)
fi
command -v cc >/dev/null || missing+=(gcc libc6-dev)
[ ${#missing[@]} -gt 0 ] || exit 0

command -v apt-get >/dev/null ||
    fail "Rust $minimum or newer and a C linker are needed; https://rustup.rs has the former"
apt() {
    # Whoever else holds the lock (unattended upgrades, another job) gets time to finish.
    bash "$repo/tests/setup/as-root.sh" env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -y -o DPkg::Lock::Timeout=300 "$@" </dev/null
}
say "no Rust $minimum or newer, or not all of it: installing with apt-get: ${missing[*]}"
apt update
apt install --no-install-recommends "${missing[@]}" >/dev/null
new_enough || {
    have=$(found)
    fail "Debian's rustc-web is ${have:-not there}, and softnet needs $minimum; https://rustup.rs has it"
}
complete || fail "cargo clippy or cargo fmt is still missing after installing ${missing[*]}"
say "$(rustc --version) is ready"
