//! Frames for the VM, and their outcome.

use DropReason::*;
use softnet::filter::DropReason;
use softnet::wire::Mac;

use crate::frames::*;
use crate::{check, row};

#[test]
fn frames_for_the_vm_have_the_outcome_of_the_table() {
    let internet = || inbound(tcp(INTERNET, VM_IP, 50000));
    let from_host = || inbound(tcp(GATEWAY_IP, VM_IP, 22));
    let from_vm = || inbound(tcp(OTHER_IP, VM_IP, 22)).from(OTHER);
    let group = Mac([0x01, 0x00, 0x5e, 0, 0, 0xfb]);
    let mdns = || inbound(udp(GATEWAY_IP, 5353, "224.0.0.251", 5353, &[])).to(group);
    let fragment = |protocol, offset, more, len| {
        inbound(ipv4(protocol, INTERNET, VM_IP, &vec![0; len]).fragment(offset, more))
    };
    #[rustfmt::skip]
    let rows = vec![
        // --- the frame ---
        row("TCP from the internet",             internet(),                            LEASED, "", "", Ok(())),
        row("TCP from the host",                 from_host(),                           LEASED, "", "", Ok(())),
        row("an empty frame",                    Frame(vec![]),                         LEASED, "", "", Err(Runt)),
        row("13 bytes",                          internet().resize(13),                 LEASED, "", "", Err(Runt)),
        row("longer than the interface takes",   internet().resize(1515),               LEASED, "", "", Err(Oversize)),
        row("the VM's own MAC as source",        from_host().from(VM),                  LEASED, "", "", Err(SourceMac)),
        row("everybody's MAC as source",         from_host().from(ALL),                 OPEN,   "", "", Err(SourceMac)),
        row("for another VM",                    internet().to(OTHER),                  LEASED, "", "", Err(DestinationMac)),
        row("for another VM, no isolation",      internet().to(OTHER),                  OPEN,   "", "", Err(DestinationMac)),
        row("IPv6",                              ethernet(VM, GATEWAY, 0x86dd, &[0x60; 60]), LEASED, "", "", Err(Ipv6)),
        row("a router advertisement",            ethernet(Mac([0x33, 0x33, 0, 0, 0, 1]), GATEWAY, 0x86dd, &[0x60; 60]), LEASED, "", "", Err(Ipv6)),
        row("a VLAN tag",                        ethernet(VM, GATEWAY, 0x8100, &[0; 50]), LEASED, "", "", Err(Vlan)),
        row("a spanning tree frame",             ethernet(Mac([1, 0x80, 0xc2, 0, 0, 0]), GATEWAY, 38, &[0x42; 46]), LEASED, "", "", Err(Llc)),
        row("EAPOL",                             ethernet(VM, GATEWAY, 0x888e, &[0; 46]), LEASED, "", "", Err(Eapol)),
        row("LLDP",                              ethernet(Mac([1, 0x80, 0xc2, 0, 0, 0xe]), GATEWAY, 0x88cc, &[0; 46]), LEASED, "", "", Err(EtherType)),
        // --- ARP ---
        row("the gateway asks",                  arp(1, (GATEWAY, GATEWAY_IP), VM_IP),  LEASED, "", "", Ok(())),
        row("the gateway asks before the lease", arp(1, (GATEWAY, GATEWAY_IP), VM_IP),  FRESH,  "", "", Ok(())),
        row("the gateway answers",               arp(2, (GATEWAY, GATEWAY_IP), VM_IP).to(VM), LEASED, "", "", Ok(())),
        row("the gateway probes",                arp(1, (GATEWAY, "0.0.0.0"), VM_IP),   LEASED, "", "", Ok(())),
        row("another claims the gateway",        arp(2, (OTHER, GATEWAY_IP), VM_IP),    LEASED, "", "", Err(ArpGateway)),
        row("the same without isolation",        arp(2, (OTHER, GATEWAY_IP), VM_IP),    OPEN,   "", "", Err(ArpGateway)),
        row("the same when it was pinned",       arp(2, (OTHER, GATEWAY_IP), VM_IP),    PINNED, "", "", Err(ArpGateway)),
        row("claimed before it is known",        arp(2, (GATEWAY, GATEWAY_IP), VM_IP),  UNKNOWN, "", "", Err(ArpGateway)),
        row("another claims the VM",             arp(2, (OTHER, VM_IP), GATEWAY_IP),    OPEN,   "", "", Err(ArpSenderAddress)),
        row("the gateway claims the VM",         arp(1, (GATEWAY, VM_IP), VM_IP),       LEASED, "", "", Err(ArpSenderAddress)),
        row("the message names another sender",  arp(2, (GATEWAY, GATEWAY_IP), VM_IP).from(OTHER), OPEN, "", "", Err(ArpSenderMac)),
        row("another VM asks",                   arp(1, (OTHER, OTHER_IP), VM_IP),      LEASED, "", "", Err(Isolation)),
        row("another VM asks, no isolation",     arp(1, (OTHER, OTHER_IP), VM_IP),      OPEN,   "", "", Ok(())),
        row("another VM probes, no isolation",   arp(1, (OTHER, "0.0.0.0"), VM_IP),     OPEN,   "", "", Ok(())),
        row("to a multicast MAC",                arp(1, (GATEWAY, GATEWAY_IP), VM_IP).to(group), LEASED, "", "", Err(DestinationGroup)),
        row("addresses of other lengths",        arp(1, (GATEWAY, GATEWAY_IP), VM_IP).set(18, &[8]), LEASED, "", "", Err(ArpMalformed)),
        row("a reverse request",                 arp(3, (GATEWAY, GATEWAY_IP), VM_IP),  LEASED, "", "", Err(ArpOperation)),
        // --- the IPv4 header and what it carries ---
        row("longer than the frame",             internet().set(16, &[0, 41]),          LEASED, "", "", Err(Ipv4Malformed)),
        row("a source route",                    internet().options(&[131, 3, 4, 0]),   LEASED, "", "", Err(Ipv4Options)),
        row("IPv6 in IPv4",                      inbound(ipv4(41, INTERNET, VM_IP, &[0x60; 40])), LEASED, "", "", Err(Ipv6InIpv4)),
        row("a redirect from the gateway",       inbound(icmp(GATEWAY_IP, VM_IP, 5)),   LEASED, "", "", Err(IcmpRedirect)),
        row("the answer to a ping",              inbound(icmp(INTERNET, VM_IP, 0)),     LEASED, "", "", Ok(())),
        row("packet too big",                    inbound(icmp_error(INTERNET, VM_IP, [3, 4], 1400, &quote(VM_IP, INTERNET))), LEASED, "", "", Ok(())),
        row("UDP of a wrong length",             inbound(udp(INTERNET, 53, VM_IP, 5000, &[0; 8])).set(38, &[0, 17]), LEASED, "", "", Err(TransportMalformed)),
        row("a fragment",                        fragment(17, 185, true, 1480),         LEASED, "", "", Ok(())),
        row("a fragment that rewrites",          fragment(6, 1, false, 64),             LEASED, "", "", Err(Fragment)),
        // --- from whom and to whom ---
        row("before the lease",                  internet(),                            FRESH,  "", "", Err(NoLease)),
        row("with an offer",                     internet(),                            OFFERED, "", "", Err(NoLease)),
        row("after the lease",                   internet(),                            EXPIRED, "", "", Err(LeaseExpired)),
        row("from the VM's own address",         inbound(tcp(VM_IP, VM_IP, 139)),       LEASED, "", "", Err(SourceAddress)),
        row("to another address by its MAC",     inbound(tcp(INTERNET, "172.17.0.2", 80)), LEASED, "", "", Err(DestinationAddress)),
        row("to the VM's loopback",              inbound(tcp(GATEWAY_IP, "127.0.0.1", 80)), LEASED, "", "", Err(DestinationAddress)),
        row("from another VM",                   from_vm(),                             LEASED, "", "", Err(Isolation)),
        row("from another VM, allowed or not",   from_vm(),                             LEASED, "192.168.64.0/24", "", Err(Isolation)),
        row("from another VM, no isolation",     from_vm(),                             OPEN,   "", "", Ok(())),
        row("a neighbour by the gateway's MAC",  from_vm().from(GATEWAY),               LEASED, "", "", Err(Isolation)),
        row("the same, network learned",         from_vm().from(GATEWAY),               PINNED, "", "", Err(Isolation)),
        row("the internet by a neighbour's MAC", internet().from(OTHER),                LEASED, "", "", Err(Isolation)),
        row("the host by a neighbour's MAC",     from_host().from(OTHER),               LEASED, "", "", Err(Isolation)),
        row("the same, gateway pinned",          from_host().from(OTHER),               PINNED, "", "", Err(Isolation)),
        row("by the pinned gateway",             from_host(),                           PINNED, "", "", Ok(())),
        row("a private network behind the host", inbound(tcp("10.1.2.3", VM_IP, 22)),   LEASED, "", "", Ok(())),
        row("a blocked address answers",         internet(),                            LEASED, "", "1.2.3.0/24", Ok(())),
        // --- groups ---
        row("to everybody",                      inbound(udp(GATEWAY_IP, 9, "255.255.255.255", 9, &[])).to(ALL), LEASED, "", "", Ok(())),
        row("to the whole network",              inbound(udp(GATEWAY_IP, 9, "192.168.64.255", 9, &[])).to(ALL), LEASED, "", "", Ok(())),
        row("to the whole network, learned",     inbound(udp(GATEWAY_IP, 9, "192.168.64.255", 9, &[])).to(ALL), PINNED, "", "", Ok(())),
        row("to everybody from another VM",      inbound(udp(OTHER_IP, 9, "255.255.255.255", 9, &[])).to(ALL).from(OTHER), LEASED, "", "", Err(Isolation)),
        row("to the VM by everybody's MAC",      internet().to(ALL),                    LEASED, "", "", Err(DestinationGroup)),
        row("to another by everybody's MAC",     inbound(tcp(INTERNET, OTHER_IP, 80)).to(ALL), LEASED, "", "", Err(DestinationGroup)),
        row("mDNS",                              mdns(),                                LEASED, "", "", Err(DestinationGroup)),
        row("mDNS, allowed",                     mdns(),                                LEASED, "224.0.0.251/32", "", Ok(())),
        row("mDNS, allowed, from another VM",    mdns().from(OTHER),                    LEASED, "224.0.0.251/32", "", Err(Isolation)),
        row("mDNS, allowed, by the VM's MAC",    mdns().to(VM),                         LEASED, "224.0.0.251/32", "", Err(DestinationGroup)),
        row("mDNS, blocked",                     mdns(),                                LEASED, "224.0.0.0/4", "224.0.0.251/32", Err(DestinationGroup)),
        // --- host-only ---
        row("host-only: the host",               from_host(),                           HOST,   "", "", Ok(())),
        row("host-only: the internet",           internet(),                            HOST,   "0.0.0.0/0", "", Err(HostOnly)),
        row("host-only: another VM",             from_vm(),                             HOST,   "0.0.0.0/0", "", Err(HostOnly)),
        // --- DHCP ---
        row("OFFER",                             Dhcp::reply(2).answer(),               DISCOVERS,  "", "", Ok(())),
        row("ACK",                               Dhcp::ack().answer(),                  REQUESTS, "", "", Ok(())),
        row("ACK to all",                        Dhcp::ack().answer_to_all(),           REQUESTS, "", "", Ok(())),
        row("ACK after the lease",               Dhcp::ack().answer(),                  State { asks: Some(3), ..EXPIRED }, "", "", Ok(())),
        row("ACK to INFORM",                     Dhcp { yiaddr: "0.0.0.0", ..Dhcp::reply(5) }.answer(), INFORMS, "", "", Ok(())),
        row("NAK",                               Dhcp { yiaddr: "0.0.0.0", ..Dhcp::reply(6) }.answer_to_all(), RENEWS, "", "", Ok(())),
        row("host-only: ACK",                    Dhcp::ack().answer(),                  State { asks: Some(3), ..HOST },   "", "", Ok(())),
        row("ACK from another address",          inbound(udp(OTHER_IP, 67, VM_IP, 68, &Dhcp::ack().message())), OFFERED, "", "", Err(DhcpRogueServer)),
        row("ACK from another MAC",              Dhcp::ack().answer().from(OTHER),      OFFERED, "", "", Err(DhcpRogueServer)),
        row("the same without isolation",        Dhcp::ack().answer().from(OTHER),      OPEN,   "", "", Err(DhcpRogueServer)),
        row("another MAC than the pinned one",   Dhcp::ack().answer().from(OTHER),      PINNED, "", "", Err(DhcpRogueServer)),
        row("any MAC before one is known",       Dhcp::ack().answer(),                  State { asks: Some(3), ..UNKNOWN }, "", "", Ok(())),
        row("a new MAC after the lease",         Dhcp::ack().answer().from(OTHER),      State { asks: Some(3), ..UNKNOWN_EXPIRED }, "", "", Ok(())),
        row("a new MAC the system did not tell", Dhcp::ack().answer().from(OTHER),      EXPIRED, "", "", Err(DhcpRogueServer)),
        row("from another port",                 inbound(udp(GATEWAY_IP, 1067, VM_IP, 68, &Dhcp::ack().message())), OFFERED, "", "", Err(DhcpRole)),
        row("a request from another VM",         Dhcp { chaddr: OTHER, ..Dhcp::request(1) }.broadcast().from(OTHER), OPEN, "", "", Err(DhcpRole)),
        row("a request in a reply's place",      Dhcp { op: 1, ..Dhcp::ack() }.answer(), OFFERED, "", "", Err(DhcpRole)),
        row("another's reply",                   Dhcp { chaddr: OTHER, ..Dhcp::ack() }.answer_to_all(), OFFERED, "", "", Err(DhcpHardwareAddress)),
        row("another server identifier",         Dhcp { options: vec![53, 1, 5], ..Dhcp::ack() }.address(54, OTHER_IP).answer(), OFFERED, "", "", Err(DhcpServerIdentifier)),
        row("no server identifier",              Dhcp { options: vec![53, 1, 5], ..Dhcp::ack() }.answer(), OFFERED, "", "", Err(DhcpServerIdentifier)),
        row("an address outside the network",    Dhcp { yiaddr: "10.0.0.2", ..Dhcp::ack() }.answer(), OFFERED, "", "", Err(DhcpGrantedAddress)),
        row("an address that it did not ask for", Dhcp { yiaddr: TAKEN_IP, ..Dhcp::ack() }.answer(), REQUESTS, "", "", Err(DhcpGrantedAddress)),
        row("the gateway's address",             Dhcp { yiaddr: GATEWAY_IP, ..Dhcp::ack() }.answer(), OFFERED, "", "", Err(DhcpGrantedAddress)),
        row("the network's address",             Dhcp { yiaddr: "192.168.64.0", ..Dhcp::ack() }.answer(), OFFERED, "", "", Err(DhcpGrantedAddress)),
        row("the broadcast address",             Dhcp { yiaddr: "192.168.64.255", ..Dhcp::ack() }.answer(), OFFERED, "", "", Err(DhcpGrantedAddress)),
        row("an offer of no address",            Dhcp { yiaddr: "0.0.0.0", ..Dhcp::reply(2) }.answer(), FRESH, "", "", Err(DhcpGrantedAddress)),
        row("a group's, network unknown",        Dhcp { yiaddr: "224.0.0.1", ..Dhcp::ack() }.answer(), UNKNOWN, "", "", Err(DhcpGrantedAddress)),
        row("a reply to reconfigure",            Dhcp::reply(9).answer(),               LEASED, "", "", Err(DhcpMessageType)),
        row("two lease times",                   Dhcp::ack().option(51, &[0, 0, 0, 9]).answer(), OFFERED, "", "", Err(DhcpMalformed)),
        row("BOOTP",                             Dhcp { options: vec![], ..Dhcp::ack() }.answer(), OFFERED, "", "", Err(DhcpMalformed)),
        row("OFFER that nobody asked for",       Dhcp::reply(2).answer(),               FRESH,  "", "", Err(DhcpTransaction)),
        row("ACK of no request",                 Dhcp::ack().answer(),                  LEASED, "", "", Err(DhcpTransaction)),
        row("ACK of a DISCOVER",                 Dhcp::ack().answer(),                  OFFERED, "", "", Err(DhcpTransaction)),
        row("ACK of another transaction",        Dhcp { xid: 1, ..Dhcp::ack() }.answer(), REQUESTS, "", "", Err(DhcpTransaction)),
        row("NAK of another transaction",        Dhcp { xid: 1, yiaddr: "0.0.0.0", ..Dhcp::reply(6) }.answer_to_all(), RENEWS, "", "", Err(DhcpTransaction)),
        row("with the VM's identifier",          Dhcp::ack().option(61, &[1, 0x52, 0x54, 0, 0, 0, 2]).answer(), REQUESTS, "", "", Ok(())),
        row("with another's identifier",         Dhcp::ack().option(61, &[1, 0x52, 0x54, 0, 0, 0, 0x50]).answer(), REQUESTS, "", "", Err(DhcpClientIdentifier)),
        row("with a longer identifier",          Dhcp::ack().option(61, &[1, 0x52, 0x54, 0, 0, 0, 2, 0]).answer(), REQUESTS, "", "", Err(DhcpClientIdentifier)),
        row("with two identifiers",              Dhcp::ack().option(61, &[1, 2]).option(61, &[1, 2]).answer(), REQUESTS, "", "", Err(DhcpMalformed)),
        row("to a multicast MAC",                Dhcp::ack().answer().to(group),        OFFERED, "", "", Err(DestinationGroup)),
        row("in fragments",                      inbound(ipv4(17, GATEWAY_IP, VM_IP, &[0, 67, 0, 68, 1, 44, 0, 0]).fragment(0, true)), OFFERED, "", "", Err(Fragment)),
    ];
    check(rows, World::receive);
}
