#!/usr/bin/env bash
# For who has a Mac: says in one table what works there, and what was only ever supposed, and packs
# what it saw into one archive to send back.
#
#   tests/on-a-mac.sh [--fast] [--soak SECONDS] path/to/softnet
#
# Start it with sudo, or as an ordinary user who may use sudo without a password, so that it sees
# both sides; with neither it tries what it can. --fast leaves out six idle minutes. --soak tries
# recvmsg_x also where softnet does not use it, before macOS 15.6, where that may hang the Mac.
#
# It takes about ten minutes. It starts softnet for VMs of its own making, changes nothing but the
# lease time of macOS' DHCP server, as softnet does, and puts back the one that it found. Copies of
# the program with other rights are in a folder of root's, which goes away at the end. Stop other
# VMs before, so that times mean something. docs/macos.md says what each line settles.
set -uo pipefail

usage='usage: on-a-mac.sh [--fast] [--soak SECONDS] path/to/softnet'
fast='' soak='' softnet=''
while [ $# -gt 0 ]; do
    case $1 in
    --fast) fast=yes ;;
    --soak) soak=${2:?$usage} && shift ;;
    -*) echo "$usage" >&2 && exit 2 ;;
    *) softnet=$1 ;;
    esac
    shift
done
softnet=$(cd "$(dirname "${softnet:?$usage}")" && pwd)/$(basename "$softnet")
here=$(cd "$(dirname "$0")" && pwd)
entitlement=com.apple.security.virtualization
plist=/Library/Preferences/SystemConfiguration/com.apple.InternetSharing.default.plist
lease_time=:bootpd:DHCPLeaseTimeSecs
# In a script, macOS may call itself 16 otherwise.
export SYSTEM_VERSION_COMPAT=0
macos=$(sw_vers -productVersion 2>/dev/null || echo 0)
major=${macos%%.*}

# --- who we are, and can be -------------------------------------------------------

me=$(id -un)
root='' user=''
if [ "$(id -u)" -eq 0 ]; then
    root=$me user=${SUDO_USER:-}
    [ "$user" != root ] || user=''
else
    user=$me
    sudo --non-interactive true 2>/dev/null && root=root
fi
as_root() { if [ "$me" = root ]; then "$@"; else sudo --non-interactive "$@"; fi; }
as_user() { if [ "$me" = root ]; then sudo --non-interactive -u "$user" "$@"; else "$@"; fi; }

# --- the table --------------------------------------------------------------------

work=$(mktemp -d /tmp/softnet-on-a-mac.XXXXXX)
export LOGS=$work/logs
mkdir "$LOGS"
# The ordinary user and root both write there.
chmod 755 "$work" && chmod 1777 "$LOGS"
programs=''
table=$LOGS/table.txt

line() { printf '%-7s %-58s %s\n' "$1" "$2" "${3:-}" | tee -a "$table"; }
# Each is a command that has to succeed; what it says first is shown.
check() {
    local what=$1 seen
    shift
    if seen=$("$@" 2>&1); then
        line ok "$what" "$(head -n 1 <<<"$seen")"
    else
        line FAILED "$what" "$(head -n 1 <<<"$seen")"
    fi
}
# A scene of standin.py. If it is not expected to go well on this Mac, its failures are notes.
scene() {
    local expected=$1 what=$2 name=$3 said
    shift 3
    line - "$what" "$name"
    said=$("$@" 2>&1)
    [ "$expected" = yes ] || said=$(sed 's/^FAILED/note  /' <<<"$said")
    tee -a "$table" <<<"$said"
}
has_entitlement() {
    local found
    found=$(codesign --display --entitlements - --architecture "$2" "$1" 2>/dev/null)
    case $found in *"$entitlement"*) true ;; *) false ;; esac
}

# --- what is to be put back -------------------------------------------------------

# Empty if it was not set.
lease_time_before=$(/usr/libexec/PlistBuddy -c "Print $lease_time" "$plist" 2>/dev/null)
# Whatever else is in there.
others() { plutil -p "$plist" 2>/dev/null | sed '/DHCPLeaseTimeSecs/d'; }
others_before=$(others)

put_back() {
    [ -n "$root" ] || return
    if [ -n "$lease_time_before" ]; then
        as_root /usr/libexec/PlistBuddy -c "Set $lease_time $lease_time_before" "$plist"
    else
        as_root /usr/libexec/PlistBuddy -c "Delete $lease_time" "$plist"
    fi >/dev/null 2>&1
    [ -z "$programs" ] || as_root rm -rf "$programs"
    programs=''
}
trap put_back EXIT
trap 'exit 1' INT TERM HUP

# --- the machine and the program --------------------------------------------------

line note macOS "$macos ($(sw_vers -buildVersion 2>/dev/null)), $(uname -m), as $me; root: ${root:-no}, user: ${user:-no}"
line note "the version, by kern.osproductversion and kern.osrelease" \
    "$(sysctl -n kern.osproductversion 2>/dev/null), $(sysctl -n kern.osrelease 2>/dev/null)"
line note "processor, memory" "$(sysctl -n machdep.cpu.brand_string 2>/dev/null), $(sysctl -n hw.memsize 2>/dev/null) bytes"
line note "application firewall" "$(/usr/libexec/ApplicationFirewall/socketfilterfw --getglobalstate 2>/dev/null)"
check "the loader starts it (symbols, signature)" "$softnet" --version
for architecture in $(lipo -archs "$softnet" 2>/dev/null); do
    check "the signature holds, $architecture" codesign --verify --strict --architecture "$architecture" "$softnet"
    if has_entitlement "$softnet" "$architecture"; then
        line note "entitlement for vmnet, $architecture" there
    else
        line note "entitlement for vmnet, $architecture" "not there"
    fi
    # Apple Silicon may have Rosetta, or not.
    line note "it starts as $architecture" "$(arch "-$architecture" "$softnet" --version 2>&1 | head -n 1)"
done
line note "rights of the file" "$(stat -L -f '%Sp %Su:%Sg %z bytes' "$softnet" 2>/dev/null | head -n 1)"
line note "quarantine" "$(xattr -p com.apple.quarantine "$softnet" 2>/dev/null || echo none)"
python3 "$here/macos/standin.py" sleep | tee -a "$table"

# --- by every way to the rights ---------------------------------------------------

standin=$here/macos/standin.py
works=''
# So that nothing goes through sudo unseen where something else is to be seen.
mkdir "$work/no-sudo"
printf '#!/bin/sh\nexit 1\n' >"$work/no-sudo/sudo"
chmod 755 "$work/no-sudo" "$work/no-sudo/sudo"
without_sudo=$work/no-sudo:$PATH
if [ -n "$root" ]; then
    scene yes "as root" whole as_root env LOGS="$LOGS" python3 "$standin" whole "$softnet"
    works=as_root
    # In a folder of root's: who may write there would be root.
    programs=$(as_root mktemp -d /private/var/tmp/softnet-programs.XXXXXX) || exit 1
    as_root chmod 755 "$programs"
    as_root mkdir "$programs/plain" "$programs/suid" "$programs/entitled"
    cp "$softnet" "$work/softnet"
    codesign --force --sign - "$work/softnet" 2>/dev/null
    as_root install -o root -g wheel -m 755 "$work/softnet" "$programs/plain/softnet"
    as_root install -o root -g wheel -m 4755 "$softnet" "$programs/suid/softnet"
    codesign --force --sign - --entitlements "$here/../docs/macos/softnet.entitlements" "$work/softnet" 2>/dev/null
    as_root install -o root -g wheel -m 755 "$work/softnet" "$programs/entitled/softnet"
    rm "$work/softnet"
    line note "rights of the SUID copy" "$(stat -L -f '%Sp %Su:%Sg' "$programs/suid/softnet" 2>/dev/null | head -n 1)"
fi
if [ -n "$user" ]; then
    able=no
    [ "$major" -lt 26 ] || { has_entitlement "$softnet" "$(uname -m)" && able=yes; }
    [ ! -u "$softnet" ] || able=yes
    scene "$able" "as a user, as it is" whole as_user env LOGS="$LOGS" PATH="$without_sudo" python3 "$standin" whole "$softnet"
    [ "$able" = no ] || works=${works:-as_user}
fi
if [ -n "$user" ] && [ -n "$root" ]; then
    scene yes "as a user, SUID root" whole as_user env LOGS="$LOGS" PATH="$without_sudo" python3 "$standin" whole "$programs/suid/softnet"
    able=no
    [ "$major" -lt 26 ] || able=yes
    scene "$able" "as a user, with the entitlement" whole as_user env LOGS="$LOGS" PATH="$without_sudo" python3 "$standin" whole "$programs/entitled/softnet"
    # As Tart asks sudo before it starts a VM; softnet asks in the same way.
    if as_user sudo --non-interactive "$programs/plain/softnet" --help </dev/null >/dev/null 2>&1; then
        scene yes "as a user, through sudo" whole as_user env LOGS="$LOGS" python3 "$standin" whole "$programs/plain/softnet"
    else
        line note "as a user, through sudo" "sudo wants a password"
    fi
fi

# --- once, by the way that works --------------------------------------------------

if [ -n "$works" ]; then
    netstat -m >"$LOGS/netstat-before.txt" 2>&1
    for name in two orphan load; do
        scene yes "$works" "$name" "$works" env LOGS="$LOGS" python3 "$standin" "$name" "$softnet"
    done
    netstat -m >"$LOGS/netstat-after.txt" 2>&1
    [ -n "$fast" ] || scene yes "$works" idle "$works" env LOGS="$LOGS" python3 "$standin" idle "$softnet"
    check "the bench measures at vmnet, with this host behind it" "$works" "$softnet" bench --vmnet --rounds 1
fi
check "the bench measures (docs/macos.md, Measure)" "$softnet" bench --seconds 10
[ -z "$soak" ] || python3 "$here/macos/soak.py" "$soak" | tee -a "$table"
check "the sharing preferences are otherwise as before" [ "$(others)" = "$others_before" ]

# --- what to send back ------------------------------------------------------------

put_back
line note "lease time before and now" \
    "${lease_time_before:-none}, $(/usr/libexec/PlistBuddy -c "Print $lease_time" "$plist" 2>/dev/null || echo none)"
log show --last 20m --style compact \
    --predicate 'process == "softnet" OR process == "bootpd" OR process CONTAINS[c] "sharing" OR eventMessage CONTAINS "vmnet"' \
    >"$LOGS/system.txt" 2>&1
for report in /Library/Logs/DiagnosticReports/softnet* "$HOME"/Library/Logs/DiagnosticReports/softnet*; do
    [ ! -e "$report" ] || cp "$report" "$LOGS" 2>/dev/null
done
cp /etc/bootpd.plist "$LOGS/bootpd.plist" 2>/dev/null
archive=softnet-on-a-mac-$macos-$(uname -m).tar.gz
tar -C "$work" -czf "$archive" logs && echo && echo "to send back (it names this Mac's addresses and VMs): $archive"
failures=$(grep -c '^FAILED' "$table")
if [ -n "$root" ]; then as_root rm -rf "$work"; else rm -rf "$work"; fi
[ "$failures" -eq 0 ] && echo "all is well" || echo "$failures not as it should be"
exit "$((failures > 0))"
