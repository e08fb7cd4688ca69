//! What a connection leaves behind when it ends, and what does not end one, nor keep one out.

use softnet::clock::Tick;
use softnet::filter::Filter;

use super::connections::*;
use super::*;

/// An open connection from the VM to a web server, then a policy that forbids everything.
fn forbidden() -> World {
    let web = (INTERNET, 443);
    let mut world = World::new(LEASED, "out 1.2.3.4", "0.0.0.0/0");
    assert_eq!(world.send(out(HIGH, web, SYN)), Ok(()));
    assert_eq!(world.receive(back(web, HIGH, SYN_ACK)), Ok(()));
    assert_eq!(world.send(out(HIGH, web, ACK)), Ok(()));
    set(&world, "", "out 0.0.0.0/0,in 0.0.0.0/0");
    world
}

/// Nothing else of the connection has come since, so nothing has cut it yet.
#[test]
fn an_error_about_a_connection_does_not_outlive_its_policy() {
    let web = (INTERNET, 443);
    let Frame(received) = segment(web, (VM_IP, HIGH), ACK);
    let letter = [&received[14..], &[7; 1000]].concat();
    let to_web = icmp_error(VM_IP, INTERNET, [3, 3], 0, &letter);
    assert_eq!(forbidden().send(to_web.clone()), Err(DestinationBlocked));
    let Frame(sent) = out(HIGH, web, ACK);
    let to_vm = inbound(icmp_error("5.6.7.8", VM_IP, [3, 1], 0, &sent[14..]));
    assert_eq!(forbidden().receive(to_vm.clone()), Err(SourceBlocked));
    // A policy that allows the connection lets them pass after the connection's next packet.
    let mut world = forbidden();
    set(&world, "out 1.2.3.4", "out 0.0.0.0/0,in 0.0.0.0/0");
    assert_eq!(world.send(to_web.clone()), Err(Untracked));
    assert_eq!(world.receive(back(web, HIGH, ACK)), Ok(()));
    assert_eq!(world.send(to_web), Ok(()));
    assert_eq!(world.receive(to_vm), Ok(()));
}

/// A datagram need not have a last fragment, so its first would let out any number of others.
#[test]
fn the_rest_of_a_datagram_does_not_outlive_the_policy_for_its_first_fragment() {
    // A length beyond the fragment.
    let first = || {
        let frame = udp(VM_IP, HIGH, INTERNET, 9, &[0; 16]).set(38, &[1, 0]);
        frame.fragment(0, true)
    };
    let rest = || ipv4(17, VM_IP, INTERNET, &[7; 1400]).fragment(8, true);
    let answer = |offset| {
        let frame = udp(INTERNET, 9, VM_IP, HIGH, &[0; 16]).set(38, &[1, 0]);
        inbound(frame.fragment(offset, true))
    };
    let mut world = World::new(LEASED, "out 1.2.3.4", "0.0.0.0/0");
    assert_eq!(world.send(first()), Ok(()));
    assert_eq!(world.receive(answer(0)), Ok(()));
    set(&world, "", "out 0.0.0.0/0,in 0.0.0.0/0");
    assert_eq!(world.send(rest()), Err(Untracked));
    assert_eq!(world.receive(answer(8)), Err(Untracked));
    // Nor does it begin again with a policy that allows it again.
    set(&world, "out 1.2.3.4", "0.0.0.0/0");
    assert_eq!(world.send(rest()), Err(Untracked));
    assert_eq!(world.send(first()), Ok(()));
    assert_eq!(world.send(rest()), Ok(()));
}

/// Whoever knows a client's address and guesses its port can send it.
#[test]
fn a_forged_syn_does_not_end_a_connection() {
    let client = (INTERNET, HIGH);
    for forged in [back(client, SSH, SYN), back(client, SSH, 0xc0 | SYN)] {
        let mut world = World::new(LEASED, "in tcp 0.0.0.0/0 to 22", "0.0.0.0/0");
        assert_eq!(world.receive(back(client, SSH, SYN)), Ok(()));
        assert_eq!(world.send(out(SSH, client, SYN_ACK)), Ok(()));
        assert_eq!(world.receive(back(client, SSH, ACK)), Ok(()));
        assert_eq!(world.receive(forged), Ok(()));
        // The VM asks the client, which is right not to answer.
        assert_eq!(world.send(out(SSH, client, ACK)), Ok(()));
        world.now = world.now.after(300);
        assert_eq!(world.send(out(SSH, client, ACK)), Ok(()));
        assert_eq!(world.receive(back(client, SSH, ACK)), Ok(()));
        // A client that has started again says so, and is let in.
        assert_eq!(world.receive(back(client, SSH, SYN)), Ok(()));
        assert_eq!(world.send(out(SSH, client, ACK)), Ok(()));
        assert_eq!(world.receive(back(client, SSH, RST)), Ok(()));
        assert_eq!(world.receive(back(client, SSH, SYN)), Ok(()));
        assert_eq!(world.send(out(SSH, client, SYN_ACK)), Ok(()));
        assert_eq!(world.receive(back(client, SSH, ACK)), Ok(()));
    }
}

/// An answer to the VM's request for its address, under this xid.
fn lease_again(world: &mut World, xid: u32) {
    let request = Dhcp::request(3).address(50, VM_IP).address(54, GATEWAY_IP);
    let request = Dhcp { xid, ..request };
    assert_eq!(world.send(request.broadcast()), Ok(()));
    let ack = Dhcp { xid, ..Dhcp::ack() };
    assert_eq!(world.receive(ack.answer()), Ok(()));
}

#[test]
fn a_lease_that_ends_ends_connections_even_if_its_address_comes_again() {
    let host = (GATEWAY_IP, HIGH);
    let end: [fn(&mut World); 4] = [
        |_| {},
        |world| world.now = world.now.after(600),
        |world| assert_eq!(world.send(Dhcp::release().unicast(VM_IP)), Ok(())),
        |world| {
            let refused = Dhcp::request(3).address(50, VM_IP).address(54, GATEWAY_IP);
            let refused = Dhcp { xid: 7, ..refused };
            assert_eq!(world.send(refused.broadcast()), Ok(()));
            let nak = Dhcp {
                xid: 7,
                ..Dhcp::nak()
            };
            assert_eq!(world.receive(nak.answer()), Ok(()));
        },
    ];
    for (number, end) in end.into_iter().enumerate() {
        let mut world = World::new(LEASED, "in @host", "0.0.0.0/0");
        assert_eq!(world.receive(back(host, SSH, SYN)), Ok(()));
        assert_eq!(world.send(out(SSH, host, SYN_ACK)), Ok(()));
        assert_eq!(world.receive(back(host, SSH, ACK)), Ok(()));
        end(&mut world);
        lease_again(&mut world, 99);
        // A renewal ends nothing.
        let said = |reason| if number == 0 { Ok(()) } else { Err(reason) };
        let (answer, question) = (out(SSH, host, ACK), back(host, SSH, ACK));
        assert_eq!(world.send(answer), said(DestinationBlocked), "{number}");
        assert_eq!(world.receive(question), said(Untracked), "{number}");
        assert_eq!(world.receive(back(host, SSH, SYN)), Ok(()));
    }
}

/// The VM answers whoever seems to have asked, so each of these takes a place for three minutes.
#[test]
fn forged_questions_to_a_service_leave_the_vm_connections_of_its_own() {
    let mut world = World::new(LEASED, "in udp 0.0.0.0/0 to 5353", "in 0.0.0.0/0");
    let mut dropped = 0;
    for number in 0..70_000 {
        let sender = std::net::Ipv4Addr::from(0x0b00_0000_u32 + number).to_string();
        let question = inbound(udp(&sender, 4000, VM_IP, 5353, &[]));
        match world.receive(question) {
            Ok(()) => assert_eq!(world.send(udp(VM_IP, 5353, &sender, 4000, &[])), Ok(())),
            Err(reason) => {
                assert_eq!(reason, FlowsFull);
                dropped += 1;
            }
        }
    }
    assert!(dropped > 20_000, "{dropped}");
    // All but those whose set is full of others.
    let opened = (0..8000).filter(|port| world.send(out(*port, (INTERNET, 443), SYN)).is_ok());
    assert!(opened.count() > 7500);
    // They end, and there is room for others, at the latest when the whole table has been swept: until then a set
    // that has no place of theirs takes none.
    world.now = world.now.after(180);
    for _ in 0..11 * 16 {
        world.now = world.now.after_ticks(u64::from(Tick::PER_SECOND / 16));
        world.outbound.begin(world.now);
    }
    let question = inbound(udp(INTERNET, 4000, VM_IP, 5353, &[]));
    assert_eq!(world.receive(question), Ok(()));
}

/// SSH from the host, without keepalive: nothing comes for two hours, in which the lease is renewed
/// and everything with a short timeout expires and is swept away.
#[test]
fn an_idle_connection_outlives_all_that_has_a_short_timeout() {
    let host = (GATEWAY_IP, 40_000);
    let mut world = World::new(LEASED, "in @host,out 1.2.3.4", "0.0.0.0/0");
    assert_eq!(world.receive(back(host, SSH, SYN)), Ok(()));
    assert_eq!(world.send(out(SSH, host, SYN_ACK)), Ok(()));
    assert_eq!(world.receive(back(host, SSH, ACK)), Ok(()));
    // Others: one that nobody answers, one that is reset, and a datagram.
    let others = [(INTERNET, 80), (INTERNET, 81)];
    for server in others {
        assert_eq!(world.send(out(HIGH, server, SYN)), Ok(()));
    }
    assert_eq!(world.receive(back(others[1], HIGH, RST)), Ok(()));
    assert_eq!(world.send(udp(VM_IP, HIGH, INTERNET, 53, &[])), Ok(()));
    // Ten minutes, and then until a second before its own timeout of 7440.
    for (transaction, idle) in [(100, 600), (200, 7439)] {
        for part in 0..idle / 300 {
            world.now = world.now.after(300);
            lease_again(&mut world, transaction + part);
        }
        world.now = world.now.after(idle % 300);
        for server in others {
            assert_eq!(
                world.receive(back(server, HIGH, SYN_ACK)),
                Err(SourceBlocked)
            );
        }
        let late = inbound(udp(INTERNET, 53, VM_IP, HIGH, &[]));
        assert_eq!(world.receive(late), Err(SourceBlocked));
        // Either side may be the first to speak again.
        assert_eq!(world.send(out(SSH, host, ACK)), Ok(()));
        assert_eq!(world.receive(back(host, SSH, ACK)), Ok(()));
    }
}

/// A NAT that is shared has 64,512 ports for connections to one server, and holds each for two
/// minutes if nobody answers.
#[test]
fn unanswered_connections_to_one_server_leave_ports_of_the_nat_to_neighbours() {
    for protocol in ["tcp", "udp"] {
        let mut world = World::new(LEASED, "", "in 9.9.9.9");
        let mut passed = std::collections::HashSet::new();
        for second in 0..120_u32 {
            for number in 0..1000 {
                let port = (1024 + (second * 1000 + number) % 64_000)
                    .try_into()
                    .unwrap();
                let frame = match protocol {
                    "tcp" => out(port, (INTERNET, 443), SYN),
                    _ => udp(VM_IP, port, INTERNET, 443, &[]),
                };
                match world.send(frame) {
                    Ok(()) => _ = passed.insert(port),
                    Err(reason) => assert_eq!(reason, ServerLimit),
                }
            }
            world.now = world.now.after(1);
        }
        // 7,680 at once, and then 64 a second.
        let ports = passed.len();
        assert!((10_000..=15_360).contains(&ports), "{protocol}: {ports}");
        // Others are reached all the same, by address or by port, but for what shares a counter.
        let servers = [1, 2, 3, 4, 5].map(|port| (INTERNET, port));
        let servers = servers
            .into_iter()
            .chain([("4.3.2.1", 443), ("4.3.2.2", 443)]);
        let reached = servers.filter(|server| world.send(out(999, *server, SYN)).is_ok());
        assert!(reached.count() > 4);
    }
}

/// A load test with a thousand connections, and a scan that is answered.
#[test]
fn answered_connections_to_one_server_are_many() {
    let mut world = World::new(LEASED, "", "in 9.9.9.9");
    let server = (INTERNET, 443);
    let mut open = 0_u32;
    for port in 1024..64_000 {
        // No more than the rate of new connections allows.
        if port % 1000 == 0 {
            world.now = world.now.after(1);
        }
        match world.send(out(port, server, SYN)) {
            Ok(()) => open += 1,
            // A few find their set full.
            Err(FlowsFull) if open + 20 > u32::from(port) - 1024 => continue,
            Err(reason) => {
                assert_eq!((reason, open), (ServerLimit, 32_256));
                continue;
            }
        }
        assert_eq!(world.receive(back(server, port, SYN_ACK)), Ok(()));
        assert_eq!(world.send(out(port, server, ACK)), Ok(()));
    }
    assert_eq!(open, 32_256);
    // They go on.
    assert_eq!(world.send(out(1024, server, ACK)), Ok(()));
}

/// Under the identifier of somebody else's.
#[test]
fn whoever_was_asked_by_an_echo_request_may_not_ask_back() {
    let mut world = World::new(LEASED, "in @host", "0.0.0.0/0");
    let asked = || inbound(icmp(GATEWAY_IP, VM_IP, 8));
    assert_eq!(world.receive(asked()), Ok(()));
    let back = icmp(VM_IP, GATEWAY_IP, 8);
    assert_eq!(world.send(back), Err(DestinationBlocked));
    assert_eq!(world.send(icmp(VM_IP, GATEWAY_IP, 0)), Ok(()));
    let mut world = World::new(LEASED, "", "in 0.0.0.0/0");
    assert_eq!(world.send(icmp(VM_IP, INTERNET, 8)), Ok(()));
    let back = inbound(icmp(INTERNET, VM_IP, 8));
    assert_eq!(world.receive(back), Err(SourceBlocked));
    assert_eq!(world.receive(inbound(icmp(INTERNET, VM_IP, 0))), Ok(()));
    // Both may ask where the rules let both.
    let mut world = World::new(LEASED, "", "in 9.9.9.9,out 9.9.9.9");
    for _ in 0..2 {
        assert_eq!(world.send(icmp(VM_IP, INTERNET, 8)), Ok(()));
        assert_eq!(world.receive(inbound(icmp(INTERNET, VM_IP, 8))), Ok(()));
        assert_eq!(world.send(icmp(VM_IP, INTERNET, 0)), Ok(()));
        assert_eq!(world.receive(inbound(icmp(INTERNET, VM_IP, 0))), Ok(()));
    }
}

/// Nine of these in a second were enough, from whatever address.
#[test]
fn first_fragments_without_a_rest_keep_no_answer_out() {
    let mut world = World::new(LEASED, "in udp 0.0.0.0/0 to 5353", "in 0.0.0.0/0");
    for id in 0..300_u16 {
        let frame = udp("5.6.7.8", 4000, VM_IP, 5353, &[0; 16]).set(38, &[1, 0]);
        let frame = frame.set(18, &id.to_be_bytes()).fragment(0, true);
        assert_eq!(world.receive(inbound(frame)), Ok(()), "{id}");
    }
    assert_eq!(world.send(udp(VM_IP, HIGH, INTERNET, 53, &[])), Ok(()));
    let answer = udp(INTERNET, 53, VM_IP, HIGH, &[0; 16]).set(38, &[0, 24 + 8]);
    assert_eq!(world.receive(inbound(answer.fragment(0, true))), Ok(()));
    let rest = ipv4(17, INTERNET, VM_IP, &[0; 8]).fragment(3, false);
    assert_eq!(world.receive(inbound(rest)), Ok(()));
}
