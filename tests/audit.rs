//! `--audit`: what the policy alone would drop passes and is counted, and nothing else does.

mod frames;

use std::collections::BTreeSet;
use std::sync::Arc;

use frames::*;
use softnet::direction::Direction::{self, Inbound, Outbound};
use softnet::filter::{Audit, DropReason};

/// A VM that is audited.
struct Audited {
    world: World,
    audit: Arc<Audit>,
}

impl Audited {
    fn new(state: State, allow: &str, block: &str) -> Self {
        let (mut world, audit) = (World::new(state, allow, block), Arc::new(Audit::default()));
        world.outbound.audit(Arc::clone(&audit));
        world.inbound.audit(Arc::clone(&audit));
        Self { world, audit }
    }

    #[track_caller]
    fn counted(&self, way: Direction, expected: &[(DropReason, u64)]) {
        assert_eq!(self.audit.passed(way).collect::<Vec<_>>(), expected);
    }
}

/// The only place that lists them beside the code.
#[test]
fn the_documentation_lists_what_is_audited_and_nothing_else() {
    let text = include_str!("../docs/rules.md");
    let (_, section) = text.split_once("## Auditing a policy\n").unwrap();
    let line = section
        .lines()
        .find(|line| line.starts_with("- Let pass:"))
        .unwrap();
    let documented: BTreeSet<_> = line.split('`').skip(1).step_by(2).collect();
    let audited = DropReason::ALL.into_iter().filter(|it| it.is_audited());
    let audited: BTreeSet<_> = audited.map(DropReason::label).collect();
    assert_eq!(documented, audited);
}

#[test]
fn a_destination_that_the_policy_refuses_is_reached_and_counted() {
    for (block, address, reason) in [
        ("", "10.2.3.4", DropReason::DestinationPrivate),
        ("", "169.254.169.254", DropReason::DestinationLinkLocal),
        ("", "100.100.100.200", DropReason::DestinationPrivate),
        ("", "168.63.129.16", DropReason::DestinationMetadata),
        ("", "192.0.2.1", DropReason::DestinationSpecial),
        ("", "240.0.0.1", DropReason::DestinationReserved),
        ("0.0.0.0/0", INTERNET, DropReason::DestinationBlocked),
        ("@host", GATEWAY_IP, DropReason::DestinationBlocked),
        ("0.0.0.0/0:443", INTERNET, DropReason::DestinationBlocked),
        ("tcp 0.0.0.0/0", INTERNET, DropReason::DestinationBlocked),
    ] {
        let frame = || tcp(VM_IP, address, 443);
        let strict = World::new(LEASED, "", block).send(frame());
        let mut audited = Audited::new(LEASED, "", block);
        let passes = audited.world.send(frame());
        if strict == Ok(()) {
            panic!("+{block}: {address} passes anyway");
        }
        assert_eq!(passes, Ok(()), "{address} -{block}");
        assert_eq!(strict, Err(reason), "{address} -{block}");
        audited.counted(Outbound, &[(reason, 1)]);
    }
}

/// Even if it is a rule that refuses them.
#[test]
fn what_is_more_than_policy_stays_closed() {
    for block in [
        "",
        "0.0.0.0/0",
        "192.168.64.0/24",
        "out 0.0.0.0/0",
        "0.0.0.0/0:443",
    ] {
        for (state, frame) in [
            // Neighbours, straight and by way of the gateway.
            (LEASED, tcp(VM_IP, OTHER_IP, 443)),
            (LEASED, tcp(VM_IP, OTHER_IP, 443).to(OTHER)),
            (LEASED, tcp(VM_IP, INTERNET, 443).to(OTHER)),
            (HOST, tcp(VM_IP, INTERNET, 443)),
            // Groups, which are neighbours too, and loopback.
            (LEASED, udp(VM_IP, 5353, "224.0.0.251", 443, &[])),
            (
                LEASED,
                udp(VM_IP, 5353, "255.255.255.255", 443, &[]).to(ALL),
            ),
            (LEASED, udp(VM_IP, 5353, "192.168.64.255", 443, &[]).to(ALL)),
            (LEASED, tcp(VM_IP, "127.0.0.1", 443)),
            (LEASED, tcp(VM_IP, "0.0.0.1", 443)),
            // Somebody else's address or MAC, and no lease.
            (LEASED, tcp(OTHER_IP, INTERNET, 443)),
            (LEASED, tcp(VM_IP, INTERNET, 443).from(OTHER)),
            (FRESH, tcp(VM_IP, INTERNET, 443)),
            (LEASED, arp(2, (VM, GATEWAY_IP), OTHER_IP)),
        ] {
            let strict = World::new(state, "", block).send(frame.clone());
            let mut audited = Audited::new(state, "", block);
            let outcome = audited.world.send(frame.clone());
            assert!(outcome.is_err(), "-{block}: {frame:?}");
            assert_eq!(outcome, strict, "-{block}: {frame:?}");
            audited.counted(Outbound, &[]);
        }
    }
}

/// Whoever tries a policy without enforcing it sees what it would deny.
#[test]
fn what_an_audit_lets_pass_is_listed_as_denied() {
    for block in ["0.0.0.0/0", "out 0.0.0.0/0", "0.0.0.0/0:443"] {
        let mut audited = Audited::new(LEASED, "", block);
        assert_eq!(audited.world.send(tcp(VM_IP, INTERNET, 443)), Ok(()));
        let rows = audited.world.outbound.denied().rows();
        let row = (rows[0].peer.to_string(), rows[0].port, rows[0].count);
        assert_eq!(row, (INTERNET.to_owned(), 443, 1), "-{block}");
    }
}

#[test]
fn a_connection_that_only_the_audit_lets_through_is_tracked_like_any_other() {
    let question = || udp(VM_IP, 5000, INTERNET, 53, &[]);
    let answer = || inbound(udp(INTERNET, 53, VM_IP, 5000, &[]));
    let mut audited = Audited::new(LEASED, "", "0.0.0.0/0,in 0.0.0.0/0");
    assert_eq!(audited.world.send(question()), Ok(()));
    for _ in 0..3 {
        assert_eq!(audited.world.receive(answer()), Ok(()));
        assert_eq!(audited.world.send(question()), Ok(()));
    }
    // Once, by the packet that opened it.
    audited.counted(Outbound, &[(DropReason::DestinationBlocked, 1)]);
    audited.counted(Inbound, &[]);
}

#[test]
fn who_gets_in_by_the_audit_is_counted_once_and_answered() {
    let question = || inbound(udp(INTERNET, 5000, VM_IP, 53, &[]));
    let mut audited = Audited::new(LEASED, "", "0.0.0.0/0,in 0.0.0.0/0");
    assert_eq!(audited.world.receive(question()), Ok(()));
    assert_eq!(
        audited.world.send(udp(VM_IP, 53, INTERNET, 5000, &[])),
        Ok(())
    );
    assert_eq!(audited.world.receive(question()), Ok(()));
    audited.counted(Inbound, &[(DropReason::SourceBlocked, 1)]);
    audited.counted(Outbound, &[]);
}

#[test]
fn a_packet_of_no_connection_passes_as_untracked() {
    // An ACK of a connection that nobody opened.
    let stray = inbound(tcp(INTERNET, VM_IP, 22)).set(47, &[0x10]);
    let allow = "in tcp 0.0.0.0/0 to 22";
    let strict = World::new(LEASED, allow, "").receive(stray.clone());
    assert_eq!(strict, Err(DropReason::Untracked));
    let mut audited = Audited::new(LEASED, allow, "");
    assert_eq!(audited.world.receive(stray), Ok(()));
    audited.counted(Inbound, &[(DropReason::Untracked, 1)]);
}

#[test]
fn neighbours_do_not_get_in() {
    let frame = || inbound(tcp(OTHER_IP, VM_IP, 22)).from(OTHER);
    let mut audited = Audited::new(LEASED, "", "in 0.0.0.0/0");
    let outcome = audited.world.receive(frame());
    assert_eq!(outcome, Err(DropReason::Isolation));
    audited.counted(Inbound, &[]);
}

#[test]
fn a_lease_that_ends_is_enforced() {
    let mut audited = Audited::new(EXPIRED, "", "0.0.0.0/0");
    assert!(audited.world.send(web()).is_err());
    audited.counted(Outbound, &[]);
}
