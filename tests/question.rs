//! What softnet asks the DHCP server by itself, when a VM goes on with an address of which it
//! knows no lease: it was started under a running VM, or the VM was paused past its lease.

mod frames;

use DropReason::*;
use frames::*;
use softnet::clock::Tick;
use softnet::filter::DropReason;
use softnet::wire::dhcp::{Message, MessageType};

/// The server's word on the question: it says that the VM has `address`.
fn ack(question: &Frame, address: &'static str) -> Dhcp {
    Dhcp {
        xid: xid(question),
        yiaddr: address,
        ..Dhcp::ack()
    }
}

fn nak(question: &Frame) -> Dhcp {
    Dhcp {
        xid: xid(question),
        ..Dhcp::nak()
    }
}

fn xid(Frame(frame): &Frame) -> u32 {
    u32::from_be_bytes(frame[46..50].try_into().unwrap())
}

fn renewal(address: &'static str) -> Dhcp {
    Dhcp {
        ciaddr: address,
        ..Dhcp::request(3)
    }
}

/// As a machine that wakes up asks, whether it is where it was (RFC 4436).
fn is_the_gateway_there(address: &'static str) -> Frame {
    arp(1, (VM, address), GATEWAY_IP).to(GATEWAY)
}

#[test]
fn what_a_vm_without_a_lease_sends_becomes_a_question() {
    for state in [FRESH, EXPIRED, UNKNOWN, UNKNOWN_EXPIRED] {
        for (frame, reason) in [
            (web(), None),
            (icmp(VM_IP, GATEWAY_IP, 8), None),
            (tcp(VM_IP, "10.0.0.9", 22), None),
            (udp(VM_IP, 68, GATEWAY_IP, 4011, &[0; 240]), None),
            (is_the_gateway_there(VM_IP), Some(ArpSenderAddress)),
            (arp(1, (VM, VM_IP), VM_IP), Some(ArpSenderAddress)),
            (
                arp(2, (VM, VM_IP), GATEWAY_IP).to(GATEWAY),
                Some(ArpSenderAddress),
            ),
            (renewal(VM_IP).unicast(VM_IP), Some(DhcpClientAddress)),
            (renewal(VM_IP).broadcast(), Some(DhcpClientAddress)),
        ] {
            let mut world = World::new(state, "", "");
            let question = world.provoke(&frame).unwrap();
            let Frame(bytes) = &question;
            assert_eq!(
                (bytes.len(), &bytes[..6], &bytes[6..12]),
                (342, &ALL.0[..], &VM.0[..])
            );
            assert_eq!(
                bytes[26..38],
                [0, 0, 0, 0, 255, 255, 255, 255, 0, 68, 0, 67]
            );
            let message = Message::parse(&bytes[42..]).unwrap();
            assert_eq!(
                (message.kind, message.requested),
                (MessageType::Request, Some(ip(VM_IP).into()))
            );
            assert_eq!(message.header.client.get(), 0);
            assert_eq!(message.header.hardware, VM);
            assert_eq!(
                message.identifier.unwrap().data,
                [1, 0x52, 0x54, 0, 0, 0, 2]
            );

            let expired = state.known == Known::ExpiredLease;
            let of_ip = if expired { LeaseExpired } else { NoLease };
            // It asks once, and the frame has the reason that it would have without that.
            assert_eq!(world.send(frame.clone()), Err(reason.unwrap_or(of_ip)));

            assert_eq!(
                world.receive(ack(&question, VM_IP).answer_to_all()),
                Err(DhcpOwnAnswer)
            );
            assert_eq!(world.lease.lease().unwrap().expires, world.now.after(600));
            assert_eq!(world.claims.address(), Some(ip(VM_IP)));
            assert_eq!(world.send(web()), Ok(()));
            assert_eq!(world.receive(inbound(tcp(INTERNET, VM_IP, 1))), Ok(()));
            assert_eq!(world.send(is_the_gateway_there(VM_IP)), Ok(()));
            assert_eq!(world.send(renewal(VM_IP).unicast(VM_IP)), Ok(()));
        }
    }
}

#[test]
fn softnet_asks_for_what_the_vm_could_have_and_for_nothing_else() {
    for address in [
        GATEWAY_IP,
        "192.168.64.0",
        "192.168.64.255",
        "192.168.65.2",
        "172.17.0.2",
        "169.254.1.1",
        "224.0.0.1",
        "127.0.0.1",
        "0.0.0.0",
        "255.255.255.255",
    ] {
        let mut world = World::new(FRESH, "", "");
        let refused = world.provoke(&tcp(address, INTERNET, 443));
        assert_eq!(refused, Err(Err(NoLease)), "{address}");
        let _ = world.provoke(&is_the_gateway_there(address)).unwrap_err();
        let _ = world.provoke(&renewal(address).broadcast()).unwrap_err();
    }
    for (address, may_be) in [
        ("10.0.0.2", true),
        ("169.254.1.1", false),
        (GATEWAY_IP, false),
    ] {
        let mut world = World::new(UNKNOWN, "", "");
        let asked = world.provoke(&tcp(address, INTERNET, 443)).is_ok();
        assert_eq!(asked, may_be, "{address}, in a network that is not known");
    }
    // A VM with a lease is known.
    let mut world = World::new(LEASED, "", "");
    for frame in [tcp(OTHER_IP, INTERNET, 443), is_the_gateway_there(OTHER_IP)] {
        let _ = world.provoke(&frame).unwrap_err();
    }
    let renewal_of_anothers = renewal(OTHER_IP).broadcast();
    assert_eq!(
        world.provoke(&renewal_of_anothers),
        Err(Err(DhcpClientAddress))
    );
    // Nor does a frame count that is wrong by itself.
    let mut world = World::new(FRESH, "", "");
    for frame in [
        web().from(OTHER),
        web().resize(40),
        arp(3, (VM, VM_IP), GATEWAY_IP),
        renewal(VM_IP).unicast(OTHER_IP),
        Dhcp {
            chaddr: OTHER,
            ..renewal(VM_IP)
        }
        .broadcast(),
        Dhcp {
            yiaddr: VM_IP,
            ..renewal(VM_IP)
        }
        .broadcast(),
    ] {
        assert!(world.provoke(&frame).is_err(), "{frame:?}");
    }
    world.provoke(&web()).unwrap();
}

#[test]
fn softnet_asks_once_in_four_seconds() {
    let mut world = World::new(FRESH, "", "");
    let first = world.provoke(&web()).unwrap();
    world.now = START.after(4);
    let second = world.provoke(&web()).unwrap();
    assert_ne!(xid(&first), xid(&second));
    world.now = Tick::from_secs(1004).after_ticks(4 * 1024 - 1);
    assert_eq!(world.provoke(&web()), Err(Err(NoLease)));
    // An answer to the first is late now.
    assert_eq!(
        world.receive(ack(&first, VM_IP).answer()),
        Err(DhcpTransaction)
    );
    assert_eq!(
        world.receive(ack(&second, VM_IP).answer()),
        Err(DhcpOwnAnswer)
    );
    assert_eq!(world.send(web()), Ok(()));
}

#[test]
fn only_the_servers_yes_to_the_very_address_binds() {
    let question = |world: &mut World| world.provoke(&web()).unwrap();
    for (answer, outcome) in [
        (
            (|it| nak(it).answer_to_all()) as fn(&Frame) -> Frame,
            DhcpOwnAnswer,
        ),
        (|it| ack(it, OTHER_IP).answer(), DhcpGrantedAddress),
        (|it| ack(it, GATEWAY_IP).answer(), DhcpGrantedAddress),
        (
            |it| {
                Dhcp {
                    options: vec![53, 1, 2],
                    ..ack(it, VM_IP)
                }
                .address(54, GATEWAY_IP)
                .answer()
            },
            DhcpTransaction,
        ),
        (
            |it| {
                Dhcp {
                    xid: xid(it) ^ 1,
                    ..ack(it, VM_IP)
                }
                .answer()
            },
            DhcpTransaction,
        ),
        (
            |it| {
                Dhcp {
                    chaddr: OTHER,
                    ..ack(it, VM_IP)
                }
                .answer()
            },
            DhcpHardwareAddress,
        ),
        (|it| ack(it, VM_IP).answer().from(OTHER), DhcpRogueServer),
        (
            |it| ack(it, VM_IP).option(61, &[1; 7]).answer(),
            DhcpClientIdentifier,
        ),
        // Without a time it grants nothing.
        (
            |it| {
                Dhcp {
                    xid: xid(it),
                    ..Dhcp::reply(5)
                }
                .answer()
            },
            DhcpOwnAnswer,
        ),
    ] {
        let mut world = World::new(FRESH, "", "");
        let asked = question(&mut world);
        assert_eq!(world.receive(answer(&asked)), Err(outcome));
        assert_eq!(world.lease.lease(), None);
        assert_eq!(world.send(web()), Err(NoLease));
    }
    let mut world = World::new(FRESH, "", "");
    let asked = world.provoke(&tcp(TAKEN_IP, INTERNET, 443)).unwrap();
    let taken = world.receive(ack(&asked, TAKEN_IP).answer());
    assert_eq!((taken, world.lease.lease()), (Err(DhcpAddressTaken), None));
}

#[test]
fn a_no_to_softnet_takes_nothing_from_the_vm() {
    let mut world = World::new(FRESH, "", "");
    let question = world.provoke(&web()).unwrap();
    // Meanwhile the VM has asked itself.
    world.ask(1);
    assert_eq!(world.receive(Dhcp::reply(2).answer()), Ok(()));
    assert_eq!(world.request(Dhcp::ack().answer()), Ok(()));
    let before = world.lease.lease();
    assert_eq!(
        world.receive(nak(&question).answer_to_all()),
        Err(DhcpOwnAnswer)
    );
    assert_eq!(world.lease.lease(), before);
}

#[test]
fn a_late_yes_changes_no_lease_that_the_vm_has_got_itself() {
    let mut world = World::new(FRESH, "", "");
    let question = world.provoke(&web()).unwrap();
    assert_eq!(world.request(Dhcp::ack().answer()), Ok(()));
    let before = world.lease.lease();
    world.now = world.now.after(10);
    let late = world.receive(ack(&question, VM_IP).answer());
    assert_eq!((late, world.lease.lease()), (Err(DhcpOwnAnswer), before));
}

/// The server frees what it granted to softnet when the VM asks it for another address.
#[test]
fn the_vms_wish_for_another_address_voids_the_question() {
    for wish in [
        Dhcp::request(3).address(50, OTHER_IP),
        Dhcp::request(1).option(80, &[]),
    ] {
        let mut world = World::new(FRESH, "", "");
        let question = world.provoke(&web()).unwrap();
        assert_eq!(world.send(wish.broadcast()), Ok(()));
        let late = world.receive(ack(&question, VM_IP).answer());
        assert_eq!((late, world.lease.lease()), (Err(DhcpTransaction), None));
    }
}

#[test]
fn an_answer_on_its_way_binds_nothing_that_was_given_back() {
    for give_back in [Dhcp::release().unicast(VM_IP), Dhcp::decline().broadcast()] {
        let mut world = World::new(FRESH, "", "");
        let question = world.provoke(&web()).unwrap();
        assert_eq!(world.request(Dhcp::ack().answer()), Ok(()));
        assert_eq!(world.send(give_back), Ok(()));
        let late = world.receive(ack(&question, VM_IP).answer());
        assert_eq!((late, world.lease.lease()), (Err(DhcpTransaction), None));
    }
}

#[test]
fn the_vms_own_transactions_go_on_beside_the_question() {
    let mut world = World::new(DISCOVERS, "", "");
    let question = world.provoke(&web()).unwrap();
    assert_eq!(world.receive(Dhcp::reply(2).answer()), Ok(()));
    assert_eq!(
        world.receive(ack(&question, VM_IP).answer()),
        Err(DhcpOwnAnswer)
    );
    assert_eq!(world.send(web()), Ok(()));
    assert_eq!(world.request(Dhcp::ack().answer()), Ok(()));
}
