"""A stand-in for a virtual machine: a namespace whose network card is a TAP device.

The forwarder without a filter plays the machine's monitor: it copies between the TAP
and the VM's end of the socketpair. So the VM has a whole kernel's network stack and
starts at once, yet what softnet sees is what it sees from a virtual machine.
"""

import contextlib
import itertools
import os
import signal
import sys

from lab import namespace, paths
from lab.network import tap_is_open
from lab.packets import Packets
from lab.process import Failed, end, run, spawn, until
from lab.vm import VM


class StandIn(VM):
    """Use it in a `with` statement; leaving that removes it."""

    kind = "stand-in"
    dhcp_script = paths.DHCP_SCRIPT
    download_bytes = 64 << 20
    _numbers = itertools.count()

    def __init__(self):
        number = next(self._numbers)
        self.namespace = namespace.name_for(f"vm{number}")
        self.mac = f"02:00:00:00:01:{number:02x}"
        self.log = paths.log_directory() / f"standin{number}.log"
        self._cleanup = contextlib.ExitStack()

    def plug_in(self, end_of_cable):
        """Starts it on its end of the socketpair, which is its own from now on."""
        with contextlib.ExitStack() as failing:
            failing.push(self._cleanup)
            self.prepare()
            self.monitor = spawn(
                *self.command_line(end_of_cable.fileno()),
                pass_fds=(end_of_cable.fileno(),),
                log=self.log,
            )
            end_of_cable.close()
            self._cleanup.callback(end, self.monitor)
            self.wait_until_up()
            failing.pop_all()
        return self

    def prepare(self):
        """Makes the namespace and its network card, still without a cable."""
        self._cleanup.callback(namespace.remove, self.namespace)
        namespace.make(self.namespace)
        # Its own router solicitations would be dropped, and be taken for an attack's.
        namespace.sysctl(self.namespace, ipv6__conf__default__disable_ipv6=1)
        namespace.configure(
            self.namespace,
            "tuntap add dev eth0 mode tap",
            f"link set eth0 address {self.mac} up",
        )
        # As for the others: its ARP table must not withstand an attack for the first second.
        namespace.sysctl(self.namespace, ipv4__neigh__eth0__locktime=0)

    def command_line(self, fd):
        """The command of the monitor, which gets the VM's end as descriptor `fd`."""
        return namespace.command_in(
            self.namespace, sys.executable, paths.UNFILTERED, "--vm-fd", fd, "--tap", "eth0"
        )

    def wait_until_up(self):
        """Waits for the monitor."""
        until(
            lambda: tap_is_open(self.namespace, "eth0") or self.monitor.poll() is not None,
            timeout=5,
        )
        if not tap_is_open(self.namespace, "eth0"):
            raise Failed(f"the stand-in VM did not start: see {self.log}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._cleanup.close()

    def run(self, command, timeout=10):
        shell = namespace.command_in(self.namespace, "sh", "-c", command)
        return run(*shell, timeout=timeout, check=False)

    def send(self, *frames, pad=0):
        with self.watch() as card:
            for frame in frames:
                card.send(bytes(frame) + bytes(pad))

    def watch(self):
        """Keeps all frames that reach the VM."""
        return Packets(self.namespace, "eth0")

    def send_empty_datagram(self):
        """Makes the monitor send a datagram of no bytes, which is not a frame."""
        self.monitor.send_signal(signal.SIGUSR1)

    def got_empty_datagrams(self):
        """Whether the forwarder sent one; QEMU's network card would be deaf now."""
        return "empty datagram" in self.log.read_text()

    def stop(self):
        """Shuts it down, after which the monitor ends."""
        for pid in namespace.pids(self.namespace):
            os.kill(pid, signal.SIGTERM)

    def freeze(self):
        """Stops the monitor, so that nobody reads what is sent to the VM."""
        self.monitor.send_signal(signal.SIGSTOP)

    def kill(self):
        """Ends the monitor as if it had crashed."""
        end(self.monitor)
