//! Tests what counts as taking up a port of the host's NAT.
#![expect(clippy::cast_possible_truncation, reason = "small numbers")]

use super::tests::{ACK, FIN, RST, SYN, TCP, World, key};
use super::*;
use crate::direction::Direction::{Inbound, Outbound};

impl Flows {
    /// How many flows the VM has opened, in the table.
    pub(super) fn own(&self) -> u32 {
        let places = self
            .sets
            .iter()
            .flat_map(|set| (0..PLACES).filter(|place| set.control(*place).is_own()));
        places.count() as u32
    }
}

/// At one server, counted with what others of the same counter have.
fn at_server(world: &World, key: Key) -> (u32, u32) {
    let now = sixteenths(world.context.now);
    let Flows {
        servers, hasher, ..
    } = &world.flows;
    servers.counts(hasher, key, now)
}

#[test]
fn an_answer_makes_up_for_one_question() {
    let mut world = World::new();
    assert_eq!(at_server(&world, TCP), (0, 0));
    for flags in [SYN, SYN, ACK] {
        world.tcp(Outbound, flags);
        assert_eq!(at_server(&world, TCP), (1, 1));
    }
    world.tcp(Inbound, SYN | ACK);
    assert_eq!(at_server(&world, TCP), (1, 1), "not confirmed");
    world.tcp(Outbound, ACK);
    assert_eq!(at_server(&world, TCP), (1, 0));
    // Again and again over the same port: what is given back was taken.
    for _ in 0..5 {
        world.tcp(Inbound, RST);
        assert_eq!(world.tcp(Outbound, SYN), Found::Opens);
        assert_eq!(at_server(&world, TCP), (1, 1));
        world.tcp(Inbound, SYN | ACK);
        world.tcp(Outbound, ACK);
        assert_eq!(at_server(&world, TCP), (1, 0));
    }
    // What others open takes none of the VM's.
    let other = key(17, 1, 443);
    world.pass(Inbound, other, Kind::Udp);
    assert_eq!(at_server(&world, other), (0, 0));
    world.wait(7440);
    for _ in 0..170 {
        world.flows.sweep(world.context.now);
    }
    assert_eq!(at_server(&world, TCP), (0, 0));
}

#[test]
fn a_question_counts_until_it_drains_even_if_its_flow_is_gone() {
    let mut world = World::new();
    world.context.now = Tick::from_secs(10);
    for port in 0..servers::UNANSWERED_MAX {
        let opened = (world.flows).open(
            Outbound,
            key(6, port as u16, 80),
            Kind::Tcp(SYN),
            world.context,
        );
        assert_eq!(opened, Ok(()), "{port}");
        world.flows.cut(key(6, port as u16, 80), world.context);
    }
    let more = |world: &World| {
        let opens = |port: &u16| {
            let key = key(6, 10_000 + port, 80);
            world
                .flows
                .open(Outbound, key, Kind::Tcp(SYN), world.context)
                .is_ok()
        };
        (0..1000).take_while(opens).count()
    };
    assert_eq!(more(&world), 0);
    assert_eq!(at_server(&world, key(6, 0, 80)), (0, 7680));
    world.wait(1);
    assert_eq!(more(&world), 64);
    // Whoever comes from there, and other servers, of which one in a thousand shares the counter.
    assert_eq!(
        world.pass(Inbound, key(6, 9, 80), Kind::Tcp(SYN)),
        Found::Opens
    );
    let others = (100..110).filter(|port| {
        let syn = Kind::Tcp(SYN);
        (world
            .flows
            .open(Outbound, key(6, 0, *port), syn, world.context))
        .is_ok()
    });
    assert!(others.count() > 7);
    // Nothing is left of them when a NAT has forgotten the last.
    world.wait(120);
    assert_eq!(at_server(&world, key(6, 0, 80)).1, 0);
}

#[test]
fn a_flow_that_makes_room_after_its_answer_counts_as_unanswered() {
    let flows = Flows::with_sets(1);
    let world = World {
        flows,
        ..World::new()
    };
    for port in 0..8 {
        let key = key(6, port, 80);
        world.pass(Outbound, key, Kind::Tcp(SYN));
        for (from, flags) in [(Inbound, SYN | ACK), (Outbound, ACK), (Inbound, FIN | ACK)] {
            assert_eq!(world.find(from, key, Kind::Tcp(flags)), Found::Flow);
        }
    }
    assert_eq!(at_server(&world, key(6, 0, 80)), (8, 0));
    world.pass(Outbound, key(6, 100, 80), Kind::Tcp(SYN));
    assert_eq!(at_server(&world, key(6, 0, 80)), (8, 2));
}
