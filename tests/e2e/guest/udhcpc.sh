#!/bin/sh
# What busybox udhcpc calls when something happens to the lease, in the stand-in VM and
# in the guest alike. The LEASE line is what lab/vm.py reads.

case "$1" in
deconfig)
    # -4: flushing everything would take IPv6's link-local address away as well.
    ip -4 addr flush dev "$interface"
    ;;
bound | renew)
    ip -4 addr flush dev "$interface"
    ip addr add "$ip/$mask" dev "$interface"
    ip route replace default via "${router%% *}" dev "$interface"
    echo "LEASE address=$ip router=${router%% *} dns=${dns%% *} server=$serverid seconds=$lease"
    ;;
esac
