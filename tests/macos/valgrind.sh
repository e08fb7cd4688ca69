#!/usr/bin/env bash
# Runs the code for macOS, as far as it runs on Linux, under valgrind: no read or write beside
# what is allocated, and nothing lost that nobody points at any more.
set -euo pipefail

repo=$(cd "$(dirname "$0")/../.." && pwd)
cd "$repo"
if ! command -v valgrind >/dev/null; then
    echo "valgrind is missing: installing it with apt-get"
    bash tests/setup/as-root.sh apt-get -qq -y -o DPkg::Lock::Timeout=300 install \
        --no-install-recommends valgrind libc6-dbg </dev/null >/dev/null
fi
test=$(cargo test --locked --features vmnet-sim --test vmnet_leaks --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*vmnet_leaks[^"]*\)".*/\1/p')
valgrind --quiet --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite \
    --show-leak-kinds=definite "$test"
