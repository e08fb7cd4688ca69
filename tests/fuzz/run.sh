#!/usr/bin/env bash
# Fuzzes every target for so many seconds: `run.sh SECONDS`.
#
# It begins with the captures beside the repository, if they are there, and with the inputs
# kept in tests/corpus. An input that breaks something is left there; give it a name that
# says what it broke, and `cargo test` tries it for ever.
set -euo pipefail
cd "$(dirname "$0")/../.."

seconds=$1
target=${CARGO_TARGET_DIR:-$PWD/target}
command -v cargo-fuzz >/dev/null || {
    echo "fuzz: cargo-fuzz is missing: cargo install cargo-fuzz" >&2
    exit 1
}
# Coverage for the fuzzer is a flag of nightly's, which this has a stable compiler accept.
# The filter has no unsafe code, so that AddressSanitizer would cost half of the executions
# for nothing.
export RUSTC_BOOTSTRAP=1
fuzz() {
    local name=$1
    shift
    cargo fuzz run --fuzz-dir tests/fuzz --sanitizer none "$name" "$@" -- -max_total_time="$seconds" \
        -max_len=2048 -timeout=10 -artifact_prefix="tests/corpus/$name/" -print_final_stats=1
}

for name in outbound inbound dhcp; do
    seeds=$target/fuzz/$name
    cargo run --quiet --release --manifest-path tests/fuzz/Cargo.toml --example seeds \
        "$name" ../shared/captures "$seeds"
    fuzz "$name" "$seeds" "tests/corpus/$name"
done
mkdir -p "$target/fuzz/connections"
fuzz connections "$target/fuzz/connections" tests/corpus/connections
# The inputs of these are choices, not frames, so that no capture can be a seed. What they find is for
# tests/oracle and for the tests of endpoint/large to repeat, and nothing to keep.
for name in agreement large; do
    mkdir -p "$target/fuzz/$name"
    cargo fuzz run --fuzz-dir tests/fuzz --sanitizer none "$name" "$target/fuzz/$name" -- \
        -max_total_time="$seconds" -max_len=1024 -len_control=0 -timeout=10 -artifact_prefix="$target/fuzz/"
done
