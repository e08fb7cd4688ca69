//! What passes because of the connection that it belongs to, once a rule names a direction.

use softnet::filter::Policy;

use super::*;

pub(super) const SYN: u8 = 2;
pub(super) const ACK: u8 = 16;
pub(super) const SYN_ACK: u8 = 18;
pub(super) const FIN: u8 = 17;
pub(super) const RST: u8 = 4;
pub(super) const SSH: u16 = 22;
pub(super) const HIGH: u16 = 50_000;

/// A segment between the VM's port and the peer's, the way that its source and destination say.
pub(super) fn segment(source: (&str, u16), destination: (&str, u16), flags: u8) -> Frame {
    let ports = [source.1.to_be_bytes(), destination.1.to_be_bytes()].concat();
    let rest = [0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
    ipv4(6, source.0, destination.0, &[&ports[..], &rest].concat())
}

/// From the VM's port to the peer's.
pub(super) fn out(own: u16, peer: (&str, u16), flags: u8) -> Frame {
    segment((VM_IP, own), peer, flags)
}

/// From the peer's port to the VM's.
pub(super) fn back(peer: (&str, u16), own: u16, flags: u8) -> Frame {
    inbound(segment(peer, (VM_IP, own), flags))
}

pub(super) fn set(world: &World, allow: &str, block: &str) {
    world
        .rules
        .set_policy(Policy::parse(allow, block).unwrap().0);
}

#[test]
fn the_hosts_ssh_gets_in_and_nothing_out() {
    let mut world = World::new(LEASED, "in @host", "0.0.0.0/0");
    let host = (GATEWAY_IP, HIGH);
    assert_eq!(
        world.send(out(HIGH, (GATEWAY_IP, 22), SYN)),
        Err(DestinationBlocked)
    );
    assert_eq!(
        world.send(out(HIGH, (INTERNET, 443), SYN)),
        Err(DestinationBlocked)
    );
    assert_eq!(
        world.receive(back((INTERNET, HIGH), SSH, SYN)),
        Err(SourceBlocked)
    );
    assert_eq!(world.receive(back(host, SSH, SYN)), Ok(()));
    assert_eq!(world.send(out(SSH, host, SYN_ACK)), Ok(()));
    assert_eq!(world.receive(back(host, SSH, ACK)), Ok(()));
    for _ in 0..3 {
        assert_eq!(world.send(out(SSH, host, ACK)), Ok(()));
        assert_eq!(world.receive(back(host, SSH, ACK)), Ok(()));
    }
    // A port beside it belongs to nothing.
    assert_eq!(world.send(out(SSH + 1, host, ACK)), Err(DestinationBlocked));
    assert_eq!(
        world.receive(back((GATEWAY_IP, HIGH + 1), SSH, ACK)),
        Err(Untracked)
    );
}

#[test]
fn an_own_port_is_opened_alone() {
    let mut world = World::new(LEASED, "in tcp 0.0.0.0/0 to 22", "in 0.0.0.0/0");
    assert_eq!(world.receive(back((INTERNET, HIGH), SSH, SYN)), Ok(()));
    assert_eq!(
        world.receive(back((INTERNET, HIGH), 23, SYN)),
        Err(SourceBlocked)
    );
    let datagram = inbound(udp(INTERNET, HIGH, VM_IP, SSH, &[]));
    assert_eq!(world.receive(datagram), Err(SourceBlocked));
    // Nothing is said about what the VM opens, and its answers come in.
    assert_eq!(world.send(out(HIGH, (INTERNET, 443), SYN)), Ok(()));
    assert_eq!(world.receive(back((INTERNET, 443), HIGH, SYN_ACK)), Ok(()));
}

#[test]
fn an_answer_passes_what_blocks_its_sender() {
    let mut world = World::new(LEASED, "", "in 0.0.0.0/0");
    let web = (INTERNET, 443);
    assert_eq!(world.receive(back(web, HIGH, SYN_ACK)), Err(SourceBlocked));
    assert_eq!(world.send(out(HIGH, web, SYN)), Ok(()));
    assert_eq!(world.receive(back(web, HIGH, SYN_ACK)), Ok(()));
    assert_eq!(
        world.receive(back((INTERNET, 444), HIGH, SYN_ACK)),
        Err(SourceBlocked)
    );
    let query = udp(VM_IP, HIGH, INTERNET, 53, &[]);
    let answer = || inbound(udp(INTERNET, 53, VM_IP, HIGH, &[]));
    assert_eq!(world.receive(answer()), Err(SourceBlocked));
    assert_eq!(world.send(query), Ok(()));
    assert_eq!(world.receive(answer()), Ok(()));
    world.now = world.now.after(10);
    assert_eq!(world.receive(answer()), Err(SourceBlocked), "too late");
    assert_eq!(
        world.receive(inbound(icmp(INTERNET, VM_IP, 0))),
        Err(SourceBlocked)
    );
    assert_eq!(world.send(icmp(VM_IP, INTERNET, 8)), Ok(()));
    assert_eq!(world.receive(inbound(icmp(INTERNET, VM_IP, 0))), Ok(()));
}

#[test]
fn a_router_may_say_that_a_packet_is_too_large() {
    let router = "5.6.7.8";
    let mut world = World::new(LEASED, "", "in 0.0.0.0/0");
    let too_large = |own: u16| {
        let Frame(sent) = out(own, (INTERNET, 443), ACK);
        inbound(icmp_error(router, VM_IP, [3, 4], 1400, &sent[14..]))
    };
    assert_eq!(world.receive(too_large(HIGH)), Err(SourceBlocked));
    assert_eq!(world.send(out(HIGH, (INTERNET, 443), SYN)), Ok(()));
    assert_eq!(world.receive(too_large(HIGH)), Ok(()));
    assert_eq!(world.receive(too_large(HIGH + 1)), Err(SourceBlocked));
}

#[test]
fn a_connection_that_a_new_policy_allows_goes_on_and_another_is_cut() {
    let (kept, cut) = ((INTERNET, 443), ("9.9.9.9", 443));
    let mut world = World::new(LEASED, "", "in 0.0.0.0/0");
    for peer in [kept, cut] {
        assert_eq!(world.send(out(HIGH, peer, SYN)), Ok(()));
        assert_eq!(world.receive(back(peer, HIGH, SYN_ACK)), Ok(()));
        assert_eq!(world.send(out(HIGH, peer, ACK)), Ok(()));
    }
    set(&world, "", "in 0.0.0.0/0,out 9.9.9.9");
    for _ in 0..2 {
        assert_eq!(world.receive(back(kept, HIGH, ACK)), Ok(()));
        assert_eq!(world.send(out(HIGH, kept, ACK)), Ok(()));
        assert_eq!(world.receive(back(cut, HIGH, ACK)), Err(SourceBlocked));
        assert_eq!(world.send(out(HIGH, cut, ACK)), Err(DestinationBlocked));
    }
    // Allowed again, a connection that was cut is picked up by the VM alone.
    set(&world, "", "in 0.0.0.0/0");
    assert_eq!(world.receive(back(cut, HIGH, ACK)), Err(SourceBlocked));
    assert_eq!(world.send(out(HIGH, cut, ACK)), Ok(()));
    assert_eq!(world.receive(back(cut, HIGH, ACK)), Ok(()));
}

#[test]
fn a_connection_from_outside_is_judged_by_the_rules_for_who_opened_it() {
    let host = (GATEWAY_IP, HIGH);
    let mut world = World::new(LEASED, "in @host", "0.0.0.0/0");
    assert_eq!(world.receive(back(host, SSH, SYN)), Ok(()));
    assert_eq!(world.send(out(SSH, host, SYN_ACK)), Ok(()));
    set(&world, "in @host,in 1.2.3.4", "0.0.0.0/0");
    assert_eq!(world.send(out(SSH, host, ACK)), Ok(()));
    set(&world, "in 1.2.3.4", "0.0.0.0/0");
    assert_eq!(world.send(out(SSH, host, ACK)), Err(DestinationBlocked));
    assert_eq!(world.receive(back(host, SSH, ACK)), Err(SourceBlocked));
}

#[test]
fn ports_that_are_used_again_are_judged_anew() {
    let web = (INTERNET, 443);
    let mut world = World::new(LEASED, "", "in 0.0.0.0/0");
    assert_eq!(world.send(out(HIGH, web, SYN)), Ok(()));
    assert_eq!(world.receive(back(web, HIGH, SYN_ACK)), Ok(()));
    for end in [FIN, RST] {
        assert_eq!(world.send(out(HIGH, web, end)), Ok(()));
        assert_eq!(world.receive(back(web, HIGH, SYN)), Err(SourceBlocked));
        assert_eq!(world.send(out(HIGH, web, SYN)), Ok(()));
        assert_eq!(world.receive(back(web, HIGH, SYN_ACK)), Ok(()));
    }
}

/// Whatever else is set, and whether it is part of a connection or not.
#[test]
fn what_asks_for_a_connection_counts() {
    for flags in [SYN, SYN | 1, SYN | RST, 0xc0 | SYN] {
        let mut world = World::new(LEASED, "", "in 0.0.0.0/0");
        let sent = (0..10_000).filter(|_| world.send(out(HIGH, (INTERNET, 443), flags)).is_ok());
        assert_eq!(sent.count(), 8192, "{flags:#x}");
    }
}

#[test]
fn later_fragments_follow_the_first() {
    let mut world = World::new(LEASED, "out 0.0.0.0/0:53", "0.0.0.0/0");
    let part = |to: u16, id: u16, offset: u16, more: bool| {
        let datagram = ipv4(17, VM_IP, INTERNET, &{
            let mut payload = vec![0xc3, 0x50];
            payload.extend(to.to_be_bytes());
            payload.extend([0x10, 0x00, 0, 0]);
            payload.resize(64, 0);
            payload
        });
        datagram.set(18, &id.to_be_bytes()).fragment(offset, more)
    };
    assert_eq!(
        world.send(part(53, 1, 8, false)),
        Err(Untracked),
        "without the first"
    );
    assert_eq!(world.send(part(53, 1, 0, true)), Ok(()));
    assert_eq!(world.send(part(53, 1, 8, true)), Ok(()));
    assert_eq!(
        world.send(part(53, 2, 8, true)),
        Err(Untracked),
        "of another"
    );
    assert_eq!(world.send(part(54, 3, 0, true)), Err(DestinationBlocked));
    assert_eq!(world.send(part(54, 3, 8, false)), Err(Untracked));
    // So many at once, as a receiver has to keep them.
    let begun = (100..300)
        .filter(|id| world.send(part(53, *id, 0, true)).is_ok())
        .count();
    assert_eq!(begun, 63);
    assert_eq!(world.send(part(53, 400, 0, true)), Err(FragmentsFull));
    world.now = world.now.after(30);
    assert_eq!(world.send(part(53, 400, 0, true)), Ok(()));
}

#[test]
fn without_a_direction_nothing_is_remembered() {
    let mut world = World::new(LEASED, "", "0.0.0.0/0");
    let host = (GATEWAY_IP, HIGH);
    assert_eq!(world.receive(back(host, SSH, SYN)), Ok(()));
    assert_eq!(world.send(out(SSH, host, SYN_ACK)), Err(DestinationBlocked));
}

#[test]
fn a_connection_to_a_name_server_outlives_a_new_policy_and_not_a_lease_without_it() {
    let (server, another) = ("10.9.8.7", "10.9.8.8");
    let granted = |world: &mut World, server| {
        let request = Dhcp::request(3).address(50, VM_IP).address(54, GATEWAY_IP);
        assert_eq!(world.send(request.broadcast()), Ok(()));
        let ack = Dhcp::reply(5)
            .address(6, server)
            .option(51, &600_u32.to_be_bytes());
        assert_eq!(world.receive(ack.answer()), Ok(()));
    };
    let mut world = World::new(OFFERED, "", "in 0.0.0.0/0");
    granted(&mut world, server);
    for kept in [true, false] {
        for own in [HIGH, HIGH + 1] {
            assert_eq!(world.send(out(own, (server, 53), SYN)), Ok(()));
            assert_eq!(world.receive(back((server, 53), own, SYN_ACK)), Ok(()));
            assert_eq!(world.send(out(own, (server, 53), ACK)), Ok(()));
        }
        let said = |reason| if kept { Ok(()) } else { Err(reason) };
        if kept {
            set(&world, "", "in 0.0.0.0/0,out 9.9.9.9");
        } else {
            granted(&mut world, another);
        }
        // Whichever side is the first to go on.
        let answer = back((server, 53), HIGH, ACK);
        assert_eq!(world.receive(answer), said(SourceBlocked));
        let question = out(HIGH + 1, (server, 53), ACK);
        assert_eq!(world.send(question), said(DestinationPrivate));
    }
}
