#!/usr/bin/env bash
# Gets what the end-to-end tests and the demo need: packages through apt-get, a Python
# environment in target/e2e/venv, and a bootable test guest in target/e2e/guest.
# Only what is missing is fetched or built; a second run does nothing. Root is needed only
# where packages are missing.
#
#   e2e.sh [demo]    with `demo`, nothing of Python's beyond the interpreter
set -euo pipefail

repo=$(cd "$(dirname "$0")/../.." && pwd)
e2e=$repo/tests/e2e
venv=$repo/target/e2e/venv
guest=$repo/target/e2e/guest
what=${1:-tests}
export DEBIAN_FRONTEND=noninteractive
# On Debian the administrator's tools are not on every user's path.
export PATH=$PATH:/usr/sbin:/sbin

say() { echo "e2e setup: $*"; }

# --- packages ---------------------------------------------------------------------

needs() { command -v "$1" >/dev/null || missing+=("$2"); }

missing=()
needs ip iproute2
needs dnsmasq dnsmasq-base
needs nft nftables
needs iperf3 iperf3
needs arpspoof dsniff
needs hping3 hping3
needs qemu-system-x86_64 qemu-system-x86
needs cpio cpio
needs depmod kmod
needs xz xz-utils
needs gcc gcc
[ -e /usr/include/stdio.h ] || missing+=(libc6-dev)
# Debian has two packages that bring `busybox`; either will do if it can ask for a lease.
(busybox --list 2>/dev/null || true) | grep -qx udhcpc || missing+=(busybox-static)

# The system's Python where there is one: its ensurepip comes from apt and its version
# does not change with whatever a developer has on PATH.
python=/usr/bin/python3
[ -x "$python" ] || python=$(command -v python3 || echo /usr/bin/python3)
if [ "$what" = tests ] && ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    missing+=(python3 python3-venv)
fi
needs python3 python3

wants_guest=yes
if [ "$(uname -m)" != x86_64 ]; then
    wants_guest=no
    say "no test guest for $(uname -m): the tests with QEMU will be skipped"
fi

# Everything that decides what the guest image holds, in one line.
recipe=$(cd "$e2e/guest" && cat init udhcpc.sh rawsend.c mkinitrd.sh | sha256sum | cut -d' ' -f1)
guest_ready() {
    [ "$wants_guest" = no ] || {
        [ -s "$guest/vmlinuz" ] && [ -s "$guest/initrd.gz" ] &&
            [ "$(cat "$guest/recipe" 2>/dev/null)" = "$recipe" ]
    }
}
venv_ready() { [ "$what" = demo ] || cmp -s "$e2e/requirements.txt" "$venv/requirements.txt"; }

if [ ${#missing[@]} -eq 0 ] && venv_ready && guest_ready; then
    say "all is there"
    exit 0
fi
if [ ${#missing[@]} -gt 0 ] && [ "$(id -u)" -ne 0 ]; then
    say "needs root to install ${missing[*]}" >&2
    exit 3
fi

apt() {
    # Whoever else holds the lock (unattended upgrades, another job) gets time to finish.
    apt-get -qq -y -o DPkg::Lock::Timeout=300 -o APT::Sandbox::User=root "$@" </dev/null
}
if [ ${#missing[@]} -gt 0 ]; then
    say "installing ${missing[*]}"
    apt install --no-install-recommends "${missing[@]}" >/dev/null 2>&1 || {
        apt update
        apt install --no-install-recommends "${missing[@]}" >/dev/null
    }
fi

# --- Python -----------------------------------------------------------------------

if ! venv_ready; then
    say "installing $(grep -v '^#' "$e2e/requirements.txt" | tr '\n' ' ')into ${venv#"$repo"/}"
    rm -rf "$venv"
    "$python" -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$e2e/requirements.txt"
    cp "$e2e/requirements.txt" "$venv/requirements.txt"
fi

# --- guest ------------------------------------------------------------------------

kernel_package() {
    apt-cache depends linux-image-cloud-amd64 2>/dev/null |
        awk '$1 == "Depends:" && $2 ~ /^linux-image-[0-9]/ {print $2; exit}'
}

if ! guest_ready; then
    mkdir -p "$guest"
    if [ ! -s "$guest/vmlinuz" ] || [ ! -d "$guest/tree" ]; then
        [ -n "$(kernel_package)" ] || apt update
        package=$(kernel_package)
        [ -n "$package" ] || {
            say "apt knows no linux-image-cloud-amd64: this needs Debian's package lists" >&2
            exit 1
        }
        say "fetching the guest's kernel, $package"
        rm -rf "$guest"/*.deb "$guest/tree"
        (cd "$guest" && { apt download "$package" || { apt update && apt download "$package"; }; })
        # Only what the guest can use: a whole tree is ten times as large. In Debian 13
        # the modules are below usr/lib, and compressed.
        mkdir "$guest/tree.new"
        dpkg --fsys-tarfile "$guest"/*.deb | tar x -C "$guest/tree.new" --wildcards \
            './boot/vmlinuz*' '*/modules.builtin*' '*/modules.order' '*/drivers/virtio/*' \
            '*/drivers/net/virtio_net.ko*' '*/net/core/*' '*failover.ko*' '*/lib/dim/*' 2>/dev/null || true
        cp "$guest"/tree.new/boot/vmlinuz-* "$guest/vmlinuz"
        mv "$guest/tree.new" "$guest/tree"
        rm "$guest"/*.deb
    fi
    say "building the guest's initrd"
    bash "$e2e/guest/mkinitrd.sh" "$guest/tree" "$guest/initrd.gz"
    echo "$recipe" >"$guest/recipe"
fi
say "ready"
