#!/usr/bin/env bash
# Gets the DHCP clients and servers of `make clients`, into target/clients: Debian's packages,
# unpacked and not installed. Installed, NetworkManager would manage this machine from its next
# start on, and a DHCP server would serve its network. Only what is missing is fetched.
set -euo pipefail

repo=$(cd "$(dirname "$0")/../.." && pwd)
root=$repo/target/clients
packages=(isc-dhcp-client dhcpcd-base systemd network-manager dbus kea-dhcp4-server)
programs=(dhclient dhcpcd systemd-networkd NetworkManager dbus-daemon kea-dhcp4)

say() { echo "clients setup: $*"; }

# Whether each program is there, or the system's own, and finds its libraries. What was fetched
# goes without what was installed then, and the folder may outlive that system.
complete() {
    [ "$(cat "$root/packages" 2>/dev/null)" = "${packages[*]}" ] || return 1
    local libraries tool found
    libraries=$(find "$root/root" -type d -path '*/lib/*-linux-gnu' | paste -sd:)
    for tool in "${programs[@]}"; do
        found=$(find "$root/root" {/usr,}/sbin/"$tool" /usr/bin/"$tool" /lib/systemd/"$tool" \
            -type f -name "$tool" -perm -100 2>/dev/null | head -n 1)
        [ -n "$found" ] || return 1
        ! LD_LIBRARY_PATH=$libraries ldd "$found" | grep -q 'not found' || return 1
    done
}

for tool in apt-get dpkg; do
    command -v "$tool" >/dev/null || {
        say "$tool is needed: the clients are Debian's packages" >&2
        exit 1
    }
done
if complete; then
    say "all is there"
    exit 0
fi

rm -rf "$root.new" "$root"
mkdir -p "$root.new/debs" "$root.new/root"

# What the packages need and this system lacks, as apt would install it. Those of them that are
# installed are used as they are.
fetch() {
    local lacking
    lacking=$(apt-get -qq --print-uris --no-install-recommends install "${packages[@]}" |
        sed -n "s/^'\([^']*\)' .*/\1/p" | sed 's|.*/||; s|_.*||') || return 1
    [ -n "$lacking" ] || return 0
    say "fetching $(echo "$lacking" | wc -l) packages"
    # shellcheck disable=SC2086
    (cd "$root.new/debs" && apt-get -qq -o APT::Sandbox::User=root download $lacking)
}
fetch 2>/dev/null || {
    say "getting new lists of packages"
    bash "$repo/tests/setup/as-root.sh" apt-get -qq -o DPkg::Lock::Timeout=300 update
    fetch
}
for deb in "$root.new"/debs/*.deb; do
    [ ! -e "$deb" ] || dpkg -x "$deb" "$root.new/root"
done
rm -r "$root.new/debs"
echo "${packages[*]}" >"$root.new/packages"
mv "$root.new" "$root"
complete || {
    say "not all of ${programs[*]} can run" >&2
    exit 1
}
say "ready"
