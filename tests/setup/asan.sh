#!/usr/bin/env bash
# Runs unit tests with AddressSanitizer: `asan.sh FILTER...`.
#
# The flag is one of nightly's, which RUSTC_BOOTSTRAP has a stable compiler accept. What is
# built so is run here and never shipped. The runtime comes with rustup's toolchains, not with
# Debian's.
set -euo pipefail
cd "$(dirname "$0")/../.."

host=$(rustc -vV | sed -n 's/^host: //p')
libraries=$(rustc --print target-libdir)
if ! compgen -G "$libraries/librustc*_rt.asan.*" >/dev/null; then
    echo "SKIPPED: this toolchain has no AddressSanitizer (none in $libraries)"
    exit 0
fi
# With a target named, build scripts and macros are built without the sanitizer.
CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}/asan" RUSTC_BOOTSTRAP=1 \
    RUSTFLAGS="-Zsanitizer=address" ASAN_OPTIONS="detect_leaks=1:strict_string_checks=1" \
    cargo test --locked --lib --target "$host" -- "$@"
