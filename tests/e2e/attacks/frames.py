"""The frames of attacks. Each function is given the VM's MAC, its lease, and a token that the
frame must hold, or returns a function that is."""

from scapy.layers.dhcp6 import DHCP6_Advertise, DHCP6OptServerId
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_RA,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, LLC, STP, Dot1AD, Dot1Q, Dot3, Ether
from scapy.packet import Packet, Raw

from lab.network import GATEWAY, GATEWAY_MAC, INTERNET, PEER, PEER_MAC

BROADCAST_MAC = "ff:ff:ff:ff:ff:ff"
ALL_NODES, ALL_NODES_MAC = "ff02::1", "33:33:00:00:00:01"
SPANNING_TREE_MAC = "01:80:c2:00:00:00"
MDNS, MDNS_MAC = "224.0.0.251", "01:00:5e:00:00:fb"
NOBODY, NOBODYS_MAC = "192.168.64.77", "02:00:00:00:77:77"
LINK_LOCAL = "fe80::bad"


# --- from the VM --------------------------------------------------------------------


def arp(sender, operation=1, target=GATEWAY, to=BROADCAST_MAC, padding=b"", **fields):
    """An ARP message that says to come from `sender`; the token is its padding."""

    def frame(mac, lease, token):
        named = {"psrc": sender or lease.address, "pdst": target, "op": operation}
        message = ARP(**{"hwsrc": mac, "hwdst": "00:00:00:00:00:00"} | named | fields)
        return Ether(src=mac, dst=to) / message / Raw(token + padding)

    return frame


def ip(*payload, to=GATEWAY, to_mac=GATEWAY_MAC, fill=0, **fields):
    """A packet from the VM's address, or from whatever the fields of the header say. After
    the payload's headers follow the token and what fills it up to `fill` bytes."""

    def frame(mac, lease, token):
        packet = Ether(src=mac, dst=to_mac) / IP(**{"src": lease.address, "dst": to} | fields)
        for layer in payload:
            packet /= layer
        return packet / Raw(token.ljust(fill, b"."))

    return frame


def udp(**fields):
    """The header of a datagram to a port where nobody listens."""
    return UDP(**{"sport": 40000, "dport": 9} | fields)


def tcp():
    """The header of a segment that opens a connection."""
    return TCP(sport=40000, dport=9, flags="S")


def ip_from_mac(source_mac, to=INTERNET):
    """A packet with the VM's address, but the MAC of somebody else."""
    return lambda _mac, lease, token: ip(udp(), to=to)(source_mac, lease, token)


def tagged(*tags, to=PEER, to_mac=PEER_MAC):
    """A datagram behind VLAN tags."""

    def frame(mac, lease, token):
        packet = Ether(src=mac, dst=to_mac)
        for tag in tags:
            packet /= tag
        return packet / IP(src=lease.address, dst=to) / udp() / Raw(token)

    return frame


VLAN, NO_VLAN = Dot1Q(vlan=7), Dot1Q(vlan=0, prio=5)
QINQ = Dot1AD(vlan=7), Dot1Q(vlan=7)


def typed(ethertype, payload=b"", to=PEER_MAC):
    """A frame of an EtherType, with any payload."""
    return lambda mac, _lease, token: Ether(src=mac, dst=to, type=ethertype) / Raw(payload + token)


def spanning_tree(mac, _lease, token):
    return Dot3(src=mac, dst=SPANNING_TREE_MAC) / LLC() / STP() / Raw(token)


def ipv6(*payload, to=ALL_NODES_MAC, destination=ALL_NODES):
    """An IPv6 packet to all nodes; a layer that names its sender is made from the MAC."""

    def frame(mac, _lease, token):
        packet = Ether(src=mac, dst=to) / IPv6(src=LINK_LOCAL, dst=destination, hlim=255)
        for layer in payload:
            packet /= layer if isinstance(layer, Packet) else layer(mac)
        return packet / Raw(token)

    return frame


ROUTER_ADVERTISEMENT = (
    ICMPv6ND_RA(routerlifetime=600),
    lambda mac: ICMPv6NDOptSrcLLAddr(lladdr=mac),
)
NEIGHBOUR_ADVERTISEMENT = (
    ICMPv6ND_NA(R=1, S=0, O=1, tgt="fe80::1"),
    lambda mac: ICMPv6NDOptDstLLAddr(lladdr=mac),
)
DHCPV6_ADVERTISE = (UDP(sport=547, dport=546), DHCP6_Advertise(), DHCP6OptServerId())
IN_IPV4 = IPv6(src=LINK_LOCAL, dst=ALL_NODES) / ICMPv6ND_RA(routerlifetime=600)


def redirect(mac, lease, token):
    """To the other VM, as the gateway: that the internet were behind this VM."""
    return (
        Ether(src=mac, dst=PEER_MAC)
        / IP(src=GATEWAY, dst=PEER)
        / ICMP(type=5, code=1, gw=lease.address)
        / IP(src=PEER, dst=INTERNET)
        # The kernel looks for a socket that has sent anything but this.
        / ICMP(type="echo-reply")
        / Raw(token)
    )


def whisper(mac, lease, token):
    """An ARP request that has part of the token where nothing is said: in the target's MAC."""
    request = arp(None, hwdst=":".join(f"{byte:02x}" for byte in token[:6]))
    return request(mac, lease, b"")


def about(source, destination, *payload, **fields):
    """An ICMP error about somebody's packet."""
    error = ICMP(**{"type": 3, "code": 3} | fields) / IP(src=source, dst=destination)
    for layer in payload or [UDP(sport=40000, dport=9)]:
        error /= layer
    return error


# --- to the VM ----------------------------------------------------------------------


def from_peer(frame, mac=PEER_MAC):
    """A frame made for the VM that comes from the other VM instead."""
    return lambda _mac, lease, token: frame(mac, lease, token)


def to_vm(*payload, source=PEER, source_mac=PEER_MAC, fill=0, **fields):
    """A packet to the VM, from another VM if the fields do not say otherwise."""

    def frame(mac, lease, token):
        named = {"src": source or lease.address, "to": lease.address, "to_mac": mac} | fields
        return ip(*payload, fill=fill, **named)(source_mac, lease, token)

    return frame


def to_vm_tagged(*tags):
    """A datagram to the VM behind VLAN tags."""
    return lambda mac, lease, token: tagged(*tags, to=lease.address, to_mac=mac)(
        PEER_MAC, lease, token
    )


def from_vm_to_all(mac, lease, token):
    """As the VM itself, so that the switch looks for it elsewhere."""
    return ip(udp(), to_mac=BROADCAST_MAC)(mac, lease, token)


def arp_to_vm(sender, operation=2, sender_mac=PEER_MAC):
    """An ARP message to the VM, from the other VM, that says to come from `sender`."""

    def frame(mac, lease, token):
        message = arp(sender, operation, target=lease.address, to=mac, hwdst=mac)
        return message(sender_mac, lease, token)

    return frame


def redirect_to_vm(mac, lease, token):
    """As the gateway: that the internet were behind the other VM."""
    return (
        Ether(src=PEER_MAC, dst=mac)
        / IP(src=GATEWAY, dst=lease.address)
        / ICMP(type=5, code=1, gw=PEER)
        / IP(src=lease.address, dst=INTERNET)
        / ICMP()
        / Raw(token)
    )
