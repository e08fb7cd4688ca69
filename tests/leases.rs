//! What the filter learns from DHCP, as sequences of frames.

mod frames;

use DropReason::*;
use frames::*;
use softnet::clock::Tick;
use softnet::filter::DropReason;
use softnet::wire::Mac;

#[test]
fn an_ack_opens_both_ways_until_it_expires() {
    let mut world = World::new(OFFERED, "", "");
    assert_eq!(world.send(web()), Err(NoLease));
    assert_eq!(
        world.receive(inbound(tcp(INTERNET, VM_IP, 1))),
        Err(NoLease)
    );
    assert_eq!(world.request(Dhcp::ack().answer()), Ok(()));
    assert_eq!(world.send(web()), Ok(()));
    assert_eq!(world.receive(inbound(tcp(INTERNET, VM_IP, 1))), Ok(()));

    world.now = START.after(599);
    assert_eq!(world.send(web()), Ok(()));
    world.now = START.after(600);
    assert_eq!(world.send(web()), Err(LeaseExpired));
    assert_eq!(
        world.receive(inbound(tcp(INTERNET, VM_IP, 1))),
        Err(LeaseExpired)
    );
}

#[test]
fn what_was_granted_can_be_read() {
    let world = World::new(LEASED, "", "");
    let lease = world.lease.lease().unwrap();
    assert_eq!(lease.address, ip(VM_IP));
    assert_eq!(lease.expires, START.after(600));
    assert_eq!(
        world.rules.name_servers()[..],
        [ip(GATEWAY_IP), ip(NAME_SERVER)]
    );
    assert_eq!(World::new(OFFERED, "", "").lease.lease(), None);
}

#[test]
fn a_broadcast_ack_counts_too() {
    let mut world = World::new(OFFERED, "", "");
    assert_eq!(world.request(Dhcp::ack().answer_to_all()), Ok(()));
    assert_eq!(world.send(web()), Ok(()));
}

/// bootpd acknowledges whatever a client renews, a neighbour's address too.
#[test]
fn no_renewal_passes_without_a_lease() {
    for state in [FRESH, UNKNOWN, EXPIRED, UNKNOWN_EXPIRED] {
        for address in [VM_IP, OTHER_IP] {
            let mut world = World::new(state, "", "");
            let before = world.lease.lease();
            let renewal = Dhcp {
                ciaddr: address,
                ..Dhcp::request(3)
            };
            let passed = world.send(renewal.unicast(address));
            assert_eq!(passed, Err(DhcpClientAddress), "{state:?}");
            let ack = Dhcp {
                yiaddr: address,
                ..Dhcp::ack()
            };
            assert_eq!(world.receive(ack.answer()), Err(DhcpTransaction));
            assert_eq!(world.lease.lease(), before);
        }
    }
}

#[test]
fn an_ack_grants_what_was_asked_for_and_nothing_else() {
    let wants = |option: &'static str, client: &'static str| Dhcp {
        xid: 9,
        ciaddr: client,
        ..Dhcp::request(3).address(50, option)
    };
    let renews = Dhcp {
        xid: 9,
        ciaddr: VM_IP,
        ..Dhcp::request(3)
    };
    for (request, granted) in [
        (wants("192.168.64.20", "0.0.0.0"), "192.168.64.20"),
        (wants("192.168.64.20", VM_IP), "192.168.64.20"),
        (renews, VM_IP),
    ] {
        for other in [OTHER_IP, VM_IP, "192.168.64.20", "0.0.0.0"] {
            let mut world = World::new(LEASED, "", "");
            assert_eq!(world.send(request.broadcast()), Ok(()));
            let before = world.lease.lease();
            let ack = |address| Dhcp {
                xid: 9,
                yiaddr: address,
                ..Dhcp::ack()
            };
            if other != granted {
                let refused = world.receive(ack(other).answer());
                assert_eq!(refused, Err(DhcpGrantedAddress), "{request:?} {other}");
                assert_eq!(world.lease.lease(), before);
            }
            assert_eq!(world.receive(ack(granted).answer()), Ok(()));
            assert_eq!(world.lease.lease().unwrap().address, ip(granted));
        }
    }
    // Which asks for nothing.
    let mut world = World::new(FRESH, "", "");
    assert_eq!(world.send(Dhcp::request(3).broadcast()), Ok(()));
    assert_eq!(world.receive(Dhcp::ack().answer()), Err(DhcpGrantedAddress));
}

#[test]
fn a_nak_takes_the_lease_back() {
    let mut world = World::new(LEASED, "", "");
    assert_eq!(world.request(Dhcp::nak().answer_to_all()), Ok(()));
    assert_eq!(world.send(web()), Err(NoLease));
    assert_eq!(world.send(arp(1, (VM, "0.0.0.0"), VM_IP)), Err(ArpProbe));
}

#[test]
fn a_forged_answer_changes_nothing() {
    let forgeries = [
        Dhcp::nak().answer().from(OTHER),
        inbound(udp(OTHER_IP, 67, VM_IP, 68, &Dhcp::nak().message())),
        Dhcp {
            options: vec![53, 1, 6],
            ..Dhcp::nak()
        }
        .address(54, OTHER_IP)
        .answer(),
        Dhcp {
            chaddr: OTHER,
            ..Dhcp::nak()
        }
        .answer_to_all(),
        Dhcp {
            yiaddr: OTHER_IP,
            ..Dhcp::ack()
        }
        .answer()
        .from(OTHER),
        Dhcp {
            yiaddr: OTHER_IP,
            chaddr: OTHER,
            ..Dhcp::ack()
        }
        .answer_to_all(),
    ];
    for forgery in forgeries {
        let mut world = World::new(RENEWS, "", "");
        let before = world.lease.lease();
        assert!(world.receive(forgery.clone()).is_err(), "{forgery:?}");
        assert_eq!(world.lease.lease(), before, "{forgery:?}");
    }
}

#[test]
fn an_answer_to_inform_grants_nothing() {
    for state in [
        INFORMS,
        State {
            asks: Some(8),
            ..FRESH
        },
    ] {
        let told = Dhcp {
            yiaddr: "0.0.0.0",
            ..Dhcp::reply(5)
        };
        for (answer, outcome) in [
            (told.clone(), Ok(())),
            // With an address, with a time, and with both.
            (Dhcp::reply(5), Err(DhcpGrantedAddress)),
            (told.option(51, &[0, 0, 2, 0]), Err(DhcpGrantedAddress)),
            (
                Dhcp {
                    yiaddr: "192.168.64.9",
                    ..Dhcp::ack()
                },
                Err(DhcpGrantedAddress),
            ),
        ] {
            let mut world = World::new(state, "", "");
            let before = world.lease.lease();
            assert_eq!(world.receive(answer.answer()), outcome);
            assert_eq!(world.lease.lease(), before);
        }
    }
}

#[test]
fn a_grant_without_a_time_grants_nothing() {
    let mut world = World::new(OFFERED, "", "");
    assert_eq!(world.request(Dhcp::reply(5).answer()), Ok(()));
    assert_eq!(world.lease.lease(), None);
}

#[test]
fn what_the_vm_gives_back_is_not_its_any_more() {
    for frame in [Dhcp::release().unicast(VM_IP), Dhcp::decline().broadcast()] {
        let mut world = World::new(LEASED, "", "");
        assert_eq!(world.send(frame), Ok(()));
        assert_eq!(world.send(web()), Err(NoLease));
        assert_eq!(world.lease.lease(), None);
    }
}

#[test]
fn declining_an_offer_leaves_the_lease() {
    let mut world = World::new(LEASED, "", "");
    world.ask(1);
    let offer = Dhcp {
        yiaddr: "192.168.64.9",
        ..Dhcp::reply(2)
    };
    assert_eq!(world.receive(offer.answer()), Ok(()));
    assert_eq!(world.send(arp(1, (VM, "0.0.0.0"), "192.168.64.9")), Ok(()));
    assert_eq!(
        world.send(Dhcp::request(4).address(50, "192.168.64.9").broadcast()),
        Ok(())
    );
    assert_eq!(world.send(web()), Ok(()));
}

/// Somebody else may have the address by then.
#[test]
fn an_offer_is_none_for_ever() {
    let probe = || arp(1, (VM, "0.0.0.0"), VM_IP);
    let decline = || Dhcp::decline().broadcast();
    let mut world = World::new(OFFERED, "", "");
    world.now = START.after(63);
    assert_eq!(world.send(probe()), Ok(()));
    assert_eq!(world.send(decline()), Ok(()));
    world.now = START.after(64);
    assert_eq!(world.send(probe()), Err(ArpProbe));
    assert_eq!(world.send(decline()), Err(DhcpDecline));
    // Offered again.
    let offer = Dhcp {
        xid: 9,
        ..Dhcp::reply(2)
    };
    let discover = Dhcp {
        xid: 9,
        ..Dhcp::request(1)
    };
    assert_eq!(world.send(discover.broadcast()), Ok(()));
    assert_eq!(world.receive(offer.answer()), Ok(()));
    assert_eq!(world.send(probe()), Ok(()));
}

#[test]
fn a_new_address_replaces_the_old() {
    let mut world = World::new(LEASED, "", "");
    let grant = Dhcp {
        xid: 9,
        yiaddr: "192.168.64.9",
        ..Dhcp::ack()
    };
    assert_eq!(world.request(grant.answer()), Ok(()));
    assert_eq!(world.send(web()), Err(SourceAddress));
    assert_eq!(world.send(tcp("192.168.64.9", INTERNET, 443)), Ok(()));
}

#[test]
fn a_lease_time_of_any_length_is_kept_without_overflow() {
    let grant = |time: u32| {
        let mut world = World::new(OFFERED, "", "");
        let options = vec![53, 1, 5];
        let ack = Dhcp {
            options,
            ..Dhcp::ack()
        }
        .address(54, GATEWAY_IP);
        assert_eq!(
            world.request(ack.option(51, &time.to_be_bytes()).answer()),
            Ok(())
        );
        world
    };
    let mut world = grant(0);
    assert_eq!(world.send(web()), Err(LeaseExpired));
    for time in [u32::MAX, u32::MAX - 1, u32::MAX - 1000] {
        let mut world = grant(time);
        world.now = Tick::from_secs(u32::MAX - 2);
        assert_eq!(world.send(web()), Ok(()), "{time}");
    }
    assert_eq!(grant(u32::MAX).lease.lease().unwrap().expires, Tick::NEVER);
    assert!(grant(u32::MAX - 1).lease.lease().unwrap().expires < Tick::NEVER);
}

#[test]
fn more_name_servers_than_four_are_forgotten() {
    let mut world = World::new(OFFERED, "", "");
    let servers: Vec<u8> = (1..=6).flat_map(|last| [10, 0, 0, last]).collect();
    let ack = Dhcp::reply(5)
        .option(51, &[0, 0, 0, 60])
        .option(6, &servers);
    assert_eq!(world.request(ack.answer()), Ok(()));
    let mut ask = |server| world.send(udp(VM_IP, 5000, server, 53, &[]));
    assert_eq!(ask("10.0.0.1"), Ok(()));
    assert_eq!(ask("10.0.0.4"), Ok(()));
    assert_eq!(ask("10.0.0.5"), Err(DestinationPrivate));
}

#[test]
fn name_servers_are_replaced_with_the_lease() {
    let mut world = World::new(LEASED, "", "");
    let ack = Dhcp::reply(5)
        .option(51, &[0, 0, 2, 0])
        .address(6, "10.0.0.1");
    assert_eq!(world.request(ack.answer()), Ok(()));
    assert_eq!(world.send(udp(VM_IP, 5000, "10.0.0.1", 53, &[])), Ok(()));
    assert_eq!(
        world.send(udp(VM_IP, 5000, NAME_SERVER, 53, &[])),
        Err(DestinationPrivate)
    );
}

#[test]
fn no_name_server_makes_a_group_or_the_loopback_reachable() {
    let servers = [
        "127.0.0.53",
        "224.0.0.251",
        "255.255.255.255",
        "240.0.0.1",
        "0.0.0.0",
    ];
    for server in servers {
        let mut world = World::new(OFFERED, "", "");
        let ack = Dhcp::reply(5).option(51, &[0, 0, 2, 0]).address(6, server);
        assert_eq!(world.request(ack.answer()), Ok(()));
        assert!(
            world.send(udp(VM_IP, 5000, server, 53, &[])).is_err(),
            "{server}"
        );
    }
}

#[test]
fn the_gateways_mac_is_pinned_by_the_reply_that_grants() {
    let mut world = World::new(UNKNOWN, "", "");
    assert_eq!(world.rules.gateway_mac(), None);
    world.ask(1);
    assert_eq!(world.receive(Dhcp::reply(2).answer()), Ok(()));
    assert_eq!(world.rules.gateway_mac(), None);
    assert_eq!(world.request(Dhcp::ack().answer()), Ok(()));
    assert_eq!(world.rules.gateway_mac(), Some(GATEWAY));
    assert_eq!(
        world.receive(Dhcp::ack().answer().from(OTHER)),
        Err(DhcpRogueServer)
    );
    assert_eq!(world.rules.gateway_mac(), Some(GATEWAY));
}

#[test]
fn a_gateway_made_anew_is_pinned_when_the_lease_has_run_out() {
    let anew = Mac([2, 0, 0, 0, 0, 9]);
    let mut world = World::new(UNKNOWN_EXPIRED, "", "");
    assert_eq!(world.request(Dhcp::ack().answer().from(anew)), Ok(()));
    assert_eq!(world.rules.gateway_mac(), Some(anew));
    assert_eq!(world.send(web().to(anew)), Ok(()));
    assert_eq!(world.send(web()), Err(DestinationMac));
}

#[test]
fn what_the_system_says_of_the_gateway_counts_at_once() {
    let anew = Mac([2, 0, 0, 0, 0, 9]);
    let mut world = World::new(LEASED, "", "");
    assert_eq!(world.send(web().to(anew)), Err(DestinationMac));
    world.rules.set_gateway_mac(anew);
    assert_eq!(world.send(web().to(anew)), Ok(()));
    assert_eq!(world.send(web()), Err(DestinationMac));
    assert_eq!(
        world.receive(inbound(tcp(INTERNET, VM_IP, 1)).from(anew)),
        Ok(())
    );
    assert_eq!(
        world.receive(inbound(tcp(INTERNET, VM_IP, 1))),
        Err(Isolation)
    );
}

#[test]
fn a_message_that_shrank_to_nothing_is_dropped() {
    use softnet::batch::Slot;
    use softnet::filter::{Filter, Step, Verdict};
    let World {
        outbound, inbound, ..
    } = &mut World::new(RENEWS, "", "");
    let filters: [&mut dyn Filter; 2] = [outbound, inbound];
    for filter in filters {
        for mut len in [0, 13, 42, 281] {
            let mut frame = Dhcp::ack().answer().0;
            let verdict = filter.inspect(&mut Slot::new(&mut frame, &mut len), Step::Dhcp);
            assert_eq!(verdict, Verdict::Drop(DhcpMalformed), "{len}");
        }
    }
}
