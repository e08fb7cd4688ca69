//! What the filter claims of addresses that DHCP grants, and what it does when one is taken.

mod frames;

use DropReason::{DhcpAddressTaken, NoLease};
use frames::*;
use softnet::filter::DropReason;

/// Under an xid of its own for each address, as clients do.
fn grant(address: &'static str) -> Frame {
    Dhcp {
        xid: ip(address).into(),
        yiaddr: address,
        ..Dhcp::ack()
    }
    .answer()
}

#[test]
fn an_address_that_another_vm_has_is_not_bound() {
    let mut world = World::new(OFFERED, "", "");
    assert_eq!(world.request(grant(TAKEN_IP)), Err(DhcpAddressTaken));
    assert_eq!(world.lease.lease(), None);
    assert_eq!(world.send(tcp(TAKEN_IP, INTERNET, 443)), Err(NoLease));

    assert_eq!(world.request(grant(VM_IP)), Ok(()));
    world.now = START.after(64);
    assert_eq!(world.request(grant(TAKEN_IP)), Err(DhcpAddressTaken));
    assert_eq!(world.lease.lease(), None, "the server has freed it");
    assert_eq!(world.claims.address(), None);
}

#[test]
fn a_reply_that_is_refused_pins_no_gateway() {
    let state = State {
        known: Known::Offer,
        ..PINNED
    };
    let mut world = World::new(state, "", "");
    assert_eq!(world.request(grant(TAKEN_IP)), Err(DhcpAddressTaken));
    assert_eq!(world.rules.gateway_mac(), None);
    assert_eq!(world.request(grant(VM_IP)), Ok(()));
    assert_eq!(world.rules.gateway_mac(), Some(GATEWAY));
}

#[test]
fn what_is_claimed_follows_the_lease() {
    let claimed = |world: &World| world.claims.address();
    let mut world = World::new(OFFERED, "", "");
    assert_eq!(claimed(&world), None, "an offer binds nothing");
    assert_eq!(world.request(grant(VM_IP)), Ok(()));
    assert_eq!(claimed(&world), Some(ip(VM_IP)));
    assert_eq!(world.request(Dhcp::nak().answer()), Ok(()));
    assert_eq!(claimed(&world), None);

    for kind in [4, 7] {
        let mut world = World::new(LEASED, "", "");
        assert_eq!(claimed(&world), Some(ip(VM_IP)));
        let gives_up = Dhcp {
            ciaddr: if kind == 7 { VM_IP } else { "0.0.0.0" },
            ..Dhcp::request(kind)
        };
        let gives_up = match kind {
            7 => gives_up.unicast(VM_IP),
            _ => gives_up.address(50, VM_IP).broadcast(),
        };
        assert_eq!(world.send(gives_up), Ok(()));
        assert_eq!(claimed(&world), None, "message type {kind}");
    }
}
