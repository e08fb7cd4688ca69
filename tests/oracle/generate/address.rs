//! Addresses that matter in a scene, and those beside them.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::choices::Choices;
use crate::scene::{GATEWAY, OTHER, Scene, VM};

pub(super) fn own_or(choices: &mut Choices<'_>, scene: &Scene, own: Ipv4Addr) -> Ipv4Addr {
    if choices.sometimes(24) {
        address(choices, scene)
    } else {
        own
    }
}

pub(super) fn address(choices: &mut Choices<'_>, scene: &Scene) -> Ipv4Addr {
    let facts = &scene.facts;
    let inside = |at: u32| Ipv4Addr::from(u32::from(scene.network.network()).wrapping_add(at));
    let servers = facts.lease.iter().flat_map(|lease| &lease.name_servers);
    let servers: Vec<Ipv4Addr> = servers.copied().collect();
    let rules = facts.rules.iter().flat_map(|rule| facts.nets(&rule.target));
    let rules: Vec<Ipv4Net> = rules.collect();
    match choices.below(16) {
        0 => INTERNET,
        1 | 2 => facts.gateway,
        3 => scene.address,
        4 if choices.sometimes(128) => inside(u32::from(choices.byte())),
        4 => facts.taken[0],
        5 => scene.network.network(),
        6 => scene.network.broadcast(),
        7 => choices.pick(&[
            Ipv4Addr::BROADCAST,
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::LOCALHOST,
        ]),
        8 => choices.pick(&[
            Ipv4Addr::new(224, 0, 0, 251),
            Ipv4Addr::new(239, 129, 2, 3),
            Ipv4Addr::new(168, 63, 129, 16),
            Ipv4Addr::new(192, 80, 8, 124),
        ]),
        9 | 10 if !servers.is_empty() => choices.pick(&servers),
        11 | 12 if !rules.is_empty() => {
            let rule = choices.pick(&rules);
            edge(choices, &rule)
        }
        12..=14 => special_edge(choices),
        15 => choices.u32().into(),
        _ => Ipv4Addr::new(8, 8, 4, 4),
    }
}

pub(crate) fn name_server(choices: &mut Choices<'_>, scene: &Scene) -> Ipv4Addr {
    match choices.below(4) {
        0 => scene.facts.gateway,
        1 => Ipv4Addr::new(10, 9, 8, choices.byte()),
        2 => special_edge(choices),
        _ => INTERNET,
    }
}

pub(crate) fn special_edge(choices: &mut Choices<'_>) -> Ipv4Addr {
    let range: Ipv4Net = choices.pick(&SPECIAL_RANGES).parse().unwrap();
    edge(choices, &range)
}

/// The first and last of a range, and those beside them.
fn edge(choices: &mut Choices<'_>, range: &Ipv4Net) -> Ipv4Addr {
    let (first, last) = (u32::from(range.network()), u32::from(range.broadcast()));
    choices
        .pick(&[first, last, first.wrapping_sub(1), last.wrapping_add(1)])
        .into()
}

pub(super) fn mac(choices: &mut Choices<'_>, ordinary: [u8; 6]) -> [u8; 6] {
    match choices.below(10) {
        0 | 1 => OTHER,
        2 | 3 => [0xff; 6],
        4 => GATEWAY,
        5 => VM,
        6 => [1, 0, 0x5e, 0, 0, 0xfb],
        7 => [1, 0x80, 0xc2, 0, 0, 0],
        8 => [choices.byte(), choices.byte(), 0, 0, 0, choices.byte()],
        _ => ordinary,
    }
}

/// Where packets to a group go, or the MAC address of one station.
pub(super) fn group_mac(address: Ipv4Addr, network: Ipv4Net, single: [u8; 6]) -> [u8; 6] {
    let [_, b, c, d] = address.octets();
    if address.is_multicast() {
        [1, 0, 0x5e, b & 0x7f, c, d]
    } else if address.is_broadcast() || address == network.broadcast() {
        [0xff; 6]
    } else {
        single
    }
}

pub(crate) const INTERNET: Ipv4Addr = Ipv4Addr::new(1, 2, 3, 4);

pub(crate) const SPECIAL_RANGES: [&str; 16] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "255.255.255.255/32",
];
