//! Rules whose sources change while frames flow: the policy, the host's addresses, the network.

use DropReason::*;
use softnet::filter::{DropReason, Filter, Policy, Step, Verdict};

use crate::frames::*;

#[test]
fn a_batch_is_judged_by_the_rules_that_held_when_it_began() {
    let mut world = World::new(LEASED, "", "");
    world.outbound.begin(START);
    world
        .rules
        .set_policy(Policy::parse("", "1.2.3.0/24").unwrap().0);
    let step = world.outbound.judge(&web().0);
    assert_eq!(step, Step::Done(Verdict::Forward));
    world.outbound.begin(START);
    let step = world.outbound.judge(&web().0);
    assert_eq!(step, Step::Done(Verdict::Drop(DestinationBlocked)));
}

#[test]
fn both_directions_follow_the_policy() {
    let group = softnet::wire::Mac([0x01, 0x00, 0x5e, 0, 0, 0xfb]);
    let mdns = || udp(GATEWAY_IP, 5353, "224.0.0.251", 5353, &[]);
    let mut world = World::new(LEASED, "", "");
    let mut outcomes = |allow| {
        let policy = Policy::parse(allow, "").unwrap().0;
        world.rules.set_policy(policy);
        let sent = udp(VM_IP, 5353, "224.0.0.251", 5353, &[]).to(group);
        (world.send(sent), world.receive(inbound(mdns()).to(group)))
    };
    assert_eq!(outcomes("224.0.0.251/32"), (Ok(()), Ok(())));
    let refused = (Err(DestinationMulticast), Err(DestinationGroup));
    assert_eq!(outcomes(""), refused);
}

#[test]
fn a_network_that_came_with_the_lease_closes_the_neighbours() {
    let state = State {
        subnet: None,
        ..OFFERED
    };
    for (mask, outcome) in [
        ("255.255.255.0", Err(Isolation)),
        // It does not hold both the gateway and the lease.
        ("255.255.255.255", Ok(())),
    ] {
        let mut world = World::new(state, "192.168.0.0/16", "");
        select(&mut world, Dhcp::reply(5).address(1, mask));
        let neighbour = world.send(tcp(VM_IP, OTHER_IP, 22));
        assert_eq!(neighbour, outcome, "{mask}");
        assert_eq!(world.send(tcp(VM_IP, "192.168.65.50", 22)), Ok(()));
        assert_eq!(world.send(tcp(VM_IP, GATEWAY_IP, 22)), Ok(()));
    }
}

#[test]
fn name_servers_of_the_lease_are_open_among_neighbours_and_in_a_cloud() {
    for (server, closed) in [
        (OTHER_IP, Isolation),
        ("168.63.129.16", DestinationMetadata),
        ("192.80.8.124", DestinationMetadata),
    ] {
        let with_lease = |block| {
            let mut world = World::new(OFFERED, "", block);
            select(&mut world, Dhcp::reply(5).address(6, server));
            world
        };
        let mut world = with_lease("");
        assert_eq!(world.send(udp(VM_IP, 5000, server, 53, &[])), Ok(()));
        assert_eq!(world.send(tcp(VM_IP, server, 53)), Ok(()));
        assert_eq!(world.send(tcp(VM_IP, server, 80)), Err(closed), "{server}");
        for block in ["0.0.0.0/0", &format!("{server}/32")] {
            let sent = with_lease(block).send(tcp(VM_IP, server, 53));
            assert_eq!(sent, Err(DestinationBlocked), "{server} and {block}");
        }
        // Only what the lease names.
        let mut world = World::new(LEASED, "", "");
        assert_eq!(world.send(tcp(VM_IP, server, 53)), Err(closed), "{server}");
    }
}

#[test]
fn addresses_of_a_blocked_host_are_followed() {
    let addresses = |texts: &[&str]| texts.iter().map(|text| ip(text)).collect::<Vec<_>>();
    let mut world = World::new(LEASED, "", "@host");
    assert_eq!(world.send(web()), Ok(()));
    world
        .rules
        .set_host_addresses(addresses(&["4.4.4.4", INTERNET]));
    assert_eq!(world.send(web()), Err(DestinationBlocked));
    assert_eq!(
        world.send(tcp(VM_IP, "4.4.4.4", 22)),
        Err(DestinationBlocked)
    );
    world.rules.set_host_addresses(addresses(&["4.4.4.4"]));
    assert_eq!(world.send(web()), Ok(()));
    // As long as the host is not blocked they do not count, and they do when it is again.
    world.rules.set_policy(Policy::default());
    assert_eq!(world.send(tcp(VM_IP, "4.4.4.4", 22)), Ok(()));
    world
        .rules
        .set_policy(Policy::parse("", "@host").unwrap().0);
    assert_eq!(
        world.send(tcp(VM_IP, "4.4.4.4", 22)),
        Err(DestinationBlocked)
    );
    assert_eq!(
        world.send(tcp(VM_IP, GATEWAY_IP, 22)),
        Err(DestinationBlocked)
    );
}

/// The VM takes what it was offered, and this grants it.
fn select(world: &mut World, answer: Dhcp) {
    let request = Dhcp::request(3).address(50, VM_IP).address(54, GATEWAY_IP);
    assert_eq!(world.send(request.broadcast()), Ok(()));
    let answer = answer.option(51, &600_u32.to_be_bytes());
    assert_eq!(world.receive(answer.answer()), Ok(()));
}
