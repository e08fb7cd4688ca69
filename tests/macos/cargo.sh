#!/usr/bin/env bash
# cargo, for a Mac: tests/macos/cargo.sh COMMAND ARCHITECTURE [ARGUMENT...], for example
# `cargo.sh clippy aarch64 --all-targets`. tests/setup/macos.sh must have run.
#
# The standard library is built as well, as Debian has none for macOS: the first run for an
# architecture and profile takes minutes. All go to target/macos/build.
set -euo pipefail

repo=$(cd "$(dirname "$0")/../.." && pwd)
command=$1 architecture=$2
shift 2

export PATH=/usr/bin:/bin
export RUSTC=/usr/bin/rustc
# Debian's compiler is a stable one; the project's code uses nothing else. This is for -Z.
export RUSTC_BOOTSTRAP=1
export CARGO_TARGET_DIR=$repo/target/macos/build
export CARGO_TARGET_AARCH64_APPLE_DARWIN_LINKER=$repo/target/macos/zcc
export CARGO_TARGET_X86_64_APPLE_DARWIN_LINKER=$repo/target/macos/zcc
# rustc would look for xcrun; any directory keeps it from that. Always the same one, since
# another makes everything be built again.
export SDKROOT=$repo/target/macos/sdk
export MACOSX_DEPLOYMENT_TARGET=13.0
# What one of objc, iconv, Security or Foundation is linked for but not used leaves no trace.
export CARGO_ENCODED_RUSTFLAGS=-Clink-arg=-Wl,-dead_strip_dylibs
# `test` for the harness of unit tests.
case "$command" in build) std=std,panic_abort ;; *) std=std,panic_abort,test ;; esac

args=(--locked -Z "build-std=$std" --target "$architecture-apple-darwin")
cd "$repo"
if [ "$command" = clippy ]; then
    # By its path: cargo itself would look in CARGO_HOME first, where rustup has its own.
    exec /usr/bin/cargo-clippy clippy "${args[@]}" "$@" -- -D warnings
fi
exec cargo "$command" "${args[@]}" "$@"
