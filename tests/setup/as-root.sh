#!/usr/bin/env bash
# Runs a command as root: at once where we are, else through sudo where it needs no
# password or there is a terminal to ask for it. Where neither helps the command runs as
# the caller: what it lacks is then its own to say.
set -euo pipefail

if [ "$(id -u)" -ne 0 ] && command -v sudo >/dev/null; then
    if sudo -n true 2>/dev/null || (: </dev/tty) 2>/dev/null; then
        status=0
        # Without these, for tests play other users than the caller, whom softnet would refuse.
        sudo env -u SUDO_UID -u SUDO_GID "$@" || status=$?
        # Or `cargo clean` could not remove what was made there.
        repo=$(cd "$(dirname "$0")/../.." && pwd)
        for made in "$repo/target/e2e" "$repo/perf/results"; do
            [ ! -e "$made" ] || sudo chown -R "$(id -u):$(id -g)" "$made"
        done
        exit "$status"
    fi
fi
exec "$@"
