//! The filter's rules as one table: a frame, what is known, the policy, and the outcome.
//!
//! A row reads: this frame, in this state, with these rules, has this outcome. Each frame is
//! right but for what the row is about, and for most that are dropped there is one that
//! passes beside it. The edges of the special-purpose ranges are made from a list below.

mod changes;
mod connections;
mod ends;
mod explained;
#[path = "../frames/mod.rs"]
mod frames;
mod inbound;
mod outbound;
mod packets;

use DropReason::*;
use frames::*;
use softnet::filter::DropReason;

#[test]
fn special_purpose_ranges_are_refused_from_edge_to_edge() {
    // The registry of RFC 6890 for IPv4, what it has as not globally reachable, with
    // multicast, the withdrawn relays of 6to4, and two addresses of metadata services.
    for (range, reason) in [
        ("0.0.0.0/8", DestinationLocal),
        ("10.0.0.0/8", DestinationPrivate),
        ("100.64.0.0/10", DestinationPrivate),
        ("127.0.0.0/8", DestinationLocal),
        ("168.63.129.16/32", DestinationMetadata),
        ("169.254.0.0/16", DestinationLinkLocal),
        ("172.16.0.0/12", DestinationPrivate),
        ("192.0.0.0/24", DestinationSpecial),
        ("192.0.2.0/24", DestinationSpecial),
        ("192.80.8.124/32", DestinationMetadata),
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
    assert!(wrong.is_empty(), "{wrong:#?}");
}
