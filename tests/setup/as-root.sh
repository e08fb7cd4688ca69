#!/usr/bin/env bash
# Runs a command as root: at once where we are, else through sudo where it needs no
# password or there is a terminal to ask for it. Where neither helps the command runs as
# the caller: what it lacks is then its own to say.
set -euo pipefail

if [ "$(id -u)" -ne 0 ] && command -v sudo >/dev/null; then
    if sudo -n true 2>/dev/null || (: </dev/tty) 2>/dev/null; then
        exec sudo "$@"
    fi
fi
exec "$@"
