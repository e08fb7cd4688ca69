"""All attacks, one a line: what they are, how softnet counts them, and how they are made."""

from scapy.layers.inet import (
    ICMP,
    IPOption_LSRR,
    IPOption_Router_Alert,
    IPOption_RR,
    IPOption_SSRR,
    IPOption_Timestamp,
)

from attacks import INBOUND, Attack, dhcp, frames, tools
from attacks.dhcp import forged, reply, request, starvation
from attacks.frames import (
    BROADCAST_MAC,
    MDNS,
    MDNS_MAC,
    NOBODY,
    NOBODYS_MAC,
    arp,
    arp_to_vm,
    from_peer,
    ip,
    ipv6,
    tagged,
    tcp,
    to_vm,
    typed,
    udp,
)
from attacks.tools import arp_spoofing, poisoned, reaching, spoofed_source
from attacks.victims import (
    reaches_gateway,
    reaches_internet,
    reaches_peer,
    reaches_vm,
    reaches_vm_from_host,
)
from lab.network import GATEWAY, GATEWAY_MAC, HOST_OUTSIDE, INTERNET, PEER, PEER_MAC

REQUEST, REPLY, REVERSE_REQUEST = 1, 2, 3
ROUTE = ["10.9.8.7"]
PROTOCOLS = {
    "IGMP": 2,
    "IPIP": 4,
    "GRE": 47,
    "OSPF": 89,
    "EtherIP": 97,
    "PIM": 103,
    "VRRP": 112,
    "L2TP": 115,
    "UDP-Lite": 136,
    "MPLS": 137,
}

# By a VM that holds a lease.
BY_A_VM = (
    # ARP
    Attack("ARP spoofing of the gateway", "arp-sender-address", arp_spoofing(PEER, GATEWAY), in_guest=True),
    Attack("ARP spoofing of another VM", "arp-sender-address", arp_spoofing(GATEWAY, PEER), in_guest=True),
    Attack("taking over another VM's address", "arp-sender-address", tools.address_takeover, in_guest=True),
    Attack("ARP request as the gateway", "arp-sender-address", poisoned(PEER, GATEWAY, REQUEST)),
    Attack("ARP request as another VM", "arp-sender-address", poisoned(GATEWAY, PEER, REQUEST)),
    Attack("ARP reply to all as the gateway", "arp-sender-address", poisoned(PEER, GATEWAY, REPLY, BROADCAST_MAC)),
    Attack("ARP sender unlike the source", "arp-sender-mac", reaches_peer(arp(NOBODY, hwsrc=NOBODYS_MAC))),
    Attack("ARP probe for another's address", "arp-probe", reaches_peer(arp("0.0.0.0", target=PEER))),
    Attack("ARP with wrong lengths", "arp-malformed", reaches_peer(arp(None, hwlen=16, plen=16))),
    Attack("ARP with a letter behind it", None, reaches_peer(arp(None, target=NOBODY, padding=b"." * 200))),
    Attack("ARP with a note in its padding", None, reaches_peer(arp(None, target=NOBODY))),
    Attack("ARP with a whisper in its target", None, tools.whispering),
    Attack("a flood of ARP for the gateway", "arp-rate", tools.arp_flood(GATEWAY)),
    Attack("a flood of ARP for others", "arp-rate", tools.arp_flood(NOBODY)),
    Attack("reverse ARP", "arp-operation", reaches_peer(arp(None, REVERSE_REQUEST))),
    Attack("ARP to another VM alone", "destination-mac", reaches_peer(arp(None, REPLY, to=PEER_MAC))),
    # Ethernet
    Attack("another MAC in mid-session", "source-mac", tools.changed_mac, in_guest=True),
    Attack("a stolen source MAC", "source-mac", tools.stolen_mac, in_guest=True),
    Attack("another VM's MAC, an innocent IP", "destination-mac", reaches_peer(ip(udp(), to=INTERNET, to_mac=PEER_MAC))),
    Attack("all stations' MAC, an innocent IP", "destination-group", reaches_peer(ip(udp(), to=INTERNET, to_mac=BROADCAST_MAC))),
    Attack("a VLAN tag", "vlan", reaches_peer(tagged(frames.VLAN)), in_guest=True),
    Attack("VLAN 0", "vlan", reaches_gateway(tagged(frames.NO_VLAN, to=GATEWAY, to_mac=GATEWAY_MAC))),
    Attack("two VLAN tags", "vlan", reaches_peer(tagged(*frames.QINQ)), in_guest=True),
    Attack("two VLAN tags of old", "vlan", reaches_peer(typed(0x9100, b"\x00\x07\x81\x00\x00\x07\x08\x00"))),
    Attack("spanning tree", "llc", reaches_peer(frames.spanning_tree), in_guest=True),
    Attack("802.1X", "eapol", reaches_peer(typed(0x888E, b"\x01\x01\x00\x00"))),
    Attack("LLDP", "ethertype", reaches_peer(typed(0x88CC))),
    # IPv6
    Attack("becoming a router by IPv6", "ipv6", tools.router_advertisement, in_guest=True),
    Attack("an IPv6 router advertisement", "ipv6", reaches_peer(ipv6(*frames.ROUTER_ADVERTISEMENT))),
    Attack("an IPv6 neighbour advertisement", "ipv6", reaches_peer(ipv6(*frames.NEIGHBOUR_ADVERTISEMENT))),
    Attack("a DHCPv6 server", "ipv6", reaches_peer(ipv6(*frames.DHCPV6_ADVERTISE, to=PEER_MAC, destination="fe80::50"))),
    Attack("IPv6 in IPv4", "ipv6-in-ipv4", reaches_gateway(ip(frames.IN_IPV4, proto=41))),
    # Sources
    Attack("a spoofed source address", "source-address", spoofed_source(NOBODY), in_guest=True),
    Attack("another VM's address as the source", "source-address", spoofed_source(PEER), in_guest=True),
    Attack("the gateway as the source", "source-address", reaches_gateway(ip(udp(), src=GATEWAY))),
    Attack("an innocent third as the source", "source-address", reaches_gateway(ip(tcp(), src=INTERNET))),
    # Destinations
    Attack("reaching 10.9.8.7", "destination-private", reaching("10.9.8.7"), in_guest=True),
    Attack("reaching 172.16.5.5", "destination-private", reaching("172.16.5.5"), in_guest=True),
    Attack("reaching 169.254.169.254", "destination-link-local", reaching("169.254.169.254"), in_guest=True),
    Attack("reaching another VM", "isolation", reaching(PEER), in_guest=True),
    Attack("reaching 100.64.0.1", "destination-private", reaches_gateway(ip(udp(), to="100.64.0.1"))),
    Attack("reaching 127.0.0.1", "destination-local", reaches_gateway(ip(udp(), to="127.0.0.1"))),
    Attack("reaching 198.18.0.1", "destination-special", reaches_gateway(ip(udp(), to="198.18.0.1"))),
    Attack("reaching 240.0.0.1", "destination-reserved", reaches_gateway(ip(udp(), to="240.0.0.1"))),
    Attack("multicast", "destination-multicast", reaches_peer(ip(udp(dport=5353), to=MDNS, to_mac=MDNS_MAC))),
    Attack("broadcast", "destination-broadcast", reaches_peer(ip(udp(), to="255.255.255.255", to_mac=BROADCAST_MAC))),
    Attack("broadcast on its network", "isolation", reaches_peer(ip(udp(), to="192.168.64.255", to_mac=BROADCAST_MAC))),
    # Fragments
    Attack("a tiny first fragment", "fragment", reaches_gateway(ip(proto=6, flags="MF", fill=16))),
    Attack("a fragment over the header", "fragment", reaches_gateway(ip(proto=6, frag=1, fill=24))),
    Attack("a fragment that ends unevenly", "fragment", reaches_gateway(ip(proto=17, flags="MF", frag=100, fill=21))),
    Attack("a fragment beyond the end", "fragment", reaches_gateway(ip(proto=1, frag=8189, fill=40))),
    Attack("DHCP in fragments", "fragment", reaches_gateway(ip(udp(sport=68, dport=67, len=300), flags="MF", fill=32))),
    # Options and lies
    Attack("a loose source route", "ipv4-options", reaches_gateway(ip(udp(), options=[IPOption_LSRR(routers=ROUTE)]))),
    Attack("a strict source route", "ipv4-options", reaches_gateway(ip(udp(), options=[IPOption_SSRR(routers=ROUTE)]))),
    Attack("a recorded route", "ipv4-options", reaches_gateway(ip(udp(), options=[IPOption_RR(routers=["0.0.0.0"])]))),
    Attack("timestamps", "ipv4-options", reaches_gateway(ip(udp(), options=[IPOption_Timestamp()]))),
    Attack("a packet longer than its frame", "ipv4-malformed", reaches_gateway(ip(udp(), len=400))),
    Attack("a packet shorter than its frame", None, reaches_gateway(ip(udp(len=8), len=28, fill=200))),
    Attack("router alert", "ipv4-options", reaches_gateway(ip(udp(), options=[IPOption_Router_Alert()]))),
    Attack("a header of 16 bytes", "ipv4-malformed", reaches_gateway(ip(udp(), ihl=4))),
    Attack("version 5", "ipv4-malformed", reaches_gateway(ip(udp(), version=5))),
    Attack("a datagram longer than its packet", "transport-malformed", reaches_gateway(ip(udp(len=400)))),
    Attack("a datagram shorter than its header", "transport-malformed", reaches_gateway(ip(udp(len=7)))),
    Attack("DHCP shorter than its packet", "transport-malformed", reaches_gateway(ip(udp(sport=68, dport=67, len=9)))),
    Attack("half a TCP header", "transport-malformed", reaches_gateway(ip(proto=6))),
    # ICMP
    Attack("becoming a router by ICMP", "icmp-redirect", tools.redirect),
    Attack("narrowing the host's paths", "icmp-quote", tools.narrowed_path),
    Attack("ending the host's UDP sockets", "icmp-quote", tools.ended_sockets),
    Attack("an error about nothing", "icmp-quote", reaches_gateway(ip(ICMP(type=11)))),
    Attack("an MTU of 20 bytes", "icmp-mtu", reaches_gateway(ip(ICMP(type=3, code=4, nexthopmtu=20)))),
    Attack("a router's advertisement by ICMP", "icmp-type", reaches_gateway(ip(ICMP(type=9)))),
    Attack("an ICMP source quench", "icmp-type", reaches_gateway(ip(ICMP(type=4)))),
    # Tunnels and routing
    *(
        Attack(f"{name} to the host", "gateway-protocol", reaches_gateway(ip(proto=number, fill=40)))
        for name, number in PROTOCOLS.items()
    ),
    *(
        Attack(f"{name} to the host outside", "gateway-protocol", reaches_gateway(ip(to=HOST_OUTSIDE, proto=PROTOCOLS[name], fill=40)))
        for name in ("IPIP", "GRE", "OSPF")
    ),
    # DHCP
    Attack("a DHCP server of its own", "dhcp-role", reaches_peer(dhcp.offer_of_its_own)),
    Attack("udhcpd in the VM", "dhcp-role", dhcp.server_in_the_vm, INBOUND),
    Attack("emptying the pool by MACs", "dhcp-hardware-address", starvation(dhcp.by_hardware_address)),
    Attack("emptying the pool by identifiers", None, starvation(dhcp.by_client_identifier)),
    Attack("a stolen client identifier", None, dhcp.stolen_identifier),
    Attack("a lease of its own choice", "dhcp-client-address", dhcp.chosen_lease),
    Attack("RELEASE as another MAC", "dhcp-hardware-address", forged("release", chaddr=PEER_MAC)),
    Attack("RELEASE as another client", "dhcp-release", forged("release")),
    Attack("RELEASE from another's address", "dhcp-release", forged("release", source="victim")),
    Attack("DECLINE as another MAC", "dhcp-hardware-address", forged("decline", chaddr=PEER_MAC)),
    Attack("DECLINE as another client", "dhcp-decline", forged("decline")),
    Attack("DHCP of a foreign server", "dhcp-server-identifier", reaches_peer(request("request", named={"server_id": PEER}))),
    Attack("DHCP through a relay", "dhcp-relay", reaches_peer(request("discover", giaddr=PEER))),
    Attack("DHCP with a relay's information", "dhcp-relay", reaches_peer(request("discover", ("relay_agent_information", b"\1\1x")))),
    Attack("DHCP renewal of another's address", "dhcp-client-address", reaches_gateway(request("request", ciaddr=PEER))),
    Attack("DHCP from another's address", "dhcp-source", reaches_gateway(request("request", source=PEER, ciaddr="own"))),
    Attack("DHCP to another of the host's addresses", "dhcp-destination", reaches_gateway(request("inform", source="own", ciaddr="own", to=(GATEWAY_MAC, dhcp.HOSTS_OTHER_ADDRESS)))),
    Attack("DHCP lease query", "dhcp-message-type", reaches_gateway(request("lease_query"))),
    Attack("DHCP with hidden options", "dhcp-malformed", reaches_gateway(request("discover", ("dhcp-option-overload", 2)))),
    # Last, since it leaves nothing in the bucket for who comes next.
    Attack("a flood of connections", "connection-rate", tools.connection_flood),
)

# By a VM that nobody has granted an address, and that has chosen one.
BEFORE_A_LEASE = (
    Attack("ARP spoofing of the gateway", "arp-sender-address", arp_spoofing(PEER, GATEWAY)),
    Attack("ARP spoofing of another VM", "arp-sender-address", arp_spoofing(GATEWAY, PEER)),
    Attack("ARP request as the gateway", "arp-sender-address", poisoned(PEER, GATEWAY, REQUEST)),
    Attack("ARP request as another VM", "arp-sender-address", poisoned(GATEWAY, PEER, REQUEST)),
    Attack("ARP with its own choice", "arp-sender-address", reaches_peer(arp(None))),
    Attack("ARP probe for another's address", "arp-probe", reaches_peer(arp("0.0.0.0", target=PEER))),
    Attack("an address of its own choice", "no-lease", reaches_internet(ip(udp(), to=INTERNET))),
    Attack("RELEASE as another client", "dhcp-release", forged("release")),
)

# By others, on a VM that holds a lease. Its card must be one that can be watched.
ON_A_VM = (
    # ARP
    Attack("ARP spoofing", "arp-gateway", tools.arp_spoofing_of_vm, INBOUND),
    Attack("ARP request as the gateway", "arp-gateway", tools.vm_poisoned, INBOUND),
    Attack("ARP claiming the VM's address", "arp-sender-address", reaches_vm(arp_to_vm(None)), INBOUND),
    Attack("ARP of another VM", "isolation", reaches_vm(arp_to_vm(PEER)), INBOUND),
    # Ethernet
    Attack("a frame for somebody else", "destination-mac", reaches_vm(to_vm(udp(), to_mac=NOBODYS_MAC)), INBOUND),
    Attack("the VM's MAC as the source", "source-mac", reaches_vm(frames.from_vm_to_all), INBOUND),
    Attack("a VLAN tag", "vlan", reaches_vm(frames.to_vm_tagged(frames.VLAN)), INBOUND),
    Attack("VLAN 0", "vlan", reaches_vm(frames.to_vm_tagged(frames.NO_VLAN)), INBOUND),
    Attack("two VLAN tags", "vlan", reaches_vm(frames.to_vm_tagged(*frames.QINQ)), INBOUND),
    Attack("spanning tree", "llc", reaches_vm(from_peer(frames.spanning_tree)), INBOUND),
    Attack("802.1X", "eapol", reaches_vm(from_peer(typed(0x888E, to=BROADCAST_MAC))), INBOUND),
    Attack("LLDP", "ethertype", reaches_vm(from_peer(typed(0x88CC, to=BROADCAST_MAC))), INBOUND),
    # IPv6
    Attack("an IPv6 router advertisement", "ipv6", reaches_vm(from_peer(ipv6(*frames.ROUTER_ADVERTISEMENT))), INBOUND),
    Attack("an IPv6 neighbour advertisement", "ipv6", reaches_vm(from_peer(ipv6(*frames.NEIGHBOUR_ADVERTISEMENT))), INBOUND),
    Attack("a DHCPv6 server", "ipv6", reaches_vm(from_peer(ipv6(*frames.DHCPV6_ADVERTISE))), INBOUND),
    Attack("IPv6 in IPv4", "ipv6-in-ipv4", reaches_vm(to_vm(frames.IN_IPV4, proto=41)), INBOUND),
    # IPv4
    Attack("another VM's datagram", "isolation", reaches_vm(to_vm(udp())), INBOUND),
    Attack("another VM's, as if from the internet", "isolation", reaches_vm(to_vm(udp(), source=INTERNET)), INBOUND),
    Attack("a neighbour's address by the gateway", "isolation", reaches_vm_from_host(to_vm(udp(), source_mac=GATEWAY_MAC)), INBOUND),
    Attack("the VM's own address as the source", "source-address", reaches_vm(to_vm(tcp(), source=None)), INBOUND),
    Attack("an inner address of the VM", "destination-address", reaches_vm_from_host(to_vm(udp(), source=GATEWAY, source_mac=GATEWAY_MAC, to="127.0.0.1")), INBOUND),
    Attack("multicast", "destination-group", reaches_vm(to_vm(udp(dport=5353), to=MDNS, to_mac=MDNS_MAC)), INBOUND),
    Attack("a unicast address for all", "destination-group", reaches_vm(to_vm(udp(), to_mac=BROADCAST_MAC)), INBOUND),
    Attack("a tiny first fragment", "fragment", reaches_vm(to_vm(proto=6, flags="MF", fill=16)), INBOUND),
    Attack("a fragment over the header", "fragment", reaches_vm(to_vm(proto=6, frag=1, fill=24)), INBOUND),
    Attack("a fragment that ends unevenly", "fragment", reaches_vm(to_vm(proto=17, flags="MF", frag=100, fill=21)), INBOUND),
    Attack("a fragment beyond the end", "fragment", reaches_vm(to_vm(proto=1, frag=8189, fill=40)), INBOUND),
    Attack("a source route", "ipv4-options", reaches_vm(to_vm(udp(), options=[IPOption_LSRR(routers=ROUTE)])), INBOUND),
    Attack("a packet longer than its frame", "ipv4-malformed", reaches_vm(to_vm(udp(), len=400)), INBOUND),
    Attack("a datagram longer than its packet", "transport-malformed", reaches_vm(to_vm(udp(len=400))), INBOUND),
    Attack("an ICMP redirect", "icmp-redirect", reaches_vm(frames.redirect_to_vm), INBOUND),
    Attack("an error about another's packet", "icmp-quote", reaches_vm_from_host(to_vm(frames.about(PEER, INTERNET), source=INTERNET, source_mac=GATEWAY_MAC)), INBOUND),
    Attack("a question for the time", "icmp-type", reaches_vm_from_host(to_vm(ICMP(type=13), source=GATEWAY, source_mac=GATEWAY_MAC)), INBOUND),
    # DHCP
    Attack("udhcpd outside", "dhcp-rogue-server", dhcp.server_outside, INBOUND),
    Attack("ACK by another VM", "dhcp-rogue-server", reaches_vm(reply("ack", source=PEER, mac=PEER_MAC)), INBOUND),
    Attack("ACK by another VM, as the gateway", "dhcp-rogue-server", reaches_vm(reply("ack", mac=PEER_MAC)), INBOUND),
    Attack("NAK by another VM, as the gateway", "dhcp-rogue-server", reaches_vm(reply("nak", mac=PEER_MAC)), INBOUND),
    Attack("ACK of another server", "dhcp-server-identifier", reaches_vm_from_host(reply("ack", ("server_id", PEER))), INBOUND),
    Attack("ACK for another client", "dhcp-hardware-address", reaches_vm_from_host(reply("ack", chaddr=NOBODYS_MAC)), INBOUND),
    Attack("ACK that grants the gateway's address", "dhcp-granted-address", reaches_vm_from_host(reply("ack", granted=GATEWAY)), INBOUND),
    Attack("FORCERENEW", "dhcp-message-type", reaches_vm_from_host(reply("force_renew")), INBOUND),
    Attack("ACK that nobody asked for", "dhcp-transaction", reaches_vm_from_host(reply("ack")), INBOUND),
    Attack("NAK that nobody asked for", "dhcp-transaction", reaches_vm_from_host(reply("nak")), INBOUND),
    Attack("what a neighbour asks the server", "dhcp-role", reaches_vm(dhcp.neighbours_request), INBOUND),
)
