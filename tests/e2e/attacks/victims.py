"""Who is attacked, and how to tell that a frame got there: by a token that it holds."""

from attacks import PATIENCE, unique
from lab.network import GATEWAY


def reaches_peer(frame):
    """Gets a frame to the other VM; `frame(vm's mac, lease, token)` builds it."""
    return _sent_by_vm(frame, lambda network: network.watch_peer())


def reaches_gateway(frame):
    """Gets a frame to the host, likewise."""
    return _sent_by_vm(frame, lambda network: network.watch_gateway())


def reaches_internet(frame):
    """Gets a frame to the internet, likewise."""
    return _sent_by_vm(frame, lambda network: network.watch_internet())


def _sent_by_vm(frame, watch):
    def works(bench, lease):
        token = unique()
        with watch(bench.network) as victim:
            bench.vm.send(frame(bench.vm.mac, lease, token))
            return victim.saw(token, patience(bench, lease))

    return works


def reaches_vm(frame):
    """Gets a frame from the other VM to the VM, whose card must be one that can be watched."""
    return _sent_to_vm(frame, lambda network: network.watch_peer())


def reaches_vm_from_host(frame):
    """Gets a frame from the host to the VM, likewise."""
    return _sent_to_vm(frame, lambda network: network.watch_gateway())


def _sent_to_vm(frame, attacker):
    def works(bench, lease):
        token = unique()
        with bench.vm.watch() as card, attacker(bench.network) as where:
            where.send(frame(bench.vm.mac, lease, token))
            return card.saw(token, patience(bench, lease))

    return works


def patience(bench, lease):
    """Seconds in which what was sent until now arrives, if ever.

    A ping there and back overtakes nothing on its way, so that after it not much is left.
    Without a lease there is no such thing.
    """
    if lease.seconds == 0:
        return PATIENCE
    assert bench.vm.ping(GATEWAY)
    return PATIENCE / 10
