"""Attacks with the tools of the trade, or with the VM's own kernel, and their effects."""

import errno
import socket

from scapy.layers.inet import ICMP, TCP, UDP

from attacks import PATIENCE, frames, unique
from attacks.victims import patience
from lab import namespace, paths
from lab.network import GATEWAY, GATEWAY_MAC, INTERNET, PEER, PEER_MAC, PEER_PORT
from lab.process import end, spawn, until


def arp_spoofing(victim, pretended):
    """Tells `victim` with arpspoof that the VM were `pretended`."""

    def works(bench, _lease):
        network, vm = bench.network, bench.vm
        where = {PEER: network.peer, GATEWAY: network.host}[victim]
        mac = {PEER: PEER_MAC, GATEWAY: GATEWAY_MAC}[victim]
        # The attacker knows the victim's MAC, and need not ask for it.
        vm.check(f"ip neigh replace {victim} lladdr {mac} dev eth0 nud permanent")
        try:
            with vm.background(f"arpspoof -i eth0 -t {victim} {pretended}"):
                return until(
                    lambda: network.mac_known_for(where, pretended) == vm.mac, PATIENCE
                )
        finally:
            vm.check(f"ip neigh del {victim} dev eth0")

    return works


def arp_spoofing_of_vm(bench, lease):
    """Tells the VM with arpspoof that the other VM were the gateway."""
    network, vm = bench.network, bench.vm
    # It believes news of somebody whom it knows.
    assert vm.ping(GATEWAY)
    arpspoof = ("arpspoof", "-i", "eth0", "-t", lease.address, GATEWAY)
    namespace.configure(
        network.peer, f"neigh replace {lease.address} lladdr {vm.mac} dev eth0 nud permanent"
    )
    attacker = spawn(
        *namespace.command_in(network.peer, *arpspoof), log=paths.log_directory() / "arpspoof.log"
    )
    try:
        return until(lambda: vm.mac_known_for(GATEWAY) == PEER_MAC, PATIENCE)
    finally:
        end(attacker)
        namespace.configure(network.peer, f"neigh del {lease.address} dev eth0")
        vm.check("ip neigh flush dev eth0")


def vm_poisoned(bench, lease):
    """Tells the VM by one ARP request that the other VM were the gateway."""
    network, vm = bench.network, bench.vm
    assert vm.ping(GATEWAY)
    with network.watch_peer() as peer:
        peer.send(frames.arp_to_vm(GATEWAY, operation=1)(vm.mac, lease, b""))
    return until(lambda: vm.mac_known_for(GATEWAY) == PEER_MAC, PATIENCE)


def poisoned(victim, pretended, operation, to=None):
    """Tells `victim` by one ARP message that the VM were `pretended`."""

    def works(bench, lease):
        network, vm = bench.network, bench.vm
        where, mac = {PEER: (network.peer, PEER_MAC), GATEWAY: (network.host, GATEWAY_MAC)}[victim]
        message = frames.arp(pretended, operation, target=victim, to=to or mac, hwdst=mac)
        # Believed of somebody who is known already, as both are after `forget`.
        network.ping_from(network.peer, GATEWAY)
        vm.send(message(vm.mac, lease, b""))
        left = patience(bench, lease)
        return until(lambda: network.mac_known_for(where, pretended) == vm.mac, left)

    return works


def address_takeover(bench, _lease):
    """Takes the other VM's address into use, and makes itself known with it."""
    network, vm = bench.network, bench.vm
    vm.check(f"ip addr add {PEER}/32 dev eth0")
    try:
        vm.check("ip neigh flush dev eth0")
        vm.run(f"busybox ping -c 1 -W 1 -I {PEER} {GATEWAY}")
        return until(lambda: network.mac_known_for(network.host, PEER) == vm.mac, PATIENCE)
    finally:
        vm.check(f"ip addr del {PEER}/32 dev eth0")
        # The kernel would ask once more for the gateway's MAC as the other VM.
        vm.check("ip neigh flush dev eth0")


def changed_mac(bench, _lease):
    """Gives its card another MAC, as it has its lease, and goes on."""
    vm = bench.vm
    vm.check("ip link set eth0 address 02:00:00:00:66:66")
    try:
        return vm.ping(GATEWAY)
    finally:
        vm.check(f"ip link set eth0 address {vm.mac}")
        vm.check("ip neigh flush dev eth0")


def stolen_mac(bench, lease):
    """Sends as the other VM's MAC, so that the switch sends that VM's frames here."""
    bench.vm.send(frames.ip_from_mac(PEER_MAC)(bench.vm.mac, lease, b""))
    return until(
        lambda: bench.network.switch_port_of(PEER_MAC) not in (None, PEER_PORT), PATIENCE
    )


def spoofed_source(source):
    """Sends to the internet with hping3 from an address that is not the VM's."""

    def works(bench, _lease):
        token = unique()
        with bench.network.watch_internet() as internet:
            bench.vm.run(
                f"hping3 -q -c 5 -i u20000 --udp -p 9 -a {source} -d {len(token)} -e {token.decode()} {INTERNET}"
            )
            return internet.saw(token, PATIENCE)

    return works


def reaching(address):
    """Reaches an address in a private network, or another VM."""

    def works(bench, _lease):
        if address != PEER:
            return bench.vm.ping(address)
        # As above: whether it may ask for the MAC is another question.
        bench.vm.check(f"ip neigh replace {PEER} lladdr {PEER_MAC} dev eth0 nud permanent")
        try:
            return bench.vm.ping(address)
        finally:
            bench.vm.check(f"ip neigh del {PEER} dev eth0")

    return works


def router_advertisement(bench, lease):
    """Becomes the other VM's router, by IPv6, on a network that has none."""
    advertisement = frames.ipv6(*frames.ROUTER_ADVERTISEMENT)
    bench.vm.send(advertisement(bench.vm.mac, lease, b""))
    return until(bench.network.routers_of_peer, PATIENCE)


def redirect(bench, lease):
    """Becomes the other VM's router to the internet, by telling it so as the gateway."""
    network, vm = bench.network, bench.vm

    def affected():
        # Believed once the new router's MAC is known, which the first one makes it ask for.
        vm.send(frames.redirect(vm.mac, lease, b""))
        return lease.address in network.route_of_peer(INTERNET)

    return until(affected, PATIENCE, every=0.1)


def narrowed_path(bench, lease):
    """Has the host send all that goes to the internet in small packets: one error, as if a
    router had refused one of the host's."""
    network = bench.network
    # The kernel looks for a socket that has sent anything but an echo reply.
    error = frames.about(
        *(GATEWAY, INTERNET, ICMP(type="echo-reply")), code=4, nexthopmtu=NARROW
    )
    try:
        bench.vm.send(frames.ip(error)(bench.vm.mac, lease, unique()))
        left = patience(bench, lease)
        return until(lambda: f"mtu {NARROW}" in network.route_of_host(INTERNET), left)
    finally:
        namespace.configure(network.host, "route flush cache")


def ended_sockets(bench, lease):
    """Ends what the host has open by UDP, with a sweep of errors as if nobody listened."""
    with namespace.inside(bench.network.host):
        victim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with victim:
        victim.connect((INTERNET, 4500))
        address, port = victim.getsockname()
        errors = [
            frames.about(address, INTERNET, UDP(sport=source, dport=4500))
            for source in range(port - 4, port + 5)
        ]
        bench.vm.send(*(frames.ip(it)(bench.vm.mac, lease, unique()) for it in errors))
        left = patience(bench, lease)
        ended = lambda: victim.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # noqa: E731
        return until(lambda: ended() == errno.ECONNREFUSED, left)


def whispering(bench, lease):
    """Tells the other VM six bytes, in an ARP request for the gateway."""
    token = unique()
    with bench.network.watch_peer() as peer:
        bench.vm.send(frames.whisper(bench.vm.mac, lease, token))
        return peer.saw(token[:6], patience(bench, lease))


def arp_flood(target):
    """Has everybody read many requests for an address."""

    def works(bench, lease):
        request = bytes(frames.arp(None, target=target)(bench.vm.mac, lease, b""))
        with bench.network.watch_peer() as peer:
            bench.vm.send(*[request] * FLOOD)
            left = patience(bench, lease)
            arrived = sum(frame.startswith(request[:42]) for frame in peer.arriving(left))
        return arrived > FLOOD / 2

    return works


def from_port(segment, port):
    """The same TCP segment from another port; scapy would take half a millisecond to make it."""
    old_port, checksum = (int.from_bytes(segment[at : at + 2], "big") for at in (34, 50))
    # RFC 1624, equation 3.
    total = (checksum ^ 0xFFFF) + (old_port ^ 0xFFFF) + port
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    port, checksum = port.to_bytes(2, "big"), (total ^ 0xFFFF).to_bytes(2, "big")
    return segment[:34] + port + segment[36:50] + checksum + segment[52:]


def connection_flood(bench, lease):
    """Takes so many ports of the host's NAT that no neighbour gets one: each connection that is
    begun takes one, and keeps it for two minutes."""
    network = bench.network
    first = frames.ip(TCP(sport=1024, dport=9, flags="S"), to=INTERNET)(bench.vm.mac, lease, b"")
    opening = [from_port(bytes(first), 1024 + more) for more in range(CONNECTIONS)]
    before = network.sent_to_internet()
    for first in range(0, CONNECTIONS, FLOOD):
        bench.vm.send(*opening[first : first + FLOOD])
    left = patience(bench, lease)
    return until(lambda: network.sent_to_internet() - before > CONNECTIONS * 0.8, left)


# Below this the kernel does not go (ip_rt_min_pmtu).
NARROW = 552
# Fewer than wait at a TAP device, more than a bucket holds.
FLOOD = 500
# More than twice of what may be opened at once.
CONNECTIONS = 20_000
