#!/bin/sh
# What busybox udhcpc calls when something happens to the lease, in the stand-in VM and
# in the guest alike. The LEASE line is what lab/vm.py reads.

case "$1" in
deconfig)
    # -4: flushing everything would take IPv6's link-local address away as well.
    ip -4 addr flush dev "$interface"
    ;;
bound | renew)
    # An address that stays must not be gone for a moment.
    if ! ip -4 addr show dev "$interface" | grep -q " $ip/"; then
        ip -4 addr flush dev "$interface"
        ip addr add "$ip/$mask" dev "$interface"
    fi
    ip route replace default via "${router%% *}" dev "$interface"
    echo "LEASE address=$ip router=${router%% *} dns=${dns%% *} server=$serverid seconds=$lease"
    ;;
esac
