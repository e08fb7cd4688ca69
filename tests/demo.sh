#!/usr/bin/env bash
# Shows softnet at work: a real VM under QEMU behind it, its lease, a ping, streams, and
# its lies coming to nothing. All networks are namespaces made for it and removed again.
#
# As root it installs what it needs. Without root it needs that to be there already, and
# makes its namespaces inside a user namespace. Where QEMU cannot be had, a namespace with
# a TAP device stands in for the VM. It says which of these it does.
#
#   SOFTNET_BIN  the program to show, target/release/softnet if not set
set -euo pipefail

repo=$(cd "$(dirname "$0")/.." && pwd)
export PATH=$PATH:/usr/sbin:/sbin
export SOFTNET_BIN=${SOFTNET_BIN:-$repo/target/release/softnet}

say() { echo "demo: $*"; }

if [ "$(uname -s)" != Linux ]; then
    say "this demonstration needs Linux; on a Mac, Tart shows softnet: tart run --net-softnet VM" >&2
    exit 1
fi
[ -x "$SOFTNET_BIN" ] ||
    cargo build --release --locked --manifest-path "$repo/Cargo.toml"

if ! "$repo/tests/setup/e2e.sh" demo; then
    say "some of what it needs cannot be had (see above): it shows what it can" >&2
fi
demo=(/usr/bin/env python3 "$repo/tests/e2e/demo.py")
if [ "$(id -u)" -eq 0 ]; then
    # Another one on this machine has the same VM; see tests/e2e/run.sh.
    exec unshare --mount sh -c 'mount -t tmpfs -o mode=755 none /run && exec "$@"' sh "${demo[@]}"
fi
if ! unshare --map-root-user --net --mount true 2>/dev/null; then
    say "it needs root here, as this system allows no user namespaces: sudo $0" >&2
    exit 1
fi
say "not root: it runs as root of a user namespace, which has no rights outside"
# `ip netns` keeps its names in /run, and mounts /sys anew for each namespace.
exec unshare --map-root-user --net --mount sh -c \
    'mount -t tmpfs -o mode=755 none /run && ip link set lo up && exec "$@"' sh "${demo[@]}"
