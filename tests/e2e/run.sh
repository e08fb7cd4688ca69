#!/usr/bin/env bash
# Runs the end-to-end tests: sets up what they need, then calls pytest with the arguments
# given. They need root and Linux; elsewhere they are skipped, which with CI=true fails.
#
#   SOFTNET_BIN  the program under test, target/release/softnet if not set
set -euo pipefail

e2e=$(cd "$(dirname "$0")" && pwd)
repo=$(cd "$e2e/../.." && pwd)

skip() {
    printf '\n!!!!!!!! END-TO-END TESTS SKIPPED: %s !!!!!!!!\n\n' "$1" >&2
    if [ "${CI:-}" = true ]; then
        echo "With CI=true a skip is a failure." >&2
        exit 1
    fi
    exit 0
}

[ "$(uname -s)" = Linux ] || skip "they need Linux"
[ "$(id -u)" -eq 0 ] || skip "they need root, for network namespaces and TAP devices"

"$repo/tests/setup/e2e.sh"
if [ -z "${SOFTNET_BIN:-}" ]; then
    cargo build --release --locked --quiet --manifest-path "$repo/Cargo.toml"
fi
cd "$e2e"
# With a /run of its own, for the names of namespaces and softnet's registry of VMs: another
# run on this machine has the same VMs.
exec unshare --mount sh -c 'mount -t tmpfs -o mode=755 none /run && exec "$@"' sh \
    "$repo/target/e2e/venv/bin/python" -B -m pytest "$@"
