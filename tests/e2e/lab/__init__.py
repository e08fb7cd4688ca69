"""The laboratory of the end-to-end tests: namespaces, virtual machines, forwarders."""

import contextlib
from socket import MSG_DONTWAIT

from lab import paths
from lab.forwarder import Forwarder
from lab.vm import socket_pair


class Bench:
    """One VM on the network of a host, whose forwarder is changed while it runs."""

    def __init__(self, network, vm):
        self.network, self.vm = network, vm
        self._cleanup = contextlib.ExitStack()

    def __enter__(self):
        vms_end, self._cable = socket_pair(self.network.host)
        self._cleanup.enter_context(self._cable)
        self._cleanup.enter_context(self.vm)
        with contextlib.ExitStack() as failing:
            failing.push(self._cleanup)
            self.vm.plug_in(vms_end)
            failing.pop_all()
        return self

    def __exit__(self, *_):
        self._cleanup.close()

    def softnet(self, *options, control=None):
        """softnet between the VM and the network, for a `with` statement; with a client of its
        control channel, if one is given."""
        return self.forwarder(paths.SOFTNET, *options, control=control)

    def unfiltered(self):
        """A forwarder that lets everything through, for a `with` statement."""
        return self.forwarder(paths.UNFILTERED)

    def forwarder(self, program, *options, control=None):
        """A program of softnet's command line in its place, likewise."""
        # What one forwarder left unread would be the next one's first frames.
        self._drain()
        return Forwarder(
            self.network, program, self._cable, self.vm.mac, *options, control=control
        )

    def _drain(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                self._cable.recv(1 << 16, MSG_DONTWAIT)
