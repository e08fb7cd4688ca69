//! The filter's rules as one table: a frame, what is known, the policy, and the outcome.
//!
//! A row reads: this frame, in this state, with these rules, has this outcome. Each frame is
//! right but for what the row is about, and for most that are dropped there is one that
//! passes beside it. The edges of the special-purpose ranges are made from a list below.

mod frames;

use DropReason::*;
use frames::*;
use softnet::filter::DropReason;
use softnet::wire::Mac;

#[test]
fn frames_leaving_the_vm_have_the_outcome_of_the_table() {
    let internet = || tcp(VM_IP, INTERNET, 443);
    let request = |kind| Dhcp::request(kind);
    let select = || request(3).address(50, VM_IP).address(54, GATEWAY_IP);
    let renew = || Dhcp {
        ciaddr: VM_IP,
        ..request(3)
    };
    let release = || Dhcp {
        ciaddr: VM_IP,
        ..request(7).address(54, GATEWAY_IP)
    };
    let decline = || request(4).address(50, VM_IP).address(54, GATEWAY_IP);
    let group = Mac([0x01, 0x00, 0x5e, 0, 0, 0xfb]);
    let fragment = |protocol, offset, more, len| {
        ipv4(protocol, VM_IP, INTERNET, &vec![0; len]).fragment(offset, more)
    };
    let first_udp = |port: u16, len: u16| {
        let [high, low] = port.to_be_bytes();
        let mut payload = [0; 64];
        payload[..6].copy_from_slice(&[
            0xc0,
            0,
            high,
            low,
            len.to_be_bytes()[0],
            len.to_be_bytes()[1],
        ]);
        ipv4(17, VM_IP, GATEWAY_IP, &payload).fragment(0, true)
    };
    #[rustfmt::skip]
    let rows = vec![
        // --- the frame ---
        row("TCP to the internet",               internet(),                            LEASED, "", "", Ok(())),
        row("as long as the interface takes",    udp(VM_IP, 1, INTERNET, 2, &[0; 1472]), LEASED, "", "", Ok(())),
        row("a byte longer",                     udp(VM_IP, 1, INTERNET, 2, &[0; 1473]), LEASED, "", "", Err(Oversize)),
        row("an empty datagram",                 Frame(vec![]),                         LEASED, "", "", Err(Runt)),
        row("13 bytes",                          internet().resize(13),                 LEASED, "", "", Err(Runt)),
        row("a header alone",                    internet().resize(14),                 LEASED, "", "", Err(Ipv4Malformed)),
        row("another source MAC",                internet().from(OTHER),                LEASED, "", "", Err(SourceMac)),
        row("the gateway's MAC as source",       internet().from(GATEWAY),              LEASED, "", "", Err(SourceMac)),
        row("another source MAC for DHCP",       request(1).broadcast().from(OTHER),    FRESH,  "", "", Err(SourceMac)),
        row("IPv6",                              ethernet(GATEWAY, VM, 0x86dd, &[0x60; 60]), LEASED, "", "", Err(Ipv6)),
        row("IPv6 neighbour discovery",          ethernet(Mac([0x33, 0x33, 0, 0, 0, 1]), VM, 0x86dd, &[0x60; 60]), LEASED, "", "", Err(Ipv6)),
        row("a VLAN tag",                        ethernet(GATEWAY, VM, 0x8100, &[0; 50]), LEASED, "", "", Err(Vlan)),
        row("QinQ",                              ethernet(GATEWAY, VM, 0x88a8, &[0; 50]), LEASED, "", "", Err(Vlan)),
        row("QinQ of old",                       ethernet(GATEWAY, VM, 0x9100, &[0; 50]), LEASED, "", "", Err(Vlan)),
        row("a spanning tree frame",             ethernet(Mac([1, 0x80, 0xc2, 0, 0, 0]), VM, 38, &[0x42; 46]), LEASED, "", "", Err(Llc)),
        row("LLC of the greatest length",        ethernet(GATEWAY, VM, 1500, &[0x42; 46]), LEASED, "", "", Err(Llc)),
        row("no length and no EtherType",        ethernet(GATEWAY, VM, 1501, &[0x42; 46]), LEASED, "", "", Err(EtherType)),
        row("EAPOL",                             ethernet(Mac([1, 0x80, 0xc2, 0, 0, 3]), VM, 0x888e, &[0; 46]), LEASED, "", "", Err(Eapol)),
        row("LLDP",                              ethernet(Mac([1, 0x80, 0xc2, 0, 0, 0xe]), VM, 0x88cc, &[0; 46]), LEASED, "", "", Err(EtherType)),
        row("PPPoE discovery",                   ethernet(ALL, VM, 0x8863, &[0; 46]),   LEASED, "", "", Err(EtherType)),
        row("wake on LAN",                       ethernet(ALL, VM, 0x0842, &[0xff; 46]), LEASED, "", "", Err(EtherType)),
        // --- whom the frame is for ---
        row("another VM's MAC, innocent IP",     internet().to(OTHER),                  LEASED, "", "", Err(DestinationMac)),
        row("the same without isolation",        internet().to(OTHER),                  OPEN,   "", "", Ok(())),
        row("another VM by an allowed address",  tcp(VM_IP, OTHER_IP, 22).to(OTHER),    OPEN,   "192.168.64.0/24", "", Ok(())),
        row("the same with isolation",           tcp(VM_IP, OTHER_IP, 22).to(OTHER),    LEASED, "192.168.64.0/24", "", Err(DestinationMac)),
        row("another VM in host mode",           tcp(VM_IP, GATEWAY_IP, 22).to(OTHER),  State { isolation: false, ..HOST }, "", "", Err(DestinationMac)),
        row("IPv4 to everybody's MAC",           internet().to(ALL),                    LEASED, "", "", Err(DestinationGroup)),
        row("the same without isolation",        internet().to(ALL),                    OPEN,   "", "", Err(DestinationGroup)),
        row("IPv4 to a bridge's reserved MAC",   internet().to(Mac([1, 0x80, 0xc2, 0, 0, 0])), OPEN, "", "", Err(DestinationGroup)),
        row("the gateway's MAC was pinned",      internet(),                            PINNED, "", "", Ok(())),
        row("another than the pinned one",       internet().to(OTHER),                  PINNED, "", "", Err(DestinationMac)),
        // --- ARP ---
        row("a request",                         arp(1, (VM, VM_IP), GATEWAY_IP),       LEASED, "", "", Ok(())),
        row("a reply to the gateway",            arp(2, (VM, VM_IP), GATEWAY_IP).to(GATEWAY), LEASED, "", "", Ok(())),
        row("an announcement",                   arp(1, (VM, VM_IP), VM_IP),            LEASED, "", "", Ok(())),
        row("an announcement by reply",          arp(2, (VM, VM_IP), VM_IP),            LEASED, "", "", Ok(())),
        row("padded to 60 bytes",                arp(1, (VM, VM_IP), GATEWAY_IP).resize(60), LEASED, "", "", Ok(())),
        row("with a letter behind it",           arp(1, (VM, VM_IP), GATEWAY_IP).resize(65), LEASED, "", "", Err(ArpMalformed)),
        row("the gateway's address",             arp(2, (VM, GATEWAY_IP), OTHER_IP),    LEASED, "", "", Err(ArpSenderAddress)),
        row("the gateway's, asking",             arp(1, (VM, GATEWAY_IP), OTHER_IP),    LEASED, "", "", Err(ArpSenderAddress)),
        row("the gateway's, before the lease",   arp(2, (VM, GATEWAY_IP), OTHER_IP),    FRESH,  "", "", Err(ArpSenderAddress)),
        row("another VM's address",              arp(2, (VM, OTHER_IP), GATEWAY_IP),    LEASED, "", "", Err(ArpSenderAddress)),
        row("its own, before the lease",         arp(1, (VM, VM_IP), GATEWAY_IP),       FRESH,  "", "", Err(ArpSenderAddress)),
        row("its own, after the lease",          arp(1, (VM, VM_IP), GATEWAY_IP),       EXPIRED, "", "", Err(ArpSenderAddress)),
        row("another MAC in the message",        arp(2, (OTHER, VM_IP), GATEWAY_IP).from(VM), LEASED, "", "", Err(ArpSenderMac)),
        row("the gateway's in the message",      arp(2, (GATEWAY, GATEWAY_IP), OTHER_IP).from(VM), LEASED, "", "", Err(ArpSenderMac)),
        row("to another VM",                     arp(2, (VM, VM_IP), OTHER_IP).to(OTHER), LEASED, "", "", Err(DestinationMac)),
        row("the same without isolation",        arp(2, (VM, VM_IP), OTHER_IP).to(OTHER), OPEN, "", "", Ok(())),
        row("to a multicast MAC",                arp(1, (VM, VM_IP), GATEWAY_IP).to(group), LEASED, "", "", Err(DestinationGroup)),
        row("RARP's operation",                  arp(3, (VM, VM_IP), GATEWAY_IP),       LEASED, "", "", Err(ArpOperation)),
        row("operation 0",                       arp(0, (VM, VM_IP), GATEWAY_IP),       LEASED, "", "", Err(ArpOperation)),
        row("hardware addresses of 255 bytes",   arp(1, (VM, VM_IP), GATEWAY_IP).set(18, &[255]), LEASED, "", "", Err(ArpMalformed)),
        row("protocol addresses of 16",          arp(1, (VM, VM_IP), GATEWAY_IP).set(19, &[16]), LEASED, "", "", Err(ArpMalformed)),
        row("cut short",                         arp(1, (VM, VM_IP), GATEWAY_IP).resize(41), LEASED, "", "", Err(ArpMalformed)),
        row("about IPv6",                        arp(1, (VM, VM_IP), GATEWAY_IP).set(16, &[0x86, 0xdd]), LEASED, "", "", Err(ArpMalformed)),
        row("a probe for the lease",             arp(1, (VM, "0.0.0.0"), VM_IP),        LEASED, "", "", Ok(())),
        row("a probe for the offer",             arp(1, (VM, "0.0.0.0"), VM_IP),        OFFERED, "", "", Ok(())),
        row("a probe for another",               arp(1, (VM, "0.0.0.0"), OTHER_IP),     OFFERED, "", "", Err(ArpProbe)),
        row("a probe before any offer",          arp(1, (VM, "0.0.0.0"), VM_IP),        FRESH,  "", "", Err(ArpProbe)),
        row("a probe for an expired lease",      arp(1, (VM, "0.0.0.0"), VM_IP),        EXPIRED, "", "", Err(ArpProbe)),
        row("a probe for nothing",               arp(1, (VM, "0.0.0.0"), "0.0.0.0"),    FRESH,  "", "", Err(ArpProbe)),
        row("a reply from nobody",               arp(2, (VM, "0.0.0.0"), VM_IP),        LEASED, "", "", Err(ArpProbe)),
        row("a probe for a link-local address",  arp(1, (VM, "0.0.0.0"), "169.254.3.4"), FRESH, "", "", Err(ArpProbe)),
        // --- the IPv4 header ---
        row("version 6",                         internet().set(14, &[0x65]),           LEASED, "", "", Err(Ipv4Malformed)),
        row("a header of 16 bytes",              internet().set(14, &[0x44]),           LEASED, "", "", Err(Ipv4Malformed)),
        row("a header longer than the packet",   internet().set(14, &[0x4f]),           LEASED, "", "", Err(Ipv4Malformed)),
        row("longer than the frame",             internet().set(16, &[0, 41]),          LEASED, "", "", Err(Ipv4Malformed)),
        row("shorter than its header",           internet().set(16, &[0, 19]),          LEASED, "", "", Err(Ipv4Malformed)),
        row("cut in the header",                 internet().resize(33),                 LEASED, "", "", Err(Ipv4Malformed)),
        row("padded to 60 bytes",                internet().resize(60),                 LEASED, "", "", Ok(())),
        row("much shorter than the frame",       internet().resize(65),                 LEASED, "", "", Err(Ipv4Malformed)),
        row("loose source route",                internet().options(&[131, 3, 4, 0]),   LEASED, "", "", Err(Ipv4Options)),
        row("strict source route",               internet().options(&[137, 7, 4, 1, 2, 3, 4, 0]), LEASED, "", "", Err(Ipv4Options)),
        row("record route",                      internet().options(&[7, 7, 4, 0, 0, 0, 0, 0]), LEASED, "", "", Err(Ipv4Options)),
        row("timestamp",                         internet().options(&[68, 8, 5, 0, 0, 0, 0, 0]), LEASED, "", "", Err(Ipv4Options)),
        row("a source route behind padding",     internet().options(&[1, 131, 3, 4]),   LEASED, "", "", Err(Ipv4Options)),
        row("an option that leaves the header",  internet().options(&[148, 40, 0, 0]),  LEASED, "", "", Err(Ipv4Options)),
        row("an option without length",          internet().options(&[1, 1, 1, 130]),   LEASED, "", "", Err(Ipv4Options)),
        row("router alert",                      internet().options(&[148, 4, 0, 0]),   LEASED, "", "", Ok(())),
        row("options that do nothing",           internet().options(&[1, 1, 0, 7]),     LEASED, "", "", Ok(())),
        row("IPv6 in IPv4",                      ipv4(41, VM_IP, INTERNET, &[0x60; 40]), LEASED, "", "", Err(Ipv6InIpv4)),
        row("IPv6 in IPv4, allowed or not",      ipv4(41, VM_IP, INTERNET, &[0x60; 40]), LEASED, "0.0.0.0/0", "", Err(Ipv6InIpv4)),
        row("a tunnel that is not IPv6",         ipv4(47, VM_IP, INTERNET, &[0; 40]),   LEASED, "", "", Ok(())),
        // --- what it carries ---
        row("TCP cut short",                     ipv4(6, VM_IP, INTERNET, &[0; 19]),    LEASED, "", "", Err(TransportMalformed)),
        row("UDP cut short",                     ipv4(17, VM_IP, INTERNET, &[0; 7]),    LEASED, "", "", Err(TransportMalformed)),
        row("UDP longer than its packet",        udp(VM_IP, 1, INTERNET, 2, &[0; 8]).set(38, &[0, 17]), LEASED, "", "", Err(TransportMalformed)),
        row("UDP shorter than its packet",       udp(VM_IP, 1, INTERNET, 2, &[0; 8]).set(38, &[0, 15]), LEASED, "", "", Err(TransportMalformed)),
        row("UDP without data",                  udp(VM_IP, 1, INTERNET, 2, &[]),       LEASED, "", "", Ok(())),
        row("ping",                              icmp(VM_IP, INTERNET, 8),              LEASED, "", "", Ok(())),
        row("ICMP cut short",                    ipv4(1, VM_IP, INTERNET, &[8, 0, 0]),  LEASED, "", "", Err(TransportMalformed)),
        row("destination unreachable",           icmp(VM_IP, INTERNET, 3),              LEASED, "", "", Ok(())),
        row("a redirect to the gateway",         icmp(VM_IP, GATEWAY_IP, 5),            LEASED, "", "", Err(IcmpRedirect)),
        row("a redirect in a fragment",          fragment(1, 0, true, 64).set(34, &[5]), LEASED, "", "", Err(IcmpRedirect)),
        // --- fragments ---
        row("the first of TCP",                  fragment(6, 0, true, 24),              LEASED, "", "", Ok(())),
        row("a tiny first of TCP",               fragment(6, 0, true, 16),              LEASED, "", "", Err(Fragment)),
        row("a tiny first of ICMP",              fragment(1, 0, true, 8).resize(41).set(16, &[0, 27]), LEASED, "", "", Err(Fragment)),
        row("a later one",                       fragment(6, 185, false, 100),          LEASED, "", "", Ok(())),
        row("one in the middle",                 fragment(17, 185, true, 1480),         LEASED, "", "", Ok(())),
        row("one that rewrites TCP's flags",     fragment(6, 1, false, 64),             LEASED, "", "", Err(Fragment)),
        row("one that rewrites TCP's sum",       fragment(6, 2, false, 64),             LEASED, "", "", Err(Fragment)),
        row("one right behind TCP's header",     fragment(6, 3, false, 64),             LEASED, "", "", Ok(())),
        row("an uneven one in the middle",       fragment(17, 185, true, 100),          LEASED, "", "", Err(Fragment)),
        row("an empty one",                      fragment(17, 185, false, 0),           LEASED, "", "", Err(Fragment)),
        row("the ping of death",                 fragment(1, 8189, false, 100),         LEASED, "", "", Err(Fragment)),
        row("the last that a packet can have",   fragment(1, 8187, false, 19),          LEASED, "", "", Ok(())),
        row("one of IPv6 in IPv4",               fragment(41, 185, false, 100),         LEASED, "", "", Err(Ipv6InIpv4)),
        row("the first of UDP",                  first_udp(9, 100),                     LEASED, "", "", Ok(())),
        row("a first that claims to be all",     first_udp(9, 64),                      LEASED, "", "", Err(TransportMalformed)),
        row("DHCP in fragments",                 first_udp(67, 300),                    LEASED, "", "", Err(Fragment)),
        row("a DHCP reply in fragments",         first_udp(68, 300),                    LEASED, "", "", Err(Fragment)),
        // --- whose address ---
        row("another VM's address",              tcp(OTHER_IP, INTERNET, 443),          LEASED, "", "", Err(SourceAddress)),
        row("an address of the internet",        tcp(INTERNET, "8.8.8.8", 443),         LEASED, "", "", Err(SourceAddress)),
        row("no address",                        tcp("0.0.0.0", INTERNET, 443),         LEASED, "", "", Err(SourceAddress)),
        row("everybody's address",               tcp("255.255.255.255", INTERNET, 443), LEASED, "", "", Err(SourceAddress)),
        row("another's, all allowed",            tcp(OTHER_IP, INTERNET, 443),          OPEN,   "0.0.0.0/0", "", Err(SourceAddress)),
        row("its own before the lease",          internet(),                            FRESH,  "", "", Err(NoLease)),
        row("no address before the lease",       tcp("0.0.0.0", INTERNET, 443),         FRESH,  "", "", Err(NoLease)),
        row("its own with an offer",             internet(),                            OFFERED, "", "", Err(NoLease)),
        row("its own after the lease",           internet(),                            EXPIRED, "", "", Err(LeaseExpired)),
        row("another's after the lease",         tcp(OTHER_IP, INTERNET, 443),          EXPIRED, "", "", Err(SourceAddress)),
        // --- to whom ---
        row("the gateway",                       tcp(VM_IP, GATEWAY_IP, 22),            LEASED, "", "", Ok(())),
        row("its answer to the host",            tcp(VM_IP, GATEWAY_IP, 50000),         LEASED, "", "", Ok(())),
        row("a private address",                 tcp(VM_IP, "10.0.0.1", 443),           LEASED, "", "", Err(DestinationPrivate)),
        row("another VM",                        tcp(VM_IP, OTHER_IP, 443),             LEASED, "", "", Err(DestinationPrivate)),
        row("itself",                            tcp(VM_IP, VM_IP, 443),                LEASED, "", "", Err(DestinationPrivate)),
        row("a cloud's metadata",                tcp(VM_IP, "169.254.169.254", 80),     LEASED, "", "", Err(DestinationLinkLocal)),
        row("everybody",                         udp(VM_IP, 1, "255.255.255.255", 9, &[]).to(ALL), LEASED, "", "", Err(DestinationBroadcast)),
        row("the whole network",                 udp(VM_IP, 1, "192.168.64.255", 9, &[]).to(ALL), LEASED, "", "", Err(DestinationPrivate)),
        row("the whole network, allowed",        udp(VM_IP, 1, "192.168.64.255", 9, &[]).to(ALL), OPEN, "192.168.64.0/24", "", Ok(())),
        row("mDNS",                              udp(VM_IP, 5353, "224.0.0.251", 5353, &[]).to(group), LEASED, "", "", Err(DestinationMulticast)),
        row("mDNS, allowed",                     udp(VM_IP, 5353, "224.0.0.251", 5353, &[]).to(group), LEASED, "224.0.0.251/32", "", Ok(())),
        row("mDNS, allowed, to another group",   udp(VM_IP, 5353, "224.0.0.252", 5353, &[]).to(group), LEASED, "224.0.0.0/4", "", Err(DestinationGroup)),
        row("mDNS, allowed, to everybody",       udp(VM_IP, 5353, "224.0.0.251", 5353, &[]).to(ALL), LEASED, "224.0.0.251/32", "", Err(DestinationGroup)),
        // --- rules ---
        row("a blocked internet address",        internet(),                            LEASED, "", "1.2.3.0/24", Err(DestinationBlocked)),
        row("beside the blocked ones",           tcp(VM_IP, "1.2.4.0", 443),            LEASED, "", "1.2.3.0/24", Ok(())),
        row("a longer prefix allows",            internet(),                            LEASED, "1.2.3.4/32", "1.2.3.0/24", Ok(())),
        row("a longer prefix blocks",            internet(),                            LEASED, "1.2.3.0/24", "1.2.3.4/32", Err(DestinationBlocked)),
        row("on the same prefix block wins",     internet(),                            LEASED, "1.2.3.0/24", "1.2.3.0/24", Err(DestinationBlocked)),
        row("host bits are cleared",             tcp(VM_IP, "10.1.9.9", 443),           LEASED, "10.1.2.3/16", "", Ok(())),
        row("an allowed private address",        tcp(VM_IP, "10.1.2.3", 443),           LEASED, "10.0.0.0/8", "", Ok(())),
        row("blocked within the allowed",        tcp(VM_IP, "10.1.2.3", 443),           LEASED, "10.0.0.0/8", "10.1.0.0/16", Err(DestinationBlocked)),
        row("all blocked",                       internet(),                            LEASED, "", "0.0.0.0/0", Err(DestinationBlocked)),
        row("all blocked, the gateway too",      tcp(VM_IP, GATEWAY_IP, 22),            LEASED, "", "0.0.0.0/0", Err(DestinationBlocked)),
        row("all blocked but the host",          tcp(VM_IP, GATEWAY_IP, 22),            LEASED, "@host", "0.0.0.0/0", Ok(())),
        row("the host blocked",                  tcp(VM_IP, GATEWAY_IP, 22),            LEASED, "", "@host", Err(DestinationBlocked)),
        row("the host blocked by address",       tcp(VM_IP, GATEWAY_IP, 22),            LEASED, "", "192.168.64.1/32", Err(DestinationBlocked)),
        row("all allowed, a private address",    tcp(VM_IP, "172.16.0.1", 22),          LEASED, "0.0.0.0/0", "", Ok(())),
        row("all allowed, reserved ones",        tcp(VM_IP, "240.0.0.1", 22),           LEASED, "0.0.0.0/0", "", Ok(())),
        row("all allowed, the host's loopback",  tcp(VM_IP, "127.0.0.1", 22),           LEASED, "0.0.0.0/0", "", Err(DestinationLocal)),
        row("all allowed, this network",         tcp(VM_IP, "0.0.0.0", 22),             LEASED, "0.0.0.0/0", "", Err(DestinationLocal)),
        row("loopback named by a rule",          tcp(VM_IP, "127.0.0.1", 22),           LEASED, "127.0.0.0/8", "", Ok(())),
        // --- DNS ---
        row("a private name server",             udp(VM_IP, 5000, NAME_SERVER, 53, &[]), LEASED, "", "", Ok(())),
        row("the same by TCP",                   tcp(VM_IP, NAME_SERVER, 53),           LEASED, "", "", Ok(())),
        row("another of its ports",              tcp(VM_IP, NAME_SERVER, 443),          LEASED, "", "", Err(DestinationPrivate)),
        row("no name server of the lease's",     udp(VM_IP, 5000, "10.9.8.6", 53, &[]), LEASED, "", "", Err(DestinationPrivate)),
        row("from port 53 is no exception",      udp(VM_IP, 53, NAME_SERVER, 54, &[]),  LEASED, "", "", Err(DestinationPrivate)),
        row("ICMP is no exception",              icmp(VM_IP, NAME_SERVER, 8),           LEASED, "", "", Err(DestinationPrivate)),
        row("a fragment is no exception",        ipv4(17, VM_IP, NAME_SERVER, &[0, 1, 0, 53, 0, 99, 0, 0]).fragment(0, true), LEASED, "", "", Err(DestinationPrivate)),
        row("a later fragment neither",          ipv4(17, VM_IP, NAME_SERVER, &[0; 64]).fragment(9, false), LEASED, "", "", Err(DestinationPrivate)),
        row("a blocked name server",             udp(VM_IP, 5000, NAME_SERVER, 53, &[]), LEASED, "", "10.9.8.0/24", Err(DestinationBlocked)),
        row("a name server after the lease",     udp(VM_IP, 5000, NAME_SERVER, 53, &[]), EXPIRED, "", "", Err(LeaseExpired)),
        row("a name server by a foreign MAC",    udp(VM_IP, 5000, NAME_SERVER, 53, &[]).to(OTHER), LEASED, "", "", Err(DestinationMac)),
        // --- host-only ---
        row("host-only: the gateway",            tcp(VM_IP, GATEWAY_IP, 22),            HOST,   "", "", Ok(())),
        row("host-only: the internet",           internet(),                            HOST,   "", "", Err(HostOnly)),
        row("host-only: allowed or not",         internet(),                            HOST,   "0.0.0.0/0", "", Err(HostOnly)),
        row("host-only: a name server",          udp(VM_IP, 5000, NAME_SERVER, 53, &[]), HOST,  "", "", Err(HostOnly)),
        row("host-only: another VM",             tcp(VM_IP, OTHER_IP, 22),              HOST,   "192.168.64.0/24", "", Err(HostOnly)),
        row("host-only: the gateway blocked",    tcp(VM_IP, GATEWAY_IP, 22),            HOST,   "", "@host", Err(DestinationBlocked)),
        row("host-only: the lease",              request(1).broadcast(),                State { known: Known::Nothing, ..HOST }, "", "", Ok(())),
        // --- DHCP ---
        row("DISCOVER",                          request(1).broadcast(),                FRESH,  "", "", Ok(())),
        row("REQUEST of an offer",               select().broadcast(),                  OFFERED, "", "", Ok(())),
        row("REQUEST after a reboot",            request(3).address(50, VM_IP).broadcast(), FRESH, "", "", Ok(())),
        row("DISCOVER to the gateway's MAC",     request(1).broadcast().to(GATEWAY),    FRESH,  "", "", Ok(())),
        row("all blocked",                       request(1).broadcast(),                FRESH,  "", "0.0.0.0/0", Ok(())),
        row("renewal",                           renew().unicast(VM_IP),                LEASED, "", "", Ok(())),
        row("renewal with the host blocked",     renew().unicast(VM_IP),                LEASED, "", "@host", Ok(())),
        row("rebinding",                         renew().broadcast(),                   LEASED, "", "", Ok(())),
        row("renewal after the lease",           renew().unicast(VM_IP),                EXPIRED, "", "", Ok(())),
        row("renewal that softnet did not see",  renew().unicast(VM_IP),                FRESH,  "", "", Ok(())),
        row("the same, gateway unknown yet",     renew().unicast(VM_IP),                UNKNOWN, "", "", Ok(())),
        row("INFORM",                            Dhcp { ciaddr: VM_IP, ..request(8) }.unicast(VM_IP), LEASED, "", "", Ok(())),
        row("RELEASE",                           release().unicast(VM_IP),              LEASED, "", "", Ok(())),
        row("DECLINE of the offer",              decline().broadcast(),                 OFFERED, "", "", Ok(())),
        row("DECLINE of the lease",              decline().broadcast(),                 LEASED, "", "", Ok(())),
        row("another's RELEASE",                 Dhcp { ciaddr: OTHER_IP, ..release() }.unicast(VM_IP), LEASED, "", "", Err(DhcpRelease)),
        row("RELEASE without a lease",           release().unicast(VM_IP),              FRESH,  "", "", Err(DhcpRelease)),
        row("another's DECLINE",                 request(4).address(50, OTHER_IP).broadcast(), OFFERED, "", "", Err(DhcpDecline)),
        row("DECLINE of nothing",                request(4).broadcast(),                OFFERED, "", "", Err(DhcpDecline)),
        row("DECLINE without an offer",          decline().broadcast(),                 FRESH,  "", "", Err(DhcpDecline)),
        row("another's hardware address",        Dhcp { chaddr: OTHER, ..request(1) }.broadcast(), FRESH, "", "", Err(DhcpHardwareAddress)),
        row("through a relay",                   Dhcp { giaddr: GATEWAY_IP, ..request(1) }.broadcast(), FRESH, "", "", Err(DhcpRelay)),
        row("another server",                    request(3).address(50, VM_IP).address(54, OTHER_IP).broadcast(), OFFERED, "", "", Err(DhcpServerIdentifier)),
        row("an address that is another's",      Dhcp { ciaddr: OTHER_IP, ..request(3) }.unicast(VM_IP), LEASED, "", "", Err(DhcpClientAddress)),
        row("INFORM about another's",            Dhcp { ciaddr: OTHER_IP, ..request(8) }.unicast(VM_IP), LEASED, "", "", Err(DhcpClientAddress)),
        row("INFORM without a lease",            Dhcp { ciaddr: VM_IP, ..request(8) }.broadcast(), FRESH, "", "", Err(DhcpClientAddress)),
        row("renewal of the gateway's address",  Dhcp { ciaddr: GATEWAY_IP, ..request(3) }.broadcast(), FRESH, "", "", Err(DhcpClientAddress)),
        row("renewal outside the network",       Dhcp { ciaddr: "10.0.0.2", ..request(3) }.broadcast(), FRESH, "", "", Err(DhcpClientAddress)),
        row("from another's address",            renew().unicast(OTHER_IP),             LEASED, "", "", Err(DhcpSource)),
        row("from another's before the lease",   renew().unicast(OTHER_IP),             FRESH,  "", "", Err(DhcpSource)),
        row("DISCOVER from an address",          request(1).unicast(VM_IP),             FRESH,  "", "", Err(DhcpSource)),
        row("a reply from the VM",               Dhcp { op: 2, ..request(3) }.broadcast(), LEASED, "", "", Err(DhcpRole)),
        row("a server's reply, to port 68",      udp(VM_IP, 67, GATEWAY_IP, 68, &Dhcp::ack().message()), LEASED, "", "", Err(DhcpRole)),
        row("a server's reply to all",           udp(VM_IP, 67, "255.255.255.255", 68, &Dhcp::ack().message()).to(ALL), OPEN, "0.0.0.0/0", "", Err(DhcpRole)),
        row("from another port",                 udp(VM_IP, 1234, GATEWAY_IP, 67, &request(1).message()), LEASED, "", "", Err(DhcpRole)),
        row("as a relay does, from port 67",     udp(VM_IP, 67, GATEWAY_IP, 67, &request(1).message()), LEASED, "", "", Err(DhcpRole)),
        row("to another of the host's addresses", udp(VM_IP, 68, INTERNET, 67, &request(1).message()), LEASED, "", "", Err(DhcpDestination)),
        row("to the whole network",              udp(VM_IP, 68, "192.168.64.255", 67, &request(1).message()), LEASED, "0.0.0.0/0", "", Err(DhcpDestination)),
        row("to another VM's MAC",               request(1).broadcast().to(OTHER),      FRESH,  "", "", Err(DestinationMac)),
        row("the same without isolation",        request(1).broadcast().to(OTHER),      OPEN,   "", "", Err(DestinationMac)),
        row("to a multicast MAC",                request(1).broadcast().to(group),      FRESH,  "", "", Err(DestinationGroup)),
        row("a server's kind of message",        request(5).broadcast(),                FRESH,  "", "", Err(DhcpMessageType)),
        row("a leasequery",                      request(10).broadcast(),               FRESH,  "", "", Err(DhcpMessageType)),
        row("BOOTP",                             Dhcp { options: vec![], ..request(1) }.broadcast(), FRESH, "", "", Err(DhcpMalformed)),
        row("two types",                         request(1).option(53, &[7]).broadcast(), FRESH, "", "", Err(DhcpMalformed)),
        row("two servers",                       select().address(54, OTHER_IP).broadcast(), FRESH, "", "", Err(DhcpMalformed)),
        row("an option that leaves the message", Dhcp { options: vec![53, 1, 1, 12, 200], ..request(1) }.broadcast(), FRESH, "", "", Err(DhcpMalformed)),
        row("hidden options",                    request(1).option(52, &[1]).broadcast(), FRESH, "", "", Err(DhcpMalformed)),
        row("token ring",                        request(1).broadcast().set(43, &[6]),  FRESH,  "", "", Err(DhcpMalformed)),
        row("hardware addresses of 16 bytes",    request(1).broadcast().set(44, &[16]), FRESH,  "", "", Err(DhcpMalformed)),
        row("another cookie",                    request(1).broadcast().set(278, &[0]), FRESH,  "", "", Err(DhcpMalformed)),
        row("no message",                        udp("0.0.0.0", 68, "255.255.255.255", 67, &[]).to(ALL), FRESH, "", "", Err(DhcpMalformed)),
    ];
    check(rows, World::send);
}

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
        row("packet too big",                    inbound(icmp(INTERNET, VM_IP, 3)),     LEASED, "", "", Ok(())),
        row("UDP of a wrong length",             inbound(udp(INTERNET, 53, VM_IP, 5000, &[0; 8])).set(38, &[0, 15]), LEASED, "", "", Err(TransportMalformed)),
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
        row("OFFER",                             Dhcp::reply(2).answer(),               FRESH,  "", "", Ok(())),
        row("ACK",                               Dhcp::ack().answer(),                  OFFERED, "", "", Ok(())),
        row("ACK to all",                        Dhcp::ack().answer_to_all(),           OFFERED, "", "", Ok(())),
        row("ACK after the lease",               Dhcp::ack().answer(),                  EXPIRED, "", "", Ok(())),
        row("ACK to INFORM",                     Dhcp { yiaddr: "0.0.0.0", ..Dhcp::reply(5) }.answer(), LEASED, "", "", Ok(())),
        row("NAK",                               Dhcp { yiaddr: "0.0.0.0", ..Dhcp::reply(6) }.answer_to_all(), LEASED, "", "", Ok(())),
        row("host-only: ACK",                    Dhcp::ack().answer(),                  HOST,   "", "", Ok(())),
        row("ACK from another address",          inbound(udp(OTHER_IP, 67, VM_IP, 68, &Dhcp::ack().message())), OFFERED, "", "", Err(DhcpRogueServer)),
        row("ACK from another MAC",              Dhcp::ack().answer().from(OTHER),      OFFERED, "", "", Err(DhcpRogueServer)),
        row("the same without isolation",        Dhcp::ack().answer().from(OTHER),      OPEN,   "", "", Err(DhcpRogueServer)),
        row("another MAC than the pinned one",   Dhcp::ack().answer().from(OTHER),      PINNED, "", "", Err(DhcpRogueServer)),
        row("any MAC before one is known",       Dhcp::ack().answer(),                  UNKNOWN, "", "", Ok(())),
        row("a new MAC after the lease",         Dhcp::ack().answer().from(OTHER),      UNKNOWN_EXPIRED, "", "", Ok(())),
        row("a new MAC the system did not tell", Dhcp::ack().answer().from(OTHER),      EXPIRED, "", "", Err(DhcpRogueServer)),
        row("from another port",                 inbound(udp(GATEWAY_IP, 1067, VM_IP, 68, &Dhcp::ack().message())), OFFERED, "", "", Err(DhcpRole)),
        row("a request from another VM",         Dhcp { chaddr: OTHER, ..Dhcp::request(1) }.broadcast().from(OTHER), OPEN, "", "", Err(DhcpRole)),
        row("a request in a reply's place",      Dhcp { op: 1, ..Dhcp::ack() }.answer(), OFFERED, "", "", Err(DhcpRole)),
        row("another's reply",                   Dhcp { chaddr: OTHER, ..Dhcp::ack() }.answer_to_all(), OFFERED, "", "", Err(DhcpHardwareAddress)),
        row("another server identifier",         Dhcp { options: vec![53, 1, 5], ..Dhcp::ack() }.address(54, OTHER_IP).answer(), OFFERED, "", "", Err(DhcpServerIdentifier)),
        row("no server identifier",              Dhcp { options: vec![53, 1, 5], ..Dhcp::ack() }.answer(), OFFERED, "", "", Err(DhcpServerIdentifier)),
        row("an address outside the network",    Dhcp { yiaddr: "10.0.0.2", ..Dhcp::ack() }.answer(), OFFERED, "", "", Err(DhcpGrantedAddress)),
        row("the gateway's address",             Dhcp { yiaddr: GATEWAY_IP, ..Dhcp::ack() }.answer(), OFFERED, "", "", Err(DhcpGrantedAddress)),
        row("the network's address",             Dhcp { yiaddr: "192.168.64.0", ..Dhcp::ack() }.answer(), OFFERED, "", "", Err(DhcpGrantedAddress)),
        row("the broadcast address",             Dhcp { yiaddr: "192.168.64.255", ..Dhcp::ack() }.answer(), OFFERED, "", "", Err(DhcpGrantedAddress)),
        row("an offer of no address",            Dhcp { yiaddr: "0.0.0.0", ..Dhcp::reply(2) }.answer(), FRESH, "", "", Err(DhcpGrantedAddress)),
        row("a group's, network unknown",        Dhcp { yiaddr: "224.0.0.1", ..Dhcp::ack() }.answer(), UNKNOWN, "", "", Err(DhcpGrantedAddress)),
        row("a reply to reconfigure",            Dhcp::reply(9).answer(),               LEASED, "", "", Err(DhcpMessageType)),
        row("two lease times",                   Dhcp::ack().option(51, &[0, 0, 0, 9]).answer(), OFFERED, "", "", Err(DhcpMalformed)),
        row("BOOTP",                             Dhcp { options: vec![], ..Dhcp::ack() }.answer(), OFFERED, "", "", Err(DhcpMalformed)),
        row("to a multicast MAC",                Dhcp::ack().answer().to(group),        OFFERED, "", "", Err(DestinationGroup)),
        row("in fragments",                      inbound(ipv4(17, GATEWAY_IP, VM_IP, &[0, 67, 0, 68, 1, 44, 0, 0]).fragment(0, true)), OFFERED, "", "", Err(Fragment)),
    ];
    check(rows, World::receive);
}

#[test]
fn special_purpose_ranges_are_refused_from_edge_to_edge() {
    // The registry of RFC 6890 for IPv4, what it has as not globally reachable, with
    // multicast and the withdrawn relays of 6to4.
    for (range, reason) in [
        ("0.0.0.0/8", DestinationLocal),
        ("10.0.0.0/8", DestinationPrivate),
        ("100.64.0.0/10", DestinationPrivate),
        ("127.0.0.0/8", DestinationLocal),
        ("169.254.0.0/16", DestinationLinkLocal),
        ("172.16.0.0/12", DestinationPrivate),
        ("192.0.0.0/24", DestinationSpecial),
        ("192.0.2.0/24", DestinationSpecial),
        ("192.88.99.0/24", DestinationSpecial),
        ("192.168.0.0/16", DestinationPrivate),
        ("198.18.0.0/15", DestinationSpecial),
        ("198.51.100.0/24", DestinationSpecial),
        ("203.0.113.0/24", DestinationSpecial),
        ("224.0.0.0/4", DestinationMulticast),
        ("240.0.0.0/4", DestinationReserved),
        ("255.255.255.255/32", DestinationBroadcast),
    ] {
        let range: ipnet::Ipv4Net = range.parse().unwrap();
        let (first, last) = (u32::from(range.network()), u32::from(range.broadcast()));
        let mut world = World::new(LEASED, "", "");
        let mut to = |address: u32| {
            let address = std::net::Ipv4Addr::from(address).to_string();
            world.send(tcp(VM_IP, &address, 443))
        };
        let last_of_its_kind = if range.prefix_len() == 4 && first >> 28 == 15 {
            last - 1
        } else {
            last
        };
        assert_eq!(to(first), Err(reason), "the first of {range}");
        assert_eq!(to(last_of_its_kind), Err(reason), "the last of {range}");
        if ![0, 0xf000_0000, u32::MAX].contains(&first) {
            assert_eq!(to(first - 1), Ok(()), "the one before {range}");
        }
        if last < 0xdfff_ffff {
            assert_eq!(to(last + 1), Ok(()), "the one after {range}");
        }
        // A rule that names the range lifts the refusal.
        let mut world = World::new(LEASED, &range.to_string(), "");
        let address = std::net::Ipv4Addr::from(first).to_string();
        let sent = world.send(tcp(VM_IP, &address, 443));
        assert_eq!(sent, Ok(()), "the first of {range}, allowed");
    }
}

#[test]
fn globally_reachable_special_ranges_pass() {
    for address in ["192.31.196.1", "192.52.193.1", "192.175.48.1"] {
        assert_eq!(
            World::new(LEASED, "", "").send(tcp(VM_IP, address, 443)),
            Ok(()),
            "{address}"
        );
    }
}

struct Row {
    name: &'static str,
    frame: Frame,
    state: State,
    allow: &'static str,
    block: &'static str,
    outcome: Outcome,
}

fn row(
    name: &'static str,
    frame: Frame,
    state: State,
    allow: &'static str,
    block: &'static str,
    outcome: Outcome,
) -> Row {
    Row {
        name,
        frame,
        state,
        allow,
        block,
        outcome,
    }
}

fn check(rows: Vec<Row>, pass: fn(&mut World, Frame) -> Outcome) {
    let mut wrong = Vec::new();
    for row in rows {
        let mut world = World::new(row.state, row.allow, row.block);
        let outcome = pass(&mut world, row.frame);
        if outcome != row.outcome {
            wrong.push(format!(
                "{}: {outcome:?} instead of {:?}",
                row.name, row.outcome
            ));
        }
    }
    assert!(wrong.is_empty(), "{:#?}", wrong);
}
