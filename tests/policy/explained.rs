//! What `softnet check` says of a packet is what the filter does with it.

use softnet::direction::Direction;
use softnet::filter::policy::{Peer, Place};
use softnet::filter::{Mode, Policy};

use super::connections::{HIGH, SYN, segment};
use super::*;

const PEERS: [&str; 12] = [
    INTERNET,
    GATEWAY_IP,
    OTHER_IP,
    "192.168.64.255",
    "192.168.65.1",
    "10.1.2.3",
    "127.0.0.1",
    "0.1.2.3",
    "169.254.169.254",
    "168.63.129.16",
    "203.0.113.7",
    "240.0.0.1",
];

const POLICIES: [(&str, &str); 20] = [
    ("", ""),
    ("", "0.0.0.0/0"),
    ("@host", "0.0.0.0/0"),
    ("0.0.0.0/0", ""),
    ("0.0.0.0/0", "@private"),
    ("0.0.0.0/0:443", "0.0.0.0/0"),
    ("192.168.0.0/16", ""),
    ("192.168.0.0/16:443", ""),
    ("192.168.64.50:443", ""),
    ("192.168.64.0/24", "192.168.64.50"),
    ("@metadata,@private", "tcp 0.0.0.0/0:443"),
    ("0.0.0.0/1,128.0.0.0/1", ""),
    ("127.0.0.0/8,0.0.0.0/8", ""),
    ("in @host", "0.0.0.0/0"),
    ("in 192.168.64.50", ""),
    ("in tcp 0.0.0.0/0 to 443", "in 0.0.0.0/0"),
    ("out 0.0.0.0/0:443,out icmp 0.0.0.0/0", "out 0.0.0.0/0"),
    ("10.0.0.0/8", "in udp 0.0.0.0/0"),
    ("tcp 1.2.3.4", "1.2.3.4,in 1.2.3.4"),
    ("", "@host,in @host"),
];

/// A packet that opens a connection, as the filter sees it first.
fn opening(peer: &str, protocol: &str, from: Direction) -> Frame {
    let ends = |port| match from {
        Direction::Outbound => ((VM_IP, HIGH), (peer, port)),
        Direction::Inbound => ((peer, HIGH), (VM_IP, port)),
    };
    let (source, destination) = ends(443);
    let frame = match protocol {
        ":443/tcp" => segment(source, destination, SYN),
        ":443/udp" => udp(source.0, HIGH, destination.0, 443, &[]),
        _ => icmp(source.0, destination.0, 8),
    };
    match from {
        Direction::Outbound => frame,
        Direction::Inbound => inbound(frame),
    }
}

#[test]
fn what_is_said_of_a_packet_becomes_of_it() {
    let mut wrong = Vec::new();
    for (allow, block) in POLICIES {
        let (policy, _) = Policy::parse(allow, block).unwrap();
        for state in [LEASED, HOST] {
            let state = State {
                isolation: !policy.wants_isolation_off(),
                ..state
            };
            let place = Place {
                gateway: ip(GATEWAY_IP),
                subnet: Some("192.168.64.0/24".parse().unwrap()),
                mode: state.mode,
            };
            for peer in PEERS {
                for protocol in [":443/tcp", ":443/udp", "/icmp"] {
                    for from in [Direction::Outbound, Direction::Inbound] {
                        let mut world = World::new(state, allow, block);
                        let frame = opening(peer, protocol, from);
                        let outcome = match from {
                            Direction::Outbound => world.send(frame),
                            Direction::Inbound => world.receive(frame),
                        };
                        let named: Peer = format!("{peer}{protocol}").parse().unwrap();
                        let said = policy.explain(&place, from, &named);
                        let done = outcome.err().map(DropReason::label);
                        if said.dropped != done {
                            let host = if state.mode == Mode::Host {
                                " in host-only mode"
                            } else {
                                ""
                            };
                            wrong.push(format!(
                                "+{allow} -{block}{host}, {from} {named}: {said}, but {done:?}"
                            ));
                        }
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}: {wrong:#?}", wrong.len());
}
