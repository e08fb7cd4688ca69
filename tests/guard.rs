//! The DHCP guard over time: an answer counts only with the question, and only so many
//! questions may be asked.

mod frames;

use DropReason::*;
use frames::*;
use softnet::filter::DropReason;

#[test]
fn an_answer_counts_only_with_the_question() {
    for (state, answer) in [
        (FRESH, Dhcp::reply(2)),
        (FRESH, Dhcp::ack()),
        (LEASED, Dhcp::ack()),
        (LEASED, Dhcp::nak()),
        // To another question.
        (DISCOVERS, Dhcp::ack()),
        (DISCOVERS, Dhcp::nak()),
        (REQUESTS, Dhcp::reply(2)),
        (INFORMS, Dhcp::reply(2)),
        (INFORMS, Dhcp::nak()),
        // Of another transaction.
        (
            DISCOVERS,
            Dhcp {
                xid: 0x1234_5679,
                ..Dhcp::reply(2)
            },
        ),
        (
            RENEWS,
            Dhcp {
                xid: 0x1234_5679,
                ..Dhcp::ack()
            },
        ),
    ] {
        let mut world = World::new(state, "", "");
        let before = world.lease.lease();
        let outcome = world.receive(answer.answer_to_all());
        assert_eq!(outcome, Err(DhcpTransaction), "{state:?} {answer:?}");
        assert_eq!(world.lease.lease(), before);
    }
}

#[test]
fn a_question_is_answered_once_and_not_for_ever() {
    for answer in [Dhcp::ack(), Dhcp::nak()] {
        let mut world = World::new(RENEWS, "", "");
        assert_eq!(world.receive(answer.answer()), Ok(()));
        assert_eq!(world.receive(answer.answer()), Err(DhcpTransaction));
    }
    // There may be several offers.
    let mut world = World::new(DISCOVERS, "", "");
    assert_eq!(world.receive(Dhcp::reply(2).answer()), Ok(()));
    assert_eq!(world.receive(Dhcp::reply(2).answer()), Ok(()));
    world.now = world.now.after(63);
    assert_eq!(world.receive(Dhcp::reply(2).answer()), Ok(()));
    world.now = world.now.after(1);
    let late = world.receive(Dhcp::reply(2).answer());
    assert_eq!(late, Err(DhcpTransaction));
}

#[test]
fn several_transactions_may_wait() {
    let mut world = World::new(FRESH, "", "");
    for xid in 1..=8 {
        let discover = Dhcp {
            xid,
            ..Dhcp::request(1)
        };
        assert_eq!(world.send(discover.broadcast()), Ok(()));
    }
    for xid in 1..=8 {
        let offer = Dhcp {
            xid,
            ..Dhcp::reply(2)
        };
        assert_eq!(world.receive(offer.answer()), Ok(()), "{xid}");
    }
}

#[test]
fn a_lease_is_granted_at_once_to_who_asked_for_that() {
    let grant = || Dhcp::ack().option(80, &[]).answer();
    let mut world = World::new(DISCOVERS, "", "");
    assert_eq!(world.receive(grant()), Err(DhcpTransaction));

    let discover = Dhcp::request(1).option(80, &[]).broadcast();
    assert_eq!(world.send(discover), Ok(()));
    // The server may not want to.
    assert_eq!(world.receive(Dhcp::reply(2).answer()), Ok(()));
    let plain = world.receive(Dhcp::ack().answer());
    assert_eq!(plain, Err(DhcpTransaction));
    assert_eq!(world.receive(grant()), Ok(()));
    assert_eq!(world.send(web()), Ok(()));
}

#[test]
fn an_answer_that_the_vm_does_not_wait_for_any_more_binds_nothing() {
    // The server granted the lease before it heard that it is free again.
    for give_back in [Dhcp::release().unicast(VM_IP), Dhcp::decline().broadcast()] {
        let mut world = World::new(RENEWS, "", "");
        assert_eq!(world.send(give_back), Ok(()));
        let late = world.receive(Dhcp::ack().answer());
        assert_eq!(late, Err(DhcpTransaction));
        assert_eq!(world.lease.lease(), None);
        assert_eq!(world.request(Dhcp::ack().answer()), Ok(()));
        assert_eq!(world.send(web()), Ok(()));
    }
}

#[test]
fn a_vm_that_asks_without_end_is_slowed_down() {
    let mut world = World::new(FRESH, "", "");
    let discover = || Dhcp::request(1).broadcast();
    let sent = |world: &mut World, frame: fn() -> Frame| {
        (0..100).take_while(|_| world.send(frame()).is_ok()).count()
    };
    let discovers = || Dhcp::request(1).broadcast();
    assert_eq!(sent(&mut world, discovers), 32);
    assert_eq!(world.send(discover()), Err(DhcpRate));
    // What is refused for something else takes nothing away, and is called by its name.
    let other = || {
        Dhcp {
            chaddr: OTHER,
            ..Dhcp::request(1)
        }
        .broadcast()
    };
    assert_eq!(world.send(other()), Err(DhcpHardwareAddress));
    world.now = world.now.after(1);
    assert_eq!(sent(&mut world, other), 0);
    assert_eq!(sent(&mut world, discovers), 1);
    world.now = world.now.after(20);
    assert_eq!(sent(&mut world, discovers), 20);
    world.now = world.now.after(1000);
    assert_eq!(sent(&mut world, discovers), 32);
}

#[test]
fn a_vm_cannot_decline_the_whole_pool() {
    let mut world = World::new(FRESH, "", "");
    let mut declined = 0;
    for _ in 0..600 {
        world.ask(1);
        assert_eq!(world.receive(Dhcp::reply(2).answer()), Ok(()));
        match world.send(Dhcp::decline().broadcast()) {
            Ok(()) => declined += 1,
            refused => assert_eq!(refused, Err(DhcpRate)),
        }
        world.now = world.now.after(2);
    }
    // Twenty minutes.
    assert_eq!(declined, 4 + 19);
}

/// That is for a softnet which has not seen the grant, and would let a neighbour's address by.
#[test]
fn nothing_is_renewed_after_the_end_of_a_lease() {
    let nak = Dhcp::nak().answer_to_all();
    for (by_vm, frame) in [
        (true, Dhcp::release().unicast(VM_IP)),
        (true, Dhcp::decline().broadcast()),
        (false, nak),
    ] {
        let mut world = World::new(LEASED, "", "");
        let ended = if by_vm {
            world.send(frame)
        } else {
            world.request(frame)
        };
        assert_eq!(ended, Ok(()));
        for address in [OTHER_IP, VM_IP] {
            let renewal = Dhcp {
                ciaddr: address,
                ..Dhcp::request(3)
            };
            assert_eq!(world.send(renewal.broadcast()), Err(DhcpClientAddress));
            assert_eq!(world.send(renewal.unicast(address)), Err(DhcpClientAddress));
            let bare = Dhcp::request(3).unicast(address);
            assert_eq!(world.send(bare), Err(DhcpSource));
        }
        // As a client does that has no address: it asks for one, or for the one that it had.
        assert_eq!(world.send(Dhcp::request(1).broadcast()), Ok(()));
        let anew = Dhcp::request(3).address(50, VM_IP);
        assert_eq!(world.send(anew.broadcast()), Ok(()));
    }
}
