//! Every reason for a drop is reached, and by nothing but what it is about.
//!
//! For each reason there is a pair: a frame that earns it, and its twin that passes and
//! differs in one point only. A new reason without a pair does not compile.

#[path = "drops/crowds.rs"]
mod crowds;
mod frames;

use std::collections::BTreeSet;

use crowds::*;
use frames::*;
use softnet::filter::{DropReason, Mode};
use softnet::wire::Mac;

#[test]
fn every_reason_of_the_filter_has_a_frame_that_earns_it_and_a_twin_that_passes() {
    for reason in DropReason::ALL {
        let Some(pair) = pair(reason) else {
            assert!(FORWARDERS.contains(&reason), "{}", reason.label());
            continue;
        };
        let (earns, passes) = (pair.dropped.outcome(), pair.twin.outcome());
        assert_eq!(earns, Err(reason), "{}", reason.label());
        assert_eq!(passes, Ok(()), "the twin of {}", reason.label());
    }
}

#[test]
fn labels_are_distinct_and_indices_count_up() {
    let mut labels: Vec<_> = DropReason::ALL
        .iter()
        .map(|reason| reason.label())
        .collect();
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), DropReason::ALL.len());
    for (index, reason) in DropReason::ALL.iter().enumerate() {
        assert_eq!(reason.index(), index, "{}", reason.label());
        assert!(
            reason
                .label()
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        );
    }
}

#[test]
fn the_documentation_has_a_row_for_every_reason_and_no_other_row() {
    let documented = documented_reasons(include_str!("../docs/filtering.md"));
    for reason in DropReason::ALL {
        let label = reason.label();
        assert!(documented.contains(label), "{label}: no row");
    }
    let labels: BTreeSet<_> = DropReason::ALL
        .iter()
        .map(|reason| reason.label())
        .collect();
    let unknown: Vec<_> = documented.difference(&labels).collect();
    assert!(
        unknown.is_empty(),
        "no reason has such a label: {unknown:?}"
    );
}

/// The first column of every table of reasons, and those in the sentence about the forwarder.
fn documented_reasons(text: &str) -> BTreeSet<&str> {
    let is_row = |line: &&str| line.starts_with("| `");
    let tables = text.split("\n| reason |").skip(1).flat_map(|table| {
        let rows = table.lines().skip(2).take_while(is_row);
        rows.filter_map(|row| row.split('`').nth(1))
    });
    let forwarders = text
        .lines()
        .filter(|line| line.starts_with("From the forwarder"));
    let forwarders = forwarders.flat_map(|line| line.split('`').skip(1).step_by(2));
    tables.chain(forwarders).collect()
}

/// What the forwarder gives, not the filter; tests/forwarding.rs has them.
const FORWARDERS: [DropReason; 5] = [
    DropReason::VmBusy,
    DropReason::VmRefused,
    DropReason::VmGone,
    DropReason::HostRefused,
    DropReason::Stopping,
];

struct Pair {
    dropped: Case,
    twin: Case,
}

struct Case {
    state: State,
    block: &'static str,
    pass: fn(&mut World, Frame) -> Outcome,
    frame: Frame,
}

impl Case {
    fn outcome(self) -> Outcome {
        (self.pass)(&mut World::new(self.state, "", self.block), self.frame)
    }
}

/// Two frames leave the VM in the same state.
fn sent(state: State, dropped: Frame, twin: Frame) -> Option<Pair> {
    sent_in(state, dropped, state, twin)
}

fn sent_in(state: State, dropped: Frame, twin_state: State, twin: Frame) -> Option<Pair> {
    let case = |state, frame| Case {
        state,
        block: "",
        pass: World::send,
        frame,
    };
    Some(Pair {
        dropped: case(state, dropped),
        twin: case(twin_state, twin),
    })
}

/// Two frames in the same state, each with its way to pass.
fn both(
    (state, block): (State, &'static str),
    pass: [fn(&mut World, Frame) -> Outcome; 2],
    frames: [Frame; 2],
) -> Option<Pair> {
    let case = |pass, frame| Case {
        state,
        block,
        pass,
        frame,
    };
    let [dropped, twin] = frames;
    Some(Pair {
        dropped: case(pass[0], dropped),
        twin: case(pass[1], twin),
    })
}

/// Two frames arrive for the VM in the same state.
fn received(state: State, dropped: Frame, twin: Frame) -> Option<Pair> {
    both((state, ""), [World::receive; 2], [dropped, twin])
}

/// A frame leaves the VM after so many others like it, and its twin after one less.
fn after(frame: &Frame, pass: [fn(&mut World, Frame) -> Outcome; 2]) -> Option<Pair> {
    both((LEASED, ""), pass, [frame.clone(), frame.clone()])
}

/// Two frames where connections are tracked, since 5.6.7.8 may open none.
fn tracked(pass: [fn(&mut World, Frame) -> Outcome; 2], frames: [Frame; 2]) -> Option<Pair> {
    both((LEASED, "in 5.6.7.8"), pass, frames)
}

/// A datagram to port 2, of which fragments of 40 bytes are parts.
fn long_datagram(from: &str, to: &str) -> Frame {
    let mut payload = vec![0, 1, 0, 2, 1, 0, 0, 0];
    payload.resize(40, 0);
    ipv4(17, from, to, &payload)
}

fn pair(reason: DropReason) -> Option<Pair> {
    let tcp_to = |destination| tcp(VM_IP, destination, 443);
    let web = || tcp_to(INTERNET);
    let protocol = |ethertype: u16| sent(LEASED, web().set(12, &ethertype.to_be_bytes()), web());
    let request = Dhcp::request;
    let discover = || request(1).broadcast();
    let renewal = |client| Dhcp {
        ciaddr: client,
        ..request(3)
    };
    let destination = |address| sent(LEASED, tcp_to(address), web());
    match reason {
        DropReason::Runt => sent(LEASED, Frame(vec![0; 13]), web()),
        DropReason::Oversize => {
            let of = |len| udp(VM_IP, 1, INTERNET, 2, &vec![0; len - 42]);
            sent(LEASED, of(MAX_FRAME + 1), of(MAX_FRAME))
        }
        DropReason::SourceMac => sent(LEASED, web().from(OTHER), web()),
        DropReason::DestinationMac => sent(LEASED, web().to(OTHER), web()),
        DropReason::DestinationGroup => sent(LEASED, web().to(ALL), web()),
        DropReason::Isolation => {
            let frame = inbound(tcp(INTERNET, VM_IP, 80));
            received(LEASED, frame.clone().from(OTHER), frame)
        }
        DropReason::Vlan => protocol(0x8100),
        DropReason::Ipv6 => protocol(0x86dd),
        DropReason::Ipv6InIpv4 => sent(LEASED, web().set(23, &[41]), web()),
        DropReason::Llc => protocol(40),
        DropReason::Eapol => protocol(0x888e),
        DropReason::EtherType => protocol(0x88cc),
        DropReason::ArpMalformed => {
            let frame = arp(1, (VM, VM_IP), GATEWAY_IP);
            sent(LEASED, frame.clone().set(18, &[7]), frame)
        }
        DropReason::ArpOperation => sent(
            LEASED,
            arp(3, (VM, VM_IP), GATEWAY_IP),
            arp(1, (VM, VM_IP), GATEWAY_IP),
        ),
        DropReason::ArpSenderMac => {
            let frame = arp(2, (VM, VM_IP), GATEWAY_IP);
            sent(LEASED, frame.clone().set(22, &OTHER.0), frame)
        }
        DropReason::ArpSenderAddress => sent(
            LEASED,
            arp(2, (VM, OTHER_IP), GATEWAY_IP),
            arp(2, (VM, VM_IP), GATEWAY_IP),
        ),
        DropReason::ArpGateway => {
            let frame = arp(2, (GATEWAY, GATEWAY_IP), VM_IP);
            received(
                OPEN,
                frame.clone().set(6, &OTHER.0).set(22, &OTHER.0),
                frame,
            )
        }
        DropReason::ArpProbe => {
            let probe = |target| arp(1, (VM, "0.0.0.0"), target);
            sent(OFFERED, probe(OTHER_IP), probe(VM_IP))
        }
        DropReason::Ipv4Malformed => {
            sent(LEASED, web().set(14, &[0x46, 0]).set(16, &[0, 22]), web())
        }
        DropReason::Ipv4Options => sent(
            LEASED,
            web().options(&[131, 3, 4, 0]),
            web().options(&[1, 1, 1, 0]),
        ),
        DropReason::Fragment => {
            let later = |offset| ipv4(6, VM_IP, INTERNET, &[0; 64]).fragment(offset, false);
            sent(LEASED, later(1), later(3))
        }
        DropReason::TransportMalformed => {
            let datagram = udp(VM_IP, 1, INTERNET, 2, &[0; 8]);
            sent(LEASED, datagram.clone().set(38, &[0, 17]), datagram)
        }
        DropReason::IcmpRedirect => received(
            LEASED,
            inbound(icmp(GATEWAY_IP, VM_IP, 5)),
            inbound(icmp(GATEWAY_IP, VM_IP, 8)),
        ),
        DropReason::IcmpType => sent(LEASED, icmp(VM_IP, INTERNET, 17), icmp(VM_IP, INTERNET, 19)),
        DropReason::IcmpMtu => {
            let needs = |mtu| {
                inbound(icmp_error(
                    INTERNET,
                    VM_IP,
                    [3, 4],
                    mtu,
                    &quote(VM_IP, INTERNET),
                ))
            };
            received(LEASED, needs(67), needs(68))
        }
        DropReason::IcmpQuote => {
            let about = |to| icmp_error(VM_IP, INTERNET, [3, 3], 0, &quote(INTERNET, to));
            sent(LEASED, about(OTHER_IP), about(VM_IP))
        }
        DropReason::SourceBlocked => {
            let from = |source| inbound(tcp(source, VM_IP, 443));
            tracked([World::receive; 2], [from("5.6.7.8"), from(INTERNET)])
        }
        DropReason::Untracked => {
            let part =
                |offset, more| inbound(long_datagram(INTERNET, VM_IP).fragment(offset, more));
            tracked([World::receive; 2], [part(4, false), part(0, true)])
        }
        DropReason::FlowsFull => tracked(
            [in_a_full_table::<0>, in_a_full_table::<181>],
            [
                udp(VM_IP, 1, INTERNET, 2, &[]),
                udp(VM_IP, 1, INTERNET, 2, &[]),
            ],
        ),
        DropReason::ServerLimit => {
            let datagram = || udp(VM_IP, 1, INTERNET, 2, &[]);
            tracked(
                [behind_unanswered::<7680>, behind_unanswered::<7679>],
                [datagram(), datagram()],
            )
        }
        DropReason::FragmentsFull => {
            let first = long_datagram(VM_IP, INTERNET).fragment(0, true);
            tracked(
                [behind_parts::<64>, behind_parts::<63>],
                [first.clone(), first],
            )
        }
        DropReason::GatewayProtocol => {
            let gre = |to| ipv4(47, VM_IP, to, &[0; 8]);
            sent(LEASED, gre(GATEWAY_IP), gre(INTERNET))
        }
        DropReason::ConnectionRate => after(&web().set(47, &[2]), [behind::<8192>, behind::<8191>]),
        DropReason::ArpRate => after(&arp(2, (VM, VM_IP), VM_IP), [behind::<64>, behind::<63>]),
        DropReason::NoLease => sent_in(OFFERED, web(), LEASED, web()),
        DropReason::LeaseExpired => sent_in(EXPIRED, web(), LEASED, web()),
        DropReason::SourceAddress => sent(LEASED, tcp(OTHER_IP, INTERNET, 443), web()),
        DropReason::DestinationAddress => received(
            LEASED,
            inbound(tcp(INTERNET, "192.168.64.3", 80)),
            inbound(tcp(INTERNET, VM_IP, 80)),
        ),
        DropReason::DestinationBlocked => Some(Pair {
            dropped: Case {
                state: LEASED,
                block: "1.2.3.4/32",
                pass: World::send,
                frame: web(),
            },
            twin: Case {
                state: LEASED,
                block: "1.2.3.5/32",
                pass: World::send,
                frame: web(),
            },
        }),
        DropReason::DestinationPrivate => destination("10.0.0.1"),
        DropReason::DestinationLinkLocal => destination("169.254.169.254"),
        DropReason::DestinationMetadata => destination("168.63.129.16"),
        DropReason::DestinationLocal => destination("127.0.0.1"),
        DropReason::DestinationSpecial => destination("192.0.2.1"),
        DropReason::DestinationMulticast => destination("224.0.0.251"),
        DropReason::DestinationReserved => destination("240.0.0.1"),
        DropReason::DestinationBroadcast => destination("255.255.255.255"),
        DropReason::HostOnly => sent_in(
            HOST,
            web(),
            State {
                mode: Mode::Nat,
                ..HOST
            },
            web(),
        ),
        DropReason::DhcpMalformed => {
            sent(FRESH, request(1).option(53, &[1]).broadcast(), discover())
        }
        DropReason::DhcpRole => {
            let from = |port| {
                udp(
                    "0.0.0.0",
                    port,
                    "255.255.255.255",
                    67,
                    &request(1).message(),
                )
            };
            sent(FRESH, from(67).to(ALL), from(68).to(ALL))
        }
        DropReason::DhcpDestination => {
            let to = |server| udp(VM_IP, 68, server, 67, &renewal(VM_IP).message());
            sent(LEASED, to(INTERNET), to(GATEWAY_IP))
        }
        DropReason::DhcpSource => sent(
            LEASED,
            renewal(VM_IP).unicast(OTHER_IP),
            renewal(VM_IP).unicast(VM_IP),
        ),
        DropReason::DhcpHardwareAddress => sent(
            FRESH,
            Dhcp {
                chaddr: OTHER,
                ..request(1)
            }
            .broadcast(),
            discover(),
        ),
        DropReason::DhcpRelay => sent(
            FRESH,
            Dhcp {
                giaddr: OTHER_IP,
                ..request(1)
            }
            .broadcast(),
            discover(),
        ),
        DropReason::DhcpMessageType => sent(FRESH, request(2).broadcast(), discover()),
        DropReason::DhcpClientAddress => sent(
            LEASED,
            renewal(OTHER_IP).broadcast(),
            renewal(VM_IP).broadcast(),
        ),
        DropReason::DhcpServerIdentifier => {
            let select = |server| request(3).address(54, server).broadcast();
            sent(OFFERED, select(OTHER_IP), select(GATEWAY_IP))
        }
        DropReason::DhcpRelease => {
            let release = |client| {
                Dhcp {
                    ciaddr: client,
                    ..request(7)
                }
                .unicast(VM_IP)
            };
            sent(LEASED, release(OTHER_IP), release(VM_IP))
        }
        DropReason::DhcpDecline => {
            let decline = |address| request(4).address(50, address).broadcast();
            sent(OFFERED, decline(OTHER_IP), decline(VM_IP))
        }
        DropReason::DhcpRogueServer => received(
            REQUESTS,
            Dhcp::ack().answer().from(OTHER),
            Dhcp::ack().answer(),
        ),
        DropReason::DhcpGrantedAddress => {
            let grant = |address| {
                Dhcp {
                    yiaddr: address,
                    ..Dhcp::ack()
                }
                .answer()
            };
            received(REQUESTS, grant("10.0.0.2"), grant(VM_IP))
        }
        DropReason::DhcpTransaction => {
            let ack = |xid| Dhcp { xid, ..Dhcp::ack() }.answer();
            received(REQUESTS, ack(0x1234_5679), ack(0x1234_5678))
        }
        DropReason::DhcpOwnAnswer => {
            // To the VM's own question, and to softnet's.
            let grants: [fn(&mut World, Frame) -> Outcome; 2] = [
                |world, frame| {
                    let question = world.provoke(&tcp(VM_IP, INTERNET, 443)).unwrap().0;
                    world.receive(frame.set(46, &question[46..50]))
                },
                World::request,
            ];
            let case = |pass| Case {
                state: FRESH,
                block: "",
                pass,
                frame: Dhcp::ack().answer(),
            };
            let [dropped, twin] = grants.map(case);
            Some(Pair { dropped, twin })
        }
        DropReason::DhcpClientIdentifier => {
            let ack = |mac: Mac| {
                Dhcp::ack()
                    .option(61, &[&[1], &mac.0[..]].concat())
                    .answer()
            };
            received(REQUESTS, ack(OTHER), ack(VM))
        }
        DropReason::DhcpOversize => {
            // The identifier grows by five bytes.
            let discover = |len| request(1).option(61, &[1, 2]).padded_to(len).broadcast();
            sent(FRESH, discover(MAX_FRAME - 4), discover(MAX_FRAME - 5))
        }
        DropReason::DhcpRate => {
            // 32 messages may come at once.
            let asking: [fn(&mut World, Frame) -> Outcome; 2] = [
                |world, frame| {
                    (0..32).for_each(|_| world.ask(1));
                    world.send(frame)
                },
                |world, frame| {
                    (0..31).for_each(|_| world.ask(1));
                    world.send(frame)
                },
            ];
            let case = |pass| Case {
                state: FRESH,
                block: "",
                pass,
                frame: discover(),
            };
            Some(Pair {
                dropped: case(asking[0]),
                twin: case(asking[1]),
            })
        }
        DropReason::DhcpAddressTaken => {
            let grant = |address| {
                Dhcp {
                    yiaddr: address,
                    ..Dhcp::ack()
                }
                .answer()
            };
            let case = |address| Case {
                state: FRESH,
                block: "",
                pass: World::request,
                frame: grant(address),
            };
            Some(Pair {
                dropped: case(TAKEN_IP),
                twin: case(VM_IP),
            })
        }
        DropReason::VmBusy
        | DropReason::VmRefused
        | DropReason::VmGone
        | DropReason::HostRefused
        | DropReason::Stopping => None,
    }
}

#[test]
fn a_reserved_group_of_bridges_is_never_reached() {
    // 802.1Q has bridges keep these to themselves, but not every bridge does.
    let bridges = Mac([0x01, 0x80, 0xc2, 0, 0, 0]);
    let mut world = World::new(OPEN, "0.0.0.0/0", "");
    let frame = tcp(VM_IP, INTERNET, 443);
    assert_eq!(world.send(frame.clone()), Ok(()));
    assert_eq!(
        world.send(frame.to(bridges)),
        Err(DropReason::DestinationGroup)
    );
}
