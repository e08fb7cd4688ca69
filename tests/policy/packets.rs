//! What packets are about, what is behind them, and how often they may come.

use DropReason::*;
use softnet::filter::{DropReason, Mode};
use softnet::wire::Mac;

use crate::frames::*;
use crate::{Row, check, row};

/// The errors that quote a packet: unreachable, time exceeded, parameter problem.
const ERRORS: [u8; 3] = [3, 11, 12];
/// Neither TCP, UDP nor ICMP: IGMP, IPIP, GRE, EtherIP, PIM, VRRP, L2TP, UDP-Lite, MPLS, OSPF.
const OTHER_PROTOCOLS: [u8; 10] = [2, 4, 47, 97, 103, 112, 115, 136, 137, 89];

#[test]
fn an_error_from_the_vm_is_about_what_was_sent_to_it() {
    let mut rows: Vec<Row> = Vec::new();
    for kind in ERRORS {
        let error = |quote: &[u8]| icmp_error(VM_IP, INTERNET, [kind, 0], 0, quote);
        let about = |source, destination| error(&quote(source, destination));
        let first = about(INTERNET, VM_IP).fragment(0, true);
        #[rustfmt::skip]
        rows.extend([
            row("about a packet to the VM",      about(INTERNET, VM_IP),                LEASED, "", "", Ok(())),
            row("its first fragment",            pad8(first),                           LEASED, "", "", Ok(())),
            row("about one to another VM",       about(INTERNET, OTHER_IP),             LEASED, "", "", Err(IcmpQuote)),
            row("the same, a first fragment",    pad8(about(INTERNET, OTHER_IP).fragment(0, true)), LEASED, "", "", Err(IcmpQuote)),
            row("about one that the VM sent",    about(VM_IP, INTERNET),                LEASED, "", "", Err(IcmpQuote)),
            row("of somebody else's packet",     about("9.9.9.9", VM_IP),               LEASED, "", "", Err(IcmpQuote)),
            row("to the host, about the internet", icmp_error(VM_IP, GATEWAY_IP, [kind, 0], 0, &quote(GATEWAY_IP, INTERNET)), LEASED, "", "", Err(IcmpQuote)),
            row("to the host, about its packet", icmp_error(VM_IP, GATEWAY_IP, [kind, 0], 0, &quote(GATEWAY_IP, VM_IP)), LEASED, "", "", Ok(())),
            row("of nothing",                    error(&[]),                            LEASED, "", "", Err(IcmpQuote)),
            row("of half a header",              error(&quote(INTERNET, VM_IP)[..19]),  LEASED, "", "", Err(IcmpQuote)),
            row("of a header and no more",       error(&quote(INTERNET, VM_IP)[..20]),  LEASED, "", "", Ok(())),
            row("whose options are cut off",     error(&with_first(0x4f, INTERNET, VM_IP)), LEASED, "", "", Err(IcmpQuote)),
            row("of a header that is too short", error(&with_first(0x44, INTERNET, VM_IP)), LEASED, "", "", Err(IcmpQuote)),
            row("of IPv6",                       error(&with_first(0x65, INTERNET, VM_IP)), LEASED, "", "", Err(IcmpQuote)),
            row("as another",                    icmp_error(OTHER_IP, INTERNET, [kind, 0], 0, &quote(INTERNET, OTHER_IP)), LEASED, "", "", Err(SourceAddress)),
            row("before the lease",              about(INTERNET, VM_IP),                FRESH,  "", "", Err(NoLease)),
            row("half, before the lease",        error(&[]),                            FRESH,  "", "", Err(IcmpQuote)),
            row("to a private address",          icmp_error(VM_IP, "10.0.0.1", [kind, 0], 0, &quote("10.0.0.1", VM_IP)), LEASED, "", "", Err(DestinationPrivate)),
        ]);
    }
    check(rows, World::send);
}

#[test]
fn an_error_for_the_vm_is_about_what_it_has_sent() {
    let mut rows: Vec<Row> = Vec::new();
    for kind in ERRORS {
        let from = |sender, quote: &[u8]| inbound(icmp_error(sender, VM_IP, [kind, 0], 0, quote));
        let about = |source, destination| from(GATEWAY_IP, &quote(source, destination));
        #[rustfmt::skip]
        rows.extend([
            row("by the destination",            from(INTERNET, &quote(VM_IP, INTERNET)), LEASED, "", "", Ok(())),
            row("by a router on the way",        from("9.9.9.9", &quote(VM_IP, INTERNET)), LEASED, "", "", Ok(())),
            row("its first fragment",            pad8(about(VM_IP, INTERNET).fragment(0, true)), LEASED, "", "", Ok(())),
            row("about another VM's",            about(OTHER_IP, INTERNET),             LEASED, "", "", Err(IcmpQuote)),
            row("the same, a first fragment",    pad8(about(OTHER_IP, INTERNET).fragment(0, true)), LEASED, "", "", Err(IcmpQuote)),
            row("about one to the VM",           about(INTERNET, VM_IP),                LEASED, "", "", Err(IcmpQuote)),
            row("of half a header",              from(GATEWAY_IP, &quote(VM_IP, INTERNET)[..19]), LEASED, "", "", Err(IcmpQuote)),
            row("by another's MAC",              about(VM_IP, INTERNET).from(OTHER),    LEASED, "", "", Err(Isolation)),
        ]);
    }
    check(rows, World::receive);
}

/// A parser that does not stop at the end would find a source route there.
#[test]
fn nothing_but_zeros_is_behind_the_end_of_ip_options() {
    for (options, outcome) in [
        ([0; 8], Ok(())),
        ([1, 1, 0, 0, 0, 0, 0, 0], Ok(())),
        ([0, 131, 7, 4, 1, 2, 3, 4], Err(Ipv4Options)),
        ([0, 0, 0, 0, 0, 0, 0, 1], Err(Ipv4Options)),
        ([0, 1, 1, 1, 0, 0, 0, 0], Err(Ipv4Options)),
    ] {
        let mut world = World::new(LEASED, "", "");
        assert_eq!(world.send(web().options(&options)), outcome, "{options:?}");
        let back = inbound(tcp(INTERNET, VM_IP, 22)).options(&options);
        assert_eq!(world.receive(back), outcome, "{options:?}");
    }
}

/// A place for six bytes to every neighbour.
#[test]
fn an_arp_reply_for_everybody_names_no_target_mac() {
    let reply = || arp(2, (VM, VM_IP), VM_IP).set(32, &[7; 6]);
    let mut world = World::new(LEASED, "", "");
    let passed = world.send_dhcp(reply()).unwrap();
    assert_eq!(passed, reply().set(32, &[0; 6]));
    // Which the gateway may want to read.
    let alone = reply().to(GATEWAY);
    assert_eq!(world.send_dhcp(alone.clone()), Ok(alone));
}

#[test]
fn types_that_no_host_has_a_use_for_are_dropped() {
    let out = |kind| icmp(VM_IP, INTERNET, kind);
    let back = |kind| inbound(icmp(INTERNET, VM_IP, kind));
    for kind in [4, 9, 10, 15, 16, 17, 18, 42, 43] {
        let mut world = World::new(LEASED, "0.0.0.0/0", "");
        assert_eq!(world.send(out(kind)), Err(IcmpType), "{kind}");
        assert_eq!(world.receive(back(kind)), Err(IcmpType), "{kind}");
        let first = pad8(out(kind).fragment(0, true));
        assert_eq!(world.send(first), Err(IcmpType), "{kind} in fragments");
        // However short it is.
        let short = ipv4(1, VM_IP, INTERNET, &[kind]);
        assert_eq!(world.send(short), Err(IcmpType), "{kind} alone");
    }
    let mut world = World::new(LEASED, "", "");
    for kind in [0, 8, 14, 19, 41, 44] {
        assert_eq!(world.send(out(kind)), Ok(()), "{kind}");
        assert_eq!(world.receive(back(kind)), Ok(()), "{kind}");
    }
    // Who may ask for the time is the VM alone.
    assert_eq!(world.send(out(13)), Ok(()));
    assert_eq!(world.receive(back(13)), Err(IcmpType));
    let first = pad8(back(13).fragment(0, true));
    assert_eq!(world.receive(first), Err(IcmpType));
}

#[test]
fn a_next_hop_carries_68_bytes_or_is_a_router_that_tells_nothing() {
    let mut world = World::new(LEASED, "", "");
    for (mtu, outcome) in [
        (0, Ok(())),
        (1, Err(IcmpMtu)),
        (67, Err(IcmpMtu)),
        (68, Ok(())),
        (1400, Ok(())),
    ] {
        let out = icmp_error(VM_IP, INTERNET, [3, 4], mtu, &quote(INTERNET, VM_IP));
        assert_eq!(world.send(out), outcome, "{mtu}");
        let back = icmp_error(INTERNET, VM_IP, [3, 4], mtu, &quote(VM_IP, INTERNET));
        assert_eq!(world.receive(inbound(back)), outcome, "{mtu}");
        // What is there in other errors is no MTU.
        let other = icmp_error(VM_IP, INTERNET, [3, 1], mtu, &quote(INTERNET, VM_IP));
        assert_eq!(world.send(other), Ok(()), "{mtu}");
    }
}

#[test]
fn no_later_fragment_writes_over_a_quote() {
    let mut world = World::new(LEASED, "", "");
    let later = |offset| ipv4(1, VM_IP, INTERNET, &[0; 64]).fragment(offset, false);
    for (offset, outcome) in [(3, Err(Fragment)), (8, Err(Fragment)), (9, Ok(()))] {
        assert_eq!(world.send(later(offset)), outcome, "{offset}");
        let back = inbound(ipv4(1, INTERNET, VM_IP, &[0; 64]).fragment(offset, false));
        assert_eq!(world.receive(back), outcome, "{offset}");
    }
}

#[test]
fn the_hosts_other_addresses_are_sent_the_same_unless_a_prefix_holds_them() {
    let outside = "9.9.9.1";
    for (allow, outcome) in [
        ("", Err(GatewayProtocol)),
        ("@host", Err(GatewayProtocol)),
        ("tcp 9.9.9.1", Err(GatewayProtocol)),
        ("9.9.9.1:443", Err(GatewayProtocol)),
        ("9.9.9.0/24", Ok(())),
    ] {
        let mut world = World::new(LEASED, allow, "");
        for protocol in OTHER_PROTOCOLS {
            let frame = ipv4(protocol, VM_IP, outside, &[0; 64]);
            assert_eq!(
                world.send(frame),
                Ok(()),
                "{protocol}: nobody said whose it is"
            );
        }
        world.rules.set_host_addresses(vec![ip(outside)]);
        for protocol in OTHER_PROTOCOLS {
            let frame = ipv4(protocol, VM_IP, outside, &[0; 64]);
            assert_eq!(world.send(frame), outcome, "{protocol}, {allow}");
        }
        for frame in [tcp(VM_IP, outside, 22), icmp(VM_IP, outside, 8)] {
            assert_eq!(world.send(frame), Ok(()), "{allow}");
        }
        world.rules.set_host_addresses(Vec::new());
        let frame = ipv4(47, VM_IP, outside, &[0; 64]);
        assert_eq!(world.send(frame), Ok(()), "the address is gone");
    }
}

#[test]
fn the_gateway_is_sent_tcp_udp_and_icmp_unless_a_prefix_holds_it() {
    let refused = Err(GatewayProtocol);
    for (state, allow, outcome) in [
        (LEASED, "", refused),
        (LEASED, "@host", refused),
        (LEASED, "10.0.0.0/8", refused),
        (LEASED, "192.168.64.1/32", Ok(())),
        (LEASED, "192.168.64.0/24", Ok(())),
        (OPEN, "0.0.0.0/0", Ok(())),
        (HOST, "", refused),
        (HOST, "192.168.64.1/32", Ok(())),
    ] {
        let mut world = World::new(state, allow, "");
        for protocol in OTHER_PROTOCOLS {
            let to = |address| ipv4(protocol, VM_IP, address, &[0; 64]);
            assert_eq!(world.send(to(GATEWAY_IP)), outcome, "{protocol}, {allow}");
            for offset in [0, 9] {
                let part = to(GATEWAY_IP).fragment(offset, true);
                assert_eq!(
                    world.send(part),
                    outcome,
                    "{protocol} in fragments, {allow}"
                );
            }
            if state.mode == Mode::Nat {
                assert_eq!(world.send(to(INTERNET)), Ok(()), "{protocol}, {allow}");
            }
        }
        for frame in [
            tcp(VM_IP, GATEWAY_IP, 22),
            udp(VM_IP, 4000, GATEWAY_IP, 53, &[]),
            icmp(VM_IP, GATEWAY_IP, 8),
            ipv4(17, VM_IP, GATEWAY_IP, &[0; 64]).fragment(9, true),
        ] {
            assert_eq!(world.send(frame), Ok(()), "{allow}");
        }
    }
    let mut world = World::new(LEASED, "192.168.64.0/24", "@host");
    let gre = ipv4(47, VM_IP, GATEWAY_IP, &[0; 64]);
    assert_eq!(world.send(gre), Err(DestinationBlocked));
}

#[test]
fn router_alert_comes_with_igmp_alone() {
    let alert = |protocol| {
        ipv4(protocol, VM_IP, "224.0.0.22", &[0; 8])
            .options(&[148, 4, 0, 0])
            .to(Mac([1, 0, 0x5e, 0, 0, 22]))
    };
    let mut world = World::new(LEASED, "224.0.0.22/32", "");
    assert_eq!(world.send(alert(2)), Ok(()));
    // RSVP, PIM, and what may be to the same group.
    for protocol in [46, 103, 17] {
        assert_eq!(world.send(alert(protocol)), Err(Ipv4Options), "{protocol}");
    }
    let back = inbound(tcp(INTERNET, VM_IP, 22).options(&[148, 4, 0, 0]));
    assert_eq!(world.receive(back), Err(Ipv4Options));
}

#[test]
fn a_datagram_may_be_shorter_than_its_packet_but_not_in_dhcp_nor_dns_by_exception() {
    let short = |frame: Frame, len: u16| frame.set(38, &len.to_be_bytes());
    let plain = || udp(VM_IP, 4000, INTERNET, 4000, &[7; 20]);
    let mut world = World::new(LEASED, "", "");
    for (len, outcome) in [
        (8, Ok(())),
        (27, Ok(())),
        (28, Ok(())),
        (7, Err(TransportMalformed)),
        (0, Err(TransportMalformed)),
        (29, Err(TransportMalformed)),
    ] {
        let frame = short(plain(), len);
        let sent = world.send_dhcp(frame.clone());
        assert_eq!(sent.clone().map(|_| ()), outcome, "{len}");
        assert!(sent.is_err() || sent == Ok(frame), "{len} was changed");
        let back = inbound(short(udp(INTERNET, 4000, VM_IP, 4000, &[7; 20]), len));
        assert_eq!(world.receive(back), outcome, "{len}");
    }
    for port in [67, 68, 4011] {
        for (from, to) in [(port, 4000), (4000, port)] {
            let out = short(udp(VM_IP, from, GATEWAY_IP, to, &[7; 20]), 27);
            assert_eq!(world.send(out), Err(TransportMalformed), "{from} to {to}");
            let back = inbound(short(udp(GATEWAY_IP, from, VM_IP, to, &[7; 20]), 27));
            assert_eq!(
                world.receive(back),
                Err(TransportMalformed),
                "{from} to {to}"
            );
        }
    }
    let dns = || udp(VM_IP, 4000, NAME_SERVER, 53, &[7; 20]);
    assert_eq!(world.send(dns()), Ok(()));
    assert_eq!(world.send(short(dns(), 27)), Err(DestinationPrivate));
    let open = udp(VM_IP, 4000, GATEWAY_IP, 53, &[7; 20]);
    assert_eq!(world.send(short(open, 27)), Ok(()));
}

#[test]
fn what_is_behind_a_packet_is_cut_off() {
    let mut world = World::new(LEASED, "", "");
    // Some longer than padding may be; fragments, ICMP and options too.
    for frame in [
        web(),
        tcp(VM_IP, INTERNET, 443).set(47, &[2]),
        udp(VM_IP, 1, INTERNET, 2, &[7; 400]),
        icmp(VM_IP, INTERNET, 8),
        web().options(&[1, 1, 1, 0]),
        ipv4(6, VM_IP, INTERNET, &[0; 64]).fragment(9, false),
    ] {
        let trailed = [&frame.0[..], &[0xee; 70]].concat();
        assert_eq!(world.send_dhcp(Frame(trailed)), Ok(frame));
    }
    let answer = inbound(tcp(INTERNET, VM_IP, 50000)).set(47, &[0x12]);
    let trailed = answer.clone().resize(66);
    assert_eq!(world.receive_dhcp(trailed), Ok(answer.clone()));
    // Padding stays, as it came.
    let padded = answer.resize(64).set(60, &[1, 2, 3, 4]);
    assert_eq!(world.receive_dhcp(padded.clone()), Ok(padded));
    // The reasons for a drop are the same with it, and oversize comes first.
    let spoofed = tcp(OTHER_IP, INTERNET, 443).resize(100);
    assert_eq!(world.send(spoofed), Err(SourceAddress));
    assert_eq!(world.send(web().resize(MAX_FRAME)), Ok(()));
    assert_eq!(world.send(web().resize(MAX_FRAME + 1)), Err(Oversize));
}

#[test]
fn a_lease_is_granted_with_two_bytes_behind_every_frame() {
    let longer = |Frame(mut bytes)| {
        bytes.extend([0xee; 2]);
        Frame(bytes)
    };
    let mut world = World::new(FRESH, "", "");
    for (kind, answer) in [(1, Dhcp::reply(2)), (3, Dhcp::ack())] {
        let question = Dhcp::request(kind).address(50, VM_IP).broadcast();
        let sent = world.send_dhcp(longer(question.with_udp_checksum()));
        assert!(is_right(&sent.unwrap()));
        let received = world.receive_dhcp(longer(answer.answer().with_udp_checksum()));
        assert!(is_right(&received.unwrap()));
    }
    assert_eq!(world.send(web()), Ok(()));
    let reply = arp(2, (GATEWAY, GATEWAY_IP), VM_IP).to(VM);
    let padded = reply.clone().resize(60).set(42, b"a letter");
    assert_eq!(world.receive_dhcp(padded.clone()), Ok(padded));
    assert_eq!(world.receive_dhcp(reply.clone().resize(66)), Ok(reply));
}

#[test]
fn arp_says_nothing_but_what_it_asks() {
    let request = || arp(1, (VM, VM_IP), OTHER_IP);
    let mut world = World::new(OPEN, "", "");
    for len in 43..=64 {
        let padded = request().resize(len);
        let letter = Frame([&request().0[..], &vec![0xee; len - 42]].concat());
        assert_eq!(world.send_dhcp(letter), Ok(padded), "{len}");
    }
    let long = Frame([&request().0[..], &[0xee; 23]].concat());
    assert_eq!(world.send_dhcp(long), Ok(request()));
    let named = request().set(32, &[1, 2, 3, 4, 5, 6]);
    assert_eq!(world.send_dhcp(named), Ok(request()));
    // A reply is for whom it names.
    let reply = arp(2, (VM, VM_IP), OTHER_IP).set(32, &OTHER.0).to(OTHER);
    assert_eq!(world.send_dhcp(reply.clone()), Ok(reply));
}

/// A state of [`LEASED`], and a request for the gateway that is for everybody.
fn asking() -> (World, Frame) {
    (World::new(LEASED, "", ""), arp(1, (VM, VM_IP), GATEWAY_IP))
}

#[test]
fn a_request_for_the_gateway_goes_to_it_alone_until_two_have_no_answer() {
    let (mut world, request) = asking();
    let alone = request.clone().to(GATEWAY);
    let answer = || arp(2, (GATEWAY, GATEWAY_IP), VM_IP).to(VM);
    for _ in 0..200 {
        assert_eq!(world.send_dhcp(request.clone()), Ok(alone.clone()));
        assert_eq!(world.send_dhcp(request.clone()), Ok(alone.clone()));
        assert_eq!(world.receive(answer()), Ok(()));
    }
    for expected in [&alone, &alone, &request, &request] {
        assert_eq!(world.send_dhcp(request.clone()).as_ref(), Ok(expected));
    }
    // Neither its own questions nor what others claim is an answer.
    assert_eq!(world.receive(arp(1, (GATEWAY, GATEWAY_IP), VM_IP)), Ok(()));
    assert_eq!(
        world.receive(arp(2, (OTHER, GATEWAY_IP), VM_IP)),
        Err(ArpGateway)
    );
    assert_eq!(world.send_dhcp(request.clone()), Ok(request.clone()));
    // What the VM sends to the gateway by itself does not count.
    assert_eq!(world.receive(answer()), Ok(()));
    for _ in 0..3 {
        assert_eq!(world.send_dhcp(alone.clone()), Ok(alone.clone()));
    }
    assert_eq!(world.send_dhcp(request), Ok(alone));
}

#[test]
fn everybody_is_asked_without_isolation_or_a_gateway_that_is_known() {
    let (_, request) = asking();
    let mut world = World::new(OPEN, "", "");
    assert_eq!(world.send_dhcp(request.clone()), Ok(request.clone()));
    let mut world = World::new(
        State {
            isolation: false,
            ..HOST
        },
        "",
        "",
    );
    assert_eq!(world.send_dhcp(request.clone()), Ok(request.to(GATEWAY)));
    let neighbour = arp(1, (VM, VM_IP), OTHER_IP);
    assert_eq!(world.send_dhcp(neighbour.clone()), Ok(neighbour));
}

#[test]
fn arp_to_everybody_is_limited_and_what_is_for_the_gateway_alone_is_not() {
    let (mut world, request) = asking();
    let announcement = || arp(2, (VM, VM_IP), VM_IP);
    for number in 0..64 {
        assert_eq!(world.send(announcement()), Ok(()), "{number}");
    }
    assert_eq!(world.send(announcement()), Err(ArpRate));
    assert_eq!(world.send(arp(1, (VM, VM_IP), OTHER_IP)), Err(ArpRate));
    // Another fault comes first, and takes nothing.
    assert_eq!(
        world.send(arp(2, (VM, OTHER_IP), VM_IP)),
        Err(ArpSenderAddress)
    );
    for _ in 0..2 {
        assert_eq!(world.send(request.clone()), Ok(()));
    }
    assert_eq!(world.send(request.clone()), Err(ArpRate));
    for _ in 0..200 {
        assert_eq!(world.send(request.clone().to(GATEWAY)), Ok(()));
    }
    world.now = world.now.after(1);
    let passed = (0..100).filter(|_| world.send(announcement()) == Ok(()));
    assert_eq!(passed.count(), 16);
}

#[test]
fn connections_are_opened_8192_at_once_and_then_1000_a_second() {
    let syn = || web().set(47, &[2]);
    let mut world = World::new(LEASED, "", "");
    let opened = |world: &mut World, frame: &Frame| {
        (0..10_000)
            .take_while(|_| world.send(frame.clone()) == Ok(()))
            .count()
    };
    // What is dropped anyway takes nothing, nor do other segments.
    for _ in 0..9000 {
        assert_eq!(
            world.send(tcp(VM_IP, "10.0.0.1", 9).set(47, &[2])),
            Err(DestinationPrivate)
        );
        assert_eq!(world.send(syn().set(47, &[0x12])), Ok(()));
    }
    assert_eq!(opened(&mut world, &syn()), 8192);
    // By whatever means: with ECN, with IP options, with a trailer, in fragments.
    let fragment = ipv4(
        6,
        VM_IP,
        INTERNET,
        &[
            0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ],
    );
    for other in [
        syn().set(47, &[0xc2]),
        syn().options(&[1, 1, 1, 0]),
        syn().resize(60),
        syn().resize(100),
        fragment.fragment(0, true),
    ] {
        assert_eq!(world.send(other), Err(ConnectionRate));
    }
    assert_eq!(world.send(web()), Ok(()));
    assert_eq!(
        world.receive(inbound(tcp(INTERNET, VM_IP, 22)).set(47, &[2])),
        Ok(())
    );
    for seconds in [1, 3] {
        world.now = world.now.after(seconds);
        let count = opened(&mut world, &syn());
        assert_eq!(count, 1000 * usize::try_from(seconds).unwrap());
    }
}

#[test]
fn the_rate_of_connections_is_the_users() {
    let syn = web().set(47, &[2]);
    for (rate, at_once, in_10_seconds) in [(0, 20_000, 20_000), (1, 8192, 10), (2000, 8192, 8192)] {
        let mut world = World::with_connection_rate(LEASED, rate);
        let mut opened = || {
            (0..20_000)
                .take_while(|_| world.send(syn.clone()) == Ok(()))
                .count()
        };
        assert_eq!(opened(), at_once, "{rate}");
        world.now = world.now.after(10);
        let mut opened = || {
            (0..20_000)
                .take_while(|_| world.send(syn.clone()) == Ok(()))
                .count()
        };
        assert_eq!(opened(), in_10_seconds, "{rate}");
    }
}

/// A quote whose first byte, of version and length, is another.
fn with_first(first: u8, source: &str, destination: &str) -> Vec<u8> {
    let mut quote = quote(source, destination);
    quote[0] = first;
    quote
}

/// With zeros behind the payload up to a multiple of eight bytes, as in a first fragment.
fn pad8(frame: Frame) -> Frame {
    let len = 34 + (frame.0.len() - 34).next_multiple_of(8);
    let total = u16::try_from(len - 14).unwrap();
    frame.resize(len).set(16, &total.to_be_bytes())
}
