#!/usr/bin/env python3
"""A forwarder without any filter: copies every frame between a VM's socket and a TAP.

It has two uses. In softnet's place it shows that an attack reaches its victim when
nothing stops it; a test that only ever saw the attack fail would prove nothing. And on
the VM's side it plays the virtual network card of the stand-in VM (lab/standin.py).

It takes softnet's command line and ignores the part that is about filtering. SIGUSR1
makes it send an empty datagram into the socket.
"""

import argparse
import fcntl
import os
import signal
import socket
import struct
import sys
import threading

TUNSETIFF = 0x400454CA
TUNSETOFFLOAD = 0x400454D0
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
LARGEST_FRAME = 65536


def open_tap(name):
    """Opens the TAP device `name` of the network namespace that the caller is in."""
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    # A persistent TAP keeps the offloads that its previous user asked for. With checksum
    # offload left on, DHCP replies would come without a checksum and be thrown away.
    fcntl.ioctl(fd, TUNSETOFFLOAD, 0)
    return fd


def from_vm(vm, tap):
    while True:
        try:
            frame = vm.recv(LARGEST_FRAME)
        except ConnectionError:
            continue
        # On a datagram socket an empty read is an empty datagram, not the end.
        if not frame:
            print("got an empty datagram", file=sys.stderr, flush=True)
            continue
        try:
            os.write(tap, frame)
        except OSError:
            pass  # the interface is down, or no interface takes such a frame


def to_vm(tap, vm):
    while True:
        try:
            frame = os.read(tap, LARGEST_FRAME)
        except OSError:
            continue
        try:
            vm.send(frame)
        except OSError:
            pass  # nobody holds the other end now; somebody may do so later


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--vm-fd", type=int, required=True)
    parser.add_argument("--tap", required=True)
    options, _about_filtering = parser.parse_known_args()

    vm = socket.socket(fileno=options.vm_fd)
    # The flag belongs to the open socket, not to this process: whoever had the
    # descriptor before may have left it non-blocking.
    vm.setblocking(True)
    tap = open_tap(options.tap)

    signal.signal(signal.SIGUSR1, lambda *_: vm.send(b""))
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, lambda *_: os._exit(0))
    for copy in ((from_vm, vm, tap), (to_vm, tap, vm)):
        threading.Thread(target=copy[0], args=copy[1:], daemon=True).start()
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
