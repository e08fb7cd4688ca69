"""Attacks that a VM tries, and those that are tried on it; each tells if it worked.

An attack does its worst for about a second and returns whether its victim was affected,
as seen from the victim. None of them knows of a filter: the same function has to return
true without one, and false with softnet in the way.
"""

import itertools
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

from lab import Bench
from lab.network import (
    GATEWAY,
    GATEWAY_MAC,
    INTERNET,
    PEER,
    PEER_MAC,
    PEER_PORT,
)
from lab.process import until
from lab.vm import Lease

logging.getLogger("scapy").setLevel(logging.ERROR)  # it warns of routes that we do not use

from scapy.layers.dhcp import BOOTP, DHCP  # noqa: E402
from scapy.layers.inet import IP, UDP  # noqa: E402
from scapy.layers.inet6 import ICMPv6ND_RA, ICMPv6NDOptSrcLLAddr, IPv6  # noqa: E402
from scapy.layers.l2 import LLC, STP, Dot1AD, Dot1Q, Dot3, Ether  # noqa: E402
from scapy.packet import Raw  # noqa: E402

BROADCAST = "ff:ff:ff:ff:ff:ff"
ALL_NODES, ALL_NODES_MAC = "ff02::1", "33:33:00:00:00:01"
SPANNING_TREE_MAC = "01:80:c2:00:00:00"
NOBODY = "192.168.64.77"
PATIENCE = 1.0


@dataclass(frozen=True)
class Attack:
    """One line of a table of attacks."""

    name: str
    # The label under which softnet counts its frames.
    reason: str
    # Whether it worked, given the VM on its network and the lease that the VM holds.
    works: Callable[[Bench, Lease], bool]


# --- by a VM, on others -----------------------------------------------------------


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


def stolen_mac(bench, lease):
    """Sends as the other VM's MAC, so that the switch sends that VM's frames here."""
    bench.vm.send(Ether(src=PEER_MAC, dst=GATEWAY_MAC) / udp(lease, INTERNET, b""))
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


def router_advertisement(bench, _lease):
    """Becomes the other VM's router, by IPv6, on a network that has none."""
    mac = bench.vm.mac
    bench.vm.send(
        Ether(src=mac, dst=ALL_NODES_MAC)
        / IPv6(src="fe80::bad", dst=ALL_NODES, hlim=255)
        / ICMPv6ND_RA(routerlifetime=600)
        / ICMPv6NDOptSrcLLAddr(lladdr=mac)
    )
    return until(bench.network.routers_of_peer, PATIENCE)


def reaching_peer_by(frame):
    """Gets a frame to the other VM; `frame(vm's mac, lease, token)` builds it."""

    def works(bench, lease):
        token = unique()
        with bench.network.watch_peer() as peer:
            bench.vm.send(frame(bench.vm.mac, lease, token))
            return peer.saw(token, PATIENCE)

    return works


def vlan_frame(mac, lease, token):
    return Ether(src=mac, dst=PEER_MAC) / Dot1Q(vlan=7) / udp(lease, PEER, token)


def qinq_frame(mac, lease, token):
    tags = Dot1AD(vlan=7) / Dot1Q(vlan=7)
    return Ether(src=mac, dst=PEER_MAC) / tags / udp(lease, PEER, token)


def spanning_tree_frame(mac, _lease, token):
    return Dot3(src=mac, dst=SPANNING_TREE_MAC) / LLC() / STP() / Raw(token)


def eapol_frame(mac, _lease, token):
    return Ether(src=mac, dst=PEER_MAC, type=0x888E) / Raw(b"\x01\x01\x00\x00" + token)


def dhcp_server_frame(mac, lease, token):
    offer = DHCP(options=[("message-type", "offer"), ("server_id", lease.address), "end"])
    return (
        Ether(src=mac, dst=BROADCAST)
        / IP(src=lease.address, dst="255.255.255.255")
        / UDP(sport=67, dport=68)
        / BOOTP(op=2, yiaddr=NOBODY, siaddr=lease.address, sname=token)
        / offer
    )


BY_A_VM = (
    Attack("ARP spoofing of the gateway", "arp-sender-address", arp_spoofing(PEER, GATEWAY)),
    Attack("ARP spoofing of another VM", "arp-sender-address", arp_spoofing(GATEWAY, PEER)),
    Attack("taking over another VM's address", "arp-sender-address", address_takeover),
    Attack("a stolen source MAC", "source-mac", stolen_mac),
    Attack("a spoofed source address", "source-address", spoofed_source(NOBODY)),
    Attack("another VM's address as the source", "source-address", spoofed_source(PEER)),
    Attack("reaching 10.9.8.7", "destination-private", reaching("10.9.8.7")),
    Attack("reaching 172.16.5.5", "destination-private", reaching("172.16.5.5")),
    Attack("reaching 169.254.169.254", "destination-link-local", reaching("169.254.169.254")),
    Attack("reaching another VM", "destination-private", reaching(PEER)),
    Attack("an IPv6 router advertisement", "ipv6", router_advertisement),
    Attack("a VLAN tag", "vlan", reaching_peer_by(vlan_frame)),
    Attack("two VLAN tags", "vlan", reaching_peer_by(qinq_frame)),
    Attack("spanning tree", "llc", reaching_peer_by(spanning_tree_frame)),
    Attack("802.1X", "eapol", reaching_peer_by(eapol_frame)),
    Attack("a DHCP server of its own", "dhcp-role", reaching_peer_by(dhcp_server_frame)),
)


# --- by others, on a VM: these need a VM whose card can be watched ------------------


def reaching_vm_by(frame):
    """Gets a frame to the VM; `frame(vm's mac, lease, token)` builds it."""

    def works(bench, lease):
        token = unique()
        with bench.vm.watch() as card, bench.network.watch_peer() as peer:
            peer.send(bytes(frame(bench.vm.mac, lease, token)))
            return card.saw(token, PATIENCE)

    return works


def incoming_router_advertisement(_mac, _lease, token):
    return (
        Ether(src=PEER_MAC, dst=ALL_NODES_MAC)
        / IPv6(src="fe80::bad", dst=ALL_NODES, hlim=255)
        / ICMPv6ND_RA(routerlifetime=600)
        / ICMPv6NDOptSrcLLAddr(lladdr=PEER_MAC)
        / Raw(token)
    )


def incoming_vlan_frame(mac, lease, token):
    tagged = Dot1Q(vlan=7) / IP(src=PEER, dst=lease.address) / UDP(dport=9) / Raw(token)
    return Ether(src=PEER_MAC, dst=mac) / tagged


def incoming_spanning_tree_frame(_mac, _lease, token):
    return Dot3(src=PEER_MAC, dst=SPANNING_TREE_MAC) / LLC() / STP() / Raw(token)


ON_A_VM = (
    Attack("an IPv6 router advertisement", "ipv6", reaching_vm_by(incoming_router_advertisement)),
    Attack("a VLAN tag", "vlan", reaching_vm_by(incoming_vlan_frame)),
    Attack("spanning tree", "llc", reaching_vm_by(incoming_spanning_tree_frame)),
)


# --- what frames are made of --------------------------------------------------------


def udp(lease, destination, payload):
    return IP(src=lease.address, dst=destination) / UDP(sport=40000, dport=9) / Raw(payload)


def unique():
    """Bytes that no other frame holds."""
    return f"frame-{os.getpid()}-{next(_numbers)}-".encode()


_numbers = itertools.count()
