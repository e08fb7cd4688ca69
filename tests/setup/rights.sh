#!/usr/bin/env bash
# Gets sudo, and setcap for file capabilities, through apt-get, for the tests of who softnet is
# when these start it. Those need root as well, so without it nothing is installed, and they are
# skipped.
set -euo pipefail

export PATH=$PATH:/usr/sbin:/sbin
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    exit 0
fi
if command -v sudo >/dev/null && command -v setcap >/dev/null; then
    exit 0
fi
apt() {
    # Whoever else holds the lock (unattended upgrades, another job) gets time to finish.
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 "$@" </dev/null
}
echo "rights setup: installing sudo and libcap2-bin"
apt install --no-install-recommends sudo libcap2-bin >/dev/null 2>&1 || {
    apt update
    apt install --no-install-recommends sudo libcap2-bin >/dev/null
}
