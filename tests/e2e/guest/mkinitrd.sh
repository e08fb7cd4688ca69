#!/usr/bin/env bash
# Builds the test guest's initrd: busybox, the drivers it needs, and the real tools of
# the attacks, all taken from the packages of the machine that runs the tests.
#
#   mkinitrd.sh KERNEL_TREE OUTPUT
#
# KERNEL_TREE is an unpacked kernel package.
set -euo pipefail

tree=$1
output=$2
here=$(cd "$(dirname "$0")" && pwd)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

mkdir -p "$root"/{bin,sbin,usr/bin,usr/sbin,proc,sys,dev,etc,run,tmp,modules}

# A program together with the libraries that it loads, at the paths where it looks.
add_program() {
    local program library
    program=$(command -v "$1") || {
        echo "mkinitrd: $1 is not installed" >&2
        exit 1
    }
    cp -L "$program" "$root/bin/$(basename "$1")"
    for library in $(ldd "$program" 2>/dev/null | grep -o '/[^ ]*' || true); do
        mkdir -p "$root$(dirname "$library")"
        cp -nL "$library" "$root$library"
    done
}

add_program busybox
for applet in $(busybox --list); do
    [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
# These replace applets: busybox' ip knows no neighbours; its shell prefers its applets to
# any program, and loses what it has read of a line when a background process ends.
rm "$root/bin/ip" "$root/bin/sh"
for program in dash ip iperf3 arpspoof hping3; do
    add_program "$program"
done
ln -s dash "$root/bin/sh"
gcc -O2 -Wall -Wextra -o "$root/rawsend" "$here/rawsend.c"
add_program "$root/rawsend"
rm "$root/rawsend"

# modprobe knows the order of dependencies, and which drivers this kernel has built in.
[ -e "$tree/lib" ] || ln -s usr/lib "$tree/lib"
release=$(ls "$tree/lib/modules")
depmod -b "$tree" "$release"
modprobe -d "$tree" -S "$release" --show-depends -a virtio_pci virtio_net |
    awk '$1 == "insmod" && !seen[$2]++ {print $2}' >"$root/modules/files"
while read -r file; do
    name=$(basename "$file")
    name=${name%%.ko*}.ko
    case "$file" in
    *.xz) xz -dc "$file" >"$root/modules/$name" ;;
    *.zst) zstd -dqc "$file" >"$root/modules/$name" ;;
    *.gz) gzip -dc "$file" >"$root/modules/$name" ;;
    *) cp "$file" "$root/modules/$name" ;;
    esac
    echo "$name" >>"$root/modules/order"
done <"$root/modules/files"
touch "$root/modules/order"
rm "$root/modules/files"

install -m 755 "$here/init" "$root/init"
install -m 755 "$here/udhcpc.sh" "$root/etc/udhcpc.sh"

(cd "$root" && find . | cpio --quiet -o -H newc) | gzip -1 >"$output.new"
mv "$output.new" "$output"
