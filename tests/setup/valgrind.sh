#!/usr/bin/env bash
# Makes sure of Valgrind, with the symbols of the C library that it needs to follow memory.
set -euo pipefail
cd "$(dirname "$0")/../.."

if ! command -v valgrind >/dev/null; then
    echo "valgrind setup: installing it with apt-get"
    bash tests/setup/as-root.sh env DEBIAN_FRONTEND=noninteractive sh -c '
        apt-get -qq update &&
        apt-get -qq -y -o DPkg::Lock::Timeout=300 install --no-install-recommends \
            valgrind libc6-dbg >/dev/null' </dev/null
fi
