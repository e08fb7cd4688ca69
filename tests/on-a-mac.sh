#!/usr/bin/env bash
# For who has a Mac: says in one table what works there, and what was only ever supposed.
#
#   sudo tests/on-a-mac.sh path/to/softnet      (macOS 13 to 15; or without sudo if it is SUID)
#   tests/on-a-mac.sh path/to/softnet           (macOS 26, softnet signed with the entitlement)
#
# It starts softnet twice for a VM of its own making, for about two minutes, changes nothing
# but the lease time of macOS' DHCP server as softnet does, and leaves nothing behind. Stop
# other VMs before, so that times mean something. docs/macos.md says what each line settles.
set -uo pipefail

softnet=${1:?usage: on-a-mac.sh path/to/softnet}
here=$(cd "$(dirname "$0")" && pwd)
failures=0

line() { printf '%-7s %-58s %s\n' "$1" "$2" "${3:-}"; }
check() {
    local what=$1 seen
    shift
    if seen=$("$@" 2>&1); then
        line ok "$what" "$(head -n 1 <<<"$seen")"
    else
        line FAILED "$what" "$(head -n 1 <<<"$seen")"
        failures=$((failures + 1))
    fi
}

line note "macOS" "$(sw_vers -productVersion 2>/dev/null) $(uname -m), as $(id -un)"
check "the loader starts it (symbols, signature)" "$softnet" --version
check "the signature holds" codesign --verify --strict "$softnet"
if codesign -d --entitlements - "$softnet" 2>/dev/null | grep -q com.apple.security.virtualization; then
    line note "entitlement com.apple.security.virtualization" "there"
else
    line note "entitlement com.apple.security.virtualization" "not there"
fi
line note "rights of the file" "$(stat -f '%Sp %Su' "$softnet" 2>/dev/null)"
# As Tart asks sudo before it starts a VM.
check "--help under sudo, without a password, at once" sudo --non-interactive "$softnet" --help </dev/null
python3 "$here/macos/standin.py" "$softnet" || failures=$((failures + 1))
check "the bench measures (docs/macos.md, Measure)" "$softnet" bench --seconds 10
if [ "$(id -u)" -eq 0 ] || [ "$(sw_vers -productVersion | cut -d . -f 1)" -ge 26 ]; then
    check "the bench measures at vmnet, with this host behind it" "$softnet" bench --vmnet --rounds 1
fi
if [ "$(id -u)" -eq 0 ]; then
    check "bootpd's other preferences are still there" plutil -p \
        /Library/Preferences/SystemConfiguration/com.apple.InternetSharing.default.plist
fi
echo
[ "$failures" -eq 0 ] && echo "all is well" || echo "$failures not as it should be"
exit "$((failures > 0))"
