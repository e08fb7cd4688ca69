#!/usr/bin/env bash
# Runs the tests of the filter and measures how much of src/wire and src/filter they reach.
#
# llvm-profdata and llvm-cov must be as new as the compiler's LLVM: rustup's component
# llvm-tools has them, and so has Debian's package llvm-22 for a compiler with LLVM 22.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-$PWD/target}/coverage
rm -rf "$target/profiles"
export CARGO_TARGET_DIR=$target RUSTFLAGS="-Cinstrument-coverage"
export LLVM_PROFILE_FILE=$target/profiles/%p-%m.profraw
tests=(--lib --test policy --test drops --test leases --test guard --test clients --test captures
    --test oracle --test fuzz_replay)
cargo test --locked "${tests[@]}"

llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
PATH=$(rustc --print target-libdir)/../bin:/usr/lib/llvm-$llvm/bin:$PATH
llvm-profdata merge --sparse "$target"/profiles/*.profraw -o "$target/profile"
# Names of the test binaries, as objects to read the coverage of.
mapfile -t objects < <(cargo test --locked "${tests[@]}" --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*\)".*/-object=\1/p')
llvm-cov report --instr-profile="$target/profile" "${objects[@]}" \
    --sources src/wire src/filter | tee "$target/report.txt"
