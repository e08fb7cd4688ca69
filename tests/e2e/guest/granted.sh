#!/bin/sh
# What busybox udhcpc calls for a machine that only wants to know what it would be given.
case "$1" in
bound | renew) echo "GRANTED $ip $serverid" ;;
esac
