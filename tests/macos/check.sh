#!/usr/bin/env bash
# What can be said of the code for macOS without a Mac: that both kinds of Macs have all it
# names, that clippy likes it, that it links, that the result is well formed, and that the
# checks of the result would notice if it were not.
set -euo pipefail

repo=$(cd "$(dirname "$0")/../.." && pwd)
cd "$repo"
for architecture in aarch64 x86_64; do
    # Not the benches and their examples, which measure Linux.
    bash tests/macos/cargo.sh clippy "$architecture" --lib --bins --tests
done
bash tests/macos/dist.sh
python3 tests/macos/verify_test.py dist/softnet-aarch64-apple-darwin
