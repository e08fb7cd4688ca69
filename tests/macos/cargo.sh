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
# By the name that stays when the folder is a link to a cache: cargo builds everything again
# when the linker or a flag is another.
mkdir -p "$repo/target/macos"
tools=$(cd -P "$repo/target/macos" && pwd)

export PATH=$tools/bin:/usr/bin:/bin
export RUSTC=/usr/bin/rustc
# Debian's compiler is a stable one; the project's code uses nothing else. This is for -Z.
export RUSTC_BOOTSTRAP=1
export CARGO_TARGET_DIR=$tools/build
export CARGO_TARGET_AARCH64_APPLE_DARWIN_LINKER=$tools/zcc
export CARGO_TARGET_X86_64_APPLE_DARWIN_LINKER=$tools/zcc
# For the dependencies of benches that compile a bit of C.
export CC_aarch64_apple_darwin=$tools/zcc CC_x86_64_apple_darwin=$tools/zcc
export AR_aarch64_apple_darwin=llvm-ar-22 AR_x86_64_apple_darwin=llvm-ar-22
# rustc would look for xcrun; any directory keeps it from that. Always the same one, since
# another makes everything be built again.
export SDKROOT=$tools/sdk
export MACOSX_DEPLOYMENT_TARGET=13.0
flags=(
    # What is linked but not used, such as iconv, leaves no trace.
    -Clink-arg=-Wl,-dead_strip_dylibs
    # Nor do the folders of whoever builds, which messages of panics would show.
    "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}/registry/src=/registry"
    "--remap-path-prefix=/usr/lib/rustlib/src/rust=/rust"
)
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f' && echo "${flags[*]}")
export CARGO_ENCODED_RUSTFLAGS
# `test` for the harness of unit tests.
case "$command" in build) std=std,panic_abort ;; *) std=std,panic_abort,test ;; esac

args=(--locked -Z "build-std=$std" --target "$architecture-apple-darwin")
cd "$repo"
if [ "$command" = clippy ]; then
    # By its path: cargo itself would look in CARGO_HOME first, where rustup has its own.
    exec /usr/bin/cargo-clippy clippy "${args[@]}" "$@" -- -D warnings
fi
exec cargo "$command" "${args[@]}" "$@"
