#!/usr/bin/env bash
# Installs what counting instructions needs: Valgrind, and gungraun-runner in the version of the
# library in Cargo.lock, which it has to match.
set -euo pipefail
cd "$(dirname "$0")/.."

bash tests/setup/valgrind.sh
version=$(awk -F '"' '$0 == "name = \"gungraun\"" {getline; print $2}' Cargo.lock)
if ! gungraun-runner --version 2>/dev/null | grep -qF "$version"; then
    echo "installing gungraun-runner $version (this takes a while)"
    CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/gungraun-runner cargo install --quiet --locked \
        --version "$version" gungraun-runner
fi
