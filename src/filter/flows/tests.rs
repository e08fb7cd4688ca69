//! Tests the table alone: each rule by name.
#![expect(clippy::cast_possible_truncation, reason = "small numbers")]

use super::*;
use crate::direction::Direction::{Inbound, Outbound};

pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const ACK: u8 = 16;
const PEER: u32 = 0x0102_0304;

pub(super) const fn key(protocol: u8, vm_port: u16, peer_port: u16) -> Key {
    Key::new(protocol, vm_port, PEER, peer_port)
}

pub(super) const TCP: Key = key(6, 50_000, 443);
pub(super) const UDP: Key = key(17, 50_000, 443);

/// A table and a clock.
pub(super) struct World {
    pub(super) flows: Flows,
    pub(super) context: Context,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            flows: Flows::new(),
            context: Context {
                policy: 1,
                lease: 7,
                now: Tick::from_secs(1000),
            },
        }
    }

    pub(super) fn find(&self, from: Direction, key: Key, kind: Kind) -> Found {
        self.flows.find(from, key, kind, self.context)
    }

    /// Like the filter where the rules allow everything.
    pub(super) fn pass(&self, from: Direction, key: Key, kind: Kind) -> Found {
        let found = self.find(from, key, kind);
        if found == Found::Opens {
            self.flows.open(from, key, kind, self.context).unwrap();
        }
        found
    }

    pub(super) fn tcp(&self, from: Direction, flags: u8) -> Found {
        self.pass(from, TCP, Kind::Tcp(flags))
    }

    pub(super) fn wait(&mut self, seconds: u32) {
        self.context.now = self.context.now.after(seconds);
    }

    /// With a connection that the VM has opened.
    pub(super) fn connected() -> Self {
        let world = Self::new();
        assert_eq!(world.tcp(Outbound, SYN), Found::Opens);
        assert_eq!(world.tcp(Inbound, SYN | ACK), Found::Flow);
        assert_eq!(world.tcp(Outbound, ACK), Found::Flow);
        world
    }
}

#[test]
fn an_answer_belongs_to_what_was_asked_and_to_nothing_else() {
    let world = World::connected();
    assert_eq!(world.tcp(Inbound, ACK), Found::Flow);
    for other in [
        key(6, 50_001, 443),
        key(6, 50_000, 444),
        key(17, 50_000, 443),
    ] {
        assert_ne!(world.find(Inbound, other, Kind::Tcp(ACK)), Found::Flow);
    }
    assert_eq!(
        world.find(Inbound, key(6, 1, 1), Kind::Tcp(ACK)),
        Found::Untracked
    );
    assert_eq!(
        world.find(Inbound, key(6, 1, 1), Kind::Tcp(SYN | ACK)),
        Found::Untracked
    );
    assert_eq!(
        world.find(Inbound, key(6, 1, 1), Kind::Tcp(SYN)),
        Found::Opens
    );
}

#[test]
fn the_vm_may_go_on_with_what_the_table_does_not_know_and_nobody_else() {
    let world = World::new();
    assert_eq!(world.find(Inbound, TCP, Kind::Tcp(ACK)), Found::Untracked);
    for flags in [RST, RST | ACK, FIN | ACK, SYN | ACK, 0] {
        assert_eq!(
            world.find(Outbound, TCP, Kind::Tcp(flags)),
            Found::Untracked,
            "{flags}"
        );
    }
    assert_eq!(world.tcp(Outbound, ACK), Found::Opens);
    assert_eq!(world.tcp(Inbound, ACK), Found::Flow);
    assert_eq!(world.tcp(Outbound, ACK), Found::Flow);
    assert_eq!(world.flows.counts(), (1, 0));
}

#[test]
fn a_syn_goes_to_the_rules_but_for_one_that_is_sent_again_or_by_both_at_once() {
    let world = World::new();
    assert_eq!(world.tcp(Outbound, SYN), Found::Opens);
    assert_eq!(world.tcp(Outbound, SYN), Found::Flow);
    assert_eq!(world.tcp(Inbound, SYN), Found::Flow);
    assert_eq!(world.tcp(Outbound, SYN | ACK), Found::Flow);
    assert_eq!(world.flows.counts(), (1, 0));
    for from in [Outbound, Inbound] {
        let world = World::connected();
        assert_eq!(world.find(from, TCP, Kind::Tcp(SYN)), Found::Opens);
        world.tcp(from, FIN | ACK);
        assert_eq!(world.tcp(from, SYN), Found::Opens);
        assert_eq!(world.flows.counts(), (1, 1), "opened anew");
    }
}

#[test]
fn flows_end_by_silence() {
    let closed = |flags: u8| {
        let world = World::connected();
        world.tcp(Inbound, flags);
        world
    };
    let embryonic = World::new();
    embryonic.tcp(Outbound, SYN);
    let is_open = |world: &World| world.flows.is_related(TCP, world.context);
    for (mut world, seconds) in [
        (embryonic, 30),
        (World::connected(), 7440),
        (closed(FIN | ACK), 120),
        (closed(RST), 90),
    ] {
        world.wait(seconds - 1);
        assert!(is_open(&world), "{seconds}");
        assert_eq!(
            world.tcp(Outbound, ACK),
            Found::Flow,
            "{seconds}: refreshed"
        );
        world.wait(seconds - 1);
        assert!(is_open(&world), "{seconds}");
        world.wait(1);
        assert_eq!(
            world.find(Inbound, TCP, Kind::Tcp(ACK)),
            Found::Untracked,
            "{seconds}"
        );
    }
}

#[test]
fn a_datagram_that_is_answered_keeps_its_flow_longer_but_for_a_query() {
    for (key, answered, seconds) in [
        (UDP, false, 30),
        (UDP, true, 180),
        (key(17, 50_000, 53), true, 10),
        (key(47, 0, 0), false, 120),
        (key(47, 0, 0), true, 600),
    ] {
        let mut world = World::new();
        let kind = if key.protocol == 17 {
            Kind::Udp
        } else {
            Kind::Other
        };
        world.pass(Outbound, key, kind);
        if answered {
            assert_eq!(world.find(Inbound, key, kind), Found::Flow);
        }
        let expected = |world: &World| world.flows.is_related(key, world.context);
        world.wait(seconds - 1);
        assert!(expected(&world), "{key:?}");
        world.wait(1);
        assert!(!expected(&world), "{key:?}");
    }
}

#[test]
fn an_echo_reply_answers_its_request() {
    let world = World::new();
    let echo = |is_request| Kind::Echo { is_request };
    let (key, another) = (key(1, 77, 0), key(1, 78, 0));
    assert_eq!(world.find(Inbound, key, echo(false)), Found::Untracked);
    assert_eq!(world.pass(Outbound, key, echo(true)), Found::Opens);
    assert_eq!(world.find(Inbound, key, echo(false)), Found::Flow);
    assert_eq!(world.find(Inbound, another, echo(false)), Found::Untracked);
}

#[test]
fn a_forged_reset_ends_nothing() {
    let mut world = World::connected();
    world.tcp(Inbound, RST);
    // The host that seems to have sent it goes on.
    assert_eq!(world.tcp(Inbound, ACK), Found::Flow);
    world.wait(7000);
    assert_eq!(world.tcp(Outbound, ACK), Found::Flow);
}

#[test]
fn another_policy_has_each_flow_judged_once() {
    let mut world = World::connected();
    world.context.policy = 2;
    let stale = Found::Stale { opener: Outbound };
    assert_eq!(world.tcp(Inbound, ACK), stale);
    assert_eq!(world.tcp(Outbound, ACK), stale);
    world.flows.confirm(TCP, world.context);
    assert_eq!(world.tcp(Inbound, ACK), Found::Flow);
    world.context.policy = 3;
    assert_eq!(world.tcp(Inbound, ACK), stale);
    world.flows.cut(TCP, world.context);
    assert_eq!(world.tcp(Inbound, ACK), Found::Untracked);
    assert_eq!(world.flows.counts(), (0, 0));
}

#[test]
fn another_lease_has_no_flows() {
    let mut world = World::connected();
    world.context.lease = 8;
    assert_eq!(world.tcp(Inbound, ACK), Found::Untracked);
    assert!(!world.flows.is_related(TCP, world.context));
}

#[test]
fn a_flood_of_syns_takes_a_quarter_of_the_table_and_no_flow_that_is_confirmed() {
    let world = World::connected();
    let mut denied = 0;
    for port in 0..60_000_u32 {
        let [vm, peer] = [(port / 200) as u16, (port % 200) as u16];
        let syn = key(6, vm, 1000 + peer);
        denied += usize::from(
            world
                .flows
                .open(Outbound, syn, Kind::Tcp(SYN), world.context)
                .is_err(),
        );
    }
    let (live, embryonic) = world.flows.counts();
    assert!(
        embryonic <= EMBRYONIC_MAX && live <= EMBRYONIC_MAX + 1,
        "{live} {embryonic}"
    );
    assert_eq!(world.tcp(Inbound, ACK), Found::Flow);
    // A flow that replaces an older one is not denied.
    assert!(denied < 30_000, "{denied}");
}

#[test]
fn a_table_of_confirmed_flows_denies_new_ones() {
    let mut world = World::new();
    let nth = |number: u32| key(17, (number >> 8) as u16, (number & 255) as u16);
    let mut open = 0;
    for number in 0..2 * FLOWS_MAX {
        let key = nth(number);
        if world
            .flows
            .open(Outbound, key, Kind::Udp, world.context)
            .is_ok()
        {
            open += u32::from(world.find(Inbound, key, Kind::Udp) == Found::Flow);
        }
    }
    assert!((60_000..=FLOWS_MAX).contains(&open), "{open}");
    assert_eq!(world.flows.counts().0, open);
    assert_eq!(
        world
            .flows
            .open(Outbound, TCP, Kind::Tcp(SYN), world.context),
        Err(NoRoom::Table)
    );
    // Ten seconds of sweeping find what has expired.
    world.wait(181);
    for _ in 0..170 {
        world.flows.sweep(world.context.now);
    }
    assert_eq!(world.flows.counts(), (0, 0));
    assert_eq!(world.tcp(Outbound, SYN), Found::Opens);
}

/// Most VMs have no rule with a direction, and a host has many VMs.
#[test]
fn a_table_without_flows_takes_no_memory() {
    // Resident pages, where the system reports them; otherwise there is nothing to check.
    let resident = || -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages = statm.split(' ').nth(1);
        pages.map_or(0, |pages| pages.parse().unwrap())
    };
    // Other tests allocate memory meanwhile, but not 64 MiB.
    let before = resident();
    let tables: Vec<Flows> = (0..64).map(|_| Flows::new()).collect();
    let pages = resident().saturating_sub(before);
    assert!(
        pages < 64 * 256,
        "{pages} pages for {} tables",
        tables.len()
    );
}

#[test]
fn a_set_gives_up_what_is_worth_least() {
    let flows = Flows::with_sets(1);
    let mut context = World::new().context;
    let nth = |protocol: u8, number: u16| key(protocol, number, 9);
    // One that is closing, six embryonic ones, one with traffic one way, and one that is confirmed.
    for (number, protocol) in [
        (0, 6),
        (1, 6),
        (2, 6),
        (3, 6),
        (4, 6),
        (5, 17),
        (6, 17),
        (7, 6),
    ] {
        context.now = context.now.after(1);
        let kind = if protocol == 6 {
            Kind::Tcp(SYN)
        } else {
            Kind::Udp
        };
        flows
            .open(Outbound, nth(protocol, number), kind, context)
            .unwrap();
    }
    for (flags, from) in [(SYN | ACK, Inbound), (ACK, Outbound)] {
        flows.find(from, nth(6, 7), Kind::Tcp(flags), context);
    }
    flows.find(Outbound, nth(6, 3), Kind::Tcp(FIN | ACK), context);
    let mut order = Vec::new();
    let all = [0, 1, 2, 3, 4, 5, 6, 7]
        .map(|number| nth(if matches!(number, 5 | 6) { 17 } else { 6 }, number));
    for number in 100..108 {
        // Confirmed at once, so that it is not the next to be evicted.
        let new = nth(17, number);
        if flows.open(Outbound, new, Kind::Udp, context).is_err() {
            break;
        }
        flows.find(Inbound, new, Kind::Udp, context);
        let gone = |key: &&Key| !flows.is_related(**key, context);
        let gone = all.iter().filter(gone).map(|key| (key.word >> 16) as u16);
        let gone: Vec<u16> = gone.filter(|port| !order.contains(port)).collect();
        order.extend(gone);
    }
    assert_eq!(order, [3, 0, 1, 2, 4, 5, 6]);
}
