//! Tests what the fast path lets pass.

use super::tests::{ACK, FIN, RST, SYN, TCP, UDP, World, key};
use super::*;
use crate::direction::Direction::{Inbound, Outbound};

#[test]
fn a_confirmed_flow_goes_on_by_the_fast_path_and_nothing_else_does() {
    let mut world = World::connected();
    let goes_on =
        |world: &World, from, key, kind| world.flows.goes_on(from, key, kind, &world.context);
    let ack = Kind::Tcp(ACK);
    for _ in 0..3 {
        for from in [Outbound, Inbound] {
            assert!(goes_on(&world, from, TCP, ack));
            assert!(goes_on(&world, from, TCP, Kind::Tcp(ACK | 8)), "PSH");
        }
        // Its last packet is known.
        world.wait(7439);
    }
    world.wait(1);
    assert!(!goes_on(&world, Outbound, TCP, ack), "expired");
    let mut world = World::connected();
    for flags in [SYN, SYN | ACK, FIN | ACK, RST, RST | ACK, 0] {
        assert!(!goes_on(&world, Outbound, TCP, Kind::Tcp(flags)), "{flags}");
    }
    assert!(!goes_on(&world, Outbound, key(6, 50_000, 444), ack));
    assert!(!goes_on(&world, Outbound, UDP, Kind::Udp), "not open");
    world.pass(Outbound, UDP, Kind::Udp);
    assert!(!goes_on(&world, Outbound, UDP, Kind::Udp), "not answered");
    world.pass(Inbound, UDP, Kind::Udp);
    assert!(goes_on(&world, Outbound, UDP, Kind::Udp));
    world.context.policy = 2;
    assert!(!goes_on(&world, Outbound, TCP, ack), "another policy");
    world.context.policy = 1;
    world.context.lease = 8;
    assert!(!goes_on(&world, Outbound, TCP, ack), "another lease");
    world.context.lease = 7;
    world.tcp(Inbound, RST);
    assert!(!goes_on(&world, Outbound, TCP, ack), "after a reset");
}
