#!/usr/bin/env bash
# Gets dnsmasq, the DHCP server of the tests that measure at a simulated vmnet, through apt-get.
# Those need root as well, so without it nothing is installed, and they are skipped.
set -euo pipefail

export PATH=$PATH:/usr/sbin:/sbin
if command -v dnsmasq >/dev/null || [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    exit 0
fi
apt() {
    # Whoever else holds the lock (unattended upgrades, another job) gets time to finish.
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 "$@" </dev/null
}
echo "dnsmasq setup: installing dnsmasq-base and iproute2"
apt install --no-install-recommends dnsmasq-base iproute2 >/dev/null 2>&1 || {
    apt update
    apt install --no-install-recommends dnsmasq-base iproute2 >/dev/null
}
