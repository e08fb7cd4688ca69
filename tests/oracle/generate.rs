//! Frames from choices: ordinary ones, with a few faults in them.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::choices::Choices;
use crate::naive_guard;
use crate::scene::{GATEWAY, OTHER, Scene, VM};

/// A frame in one of the directions.
pub(crate) fn frame(choices: &mut Choices<'_>, scene: &Scene, outbound: bool) -> Vec<u8> {
    let (mut to, mut from) = if outbound {
        (GATEWAY, VM)
    } else {
        (VM, GATEWAY)
    };
    let kind = if scene.is_about_dhcp && !choices.sometimes(32) {
        11
    } else {
        choices.below(16)
    };
    let mut bytes = match kind {
        0..=8 => packet(choices, scene, outbound, &mut to),
        9..=10 => arp(choices, scene, outbound, &mut to),
        11..=14 => dhcp(choices, scene, outbound, &mut to),
        _ if choices.sometimes(128) => foreign(choices),
        _ => packet(choices, scene, outbound, &mut to),
    };
    if choices.sometimes(40) {
        to = mac(choices, to);
    }
    if choices.sometimes(8) {
        let before = from;
        from = mac(choices, from);
        // An ARP message that says so too.
        let is_sender = bytes.get(8..14) == Some(&before[..]);
        if is_sender && !choices.sometimes(100) {
            bytes[8..14].copy_from_slice(&from);
        }
    }
    let kind = bytes.split_off(bytes.len() - 2);
    let mut frame = [&to[..], &from, &kind, &bytes].concat();
    if choices.sometimes(8) {
        frame.resize(
            choices.pick(&[60, 64, 65, 13, 14, 0, 34, 42, 1514, 1515, 600]),
            0,
        );
    }
    if choices.sometimes(16) {
        for _ in 0..=choices.below(3) {
            mutate(choices, &mut frame);
        }
    }
    frame
}

fn mutate(choices: &mut Choices<'_>, frame: &mut Vec<u8>) {
    let at = usize::from(choices.u16()) % (frame.len() + 1);
    let near = choices.below(64).min(frame.len());
    let at = if choices.sometimes(128) { at } else { near };
    match choices.below(4) {
        0 | 1 if at < frame.len() => frame[at] = choices.byte(),
        2 => frame.truncate(at),
        _ => frame.insert(at, choices.byte()),
    }
}

/// What is carried, followed by the EtherType.
fn foreign(choices: &mut Choices<'_>) -> Vec<u8> {
    let known = [
        0x86dd, 0x8100, 0x88a8, 0x9100, 0x9200, 0x9300, 0x888e, 0, 46, 1500, 1501, 0x88cc, 0x0801,
    ];
    let number = if choices.sometimes(64) {
        choices.u16()
    } else {
        choices.pick(&known)
    };
    let len = choices.below(100);
    let mut bytes = vec![choices.byte(); len];
    bytes.extend(number.to_be_bytes());
    bytes
}

fn arp(choices: &mut Choices<'_>, scene: &Scene, outbound: bool, to: &mut [u8; 6]) -> Vec<u8> {
    let operation = choices.pick(&[1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 3, 0, 257]);
    let (own, own_mac) = if outbound {
        (scene.address, VM)
    } else {
        (scene.facts.gateway, GATEWAY)
    };
    if choices.sometimes(128) {
        *to = [0xff; 6];
    }
    let sender = match choices.below(8) {
        0..=4 => own,
        5 | 6 => Ipv4Addr::UNSPECIFIED,
        _ => address(choices, scene),
    };
    let target = if choices.sometimes(60) {
        address(choices, scene)
    } else {
        scene.address
    };
    let mut bytes = vec![0, 1, 8, 0, 6, 4];
    if choices.sometimes(16) {
        let at = choices.below(6);
        bytes[at] = choices.byte();
    }
    bytes.extend(u16::to_be_bytes(operation));
    bytes.extend(own_mac);
    bytes.extend(sender.octets());
    bytes.extend([0; 6]);
    bytes.extend(target.octets());
    bytes.resize(choices.pick(&[28, 46, 28, 46, 28, 46, 50, 51, 27]), 0);
    bytes.extend([8, 6]);
    bytes
}

fn packet(choices: &mut Choices<'_>, scene: &Scene, outbound: bool, to: &mut [u8; 6]) -> Vec<u8> {
    let (mut source, mut destination) = (INTERNET, INTERNET);
    if choices.sometimes(130) {
        (source, destination) = (address(choices, scene), address(choices, scene));
    }
    if outbound && !choices.sometimes(16) {
        source = scene.address;
    }
    if !outbound && !choices.sometimes(60) {
        destination = scene.address;
    }
    if choices.sometimes(100) {
        *to = group_mac(destination, scene.network, *to);
    }
    let protocol = choices.pick(&[6, 17, 1, 6, 17, 6, 17, 6, 17, 6, 17, 1, 41, 2, 47, 6]);
    let mut payload = transport(choices, protocol);
    let mut offset = 0;
    if choices.sometimes(30) {
        offset = choices.pick(&[
            0x2000, 0, 1, 2, 3, 185, 8187, 8189, 8191, 0x2001, 0x2003, 0x2100,
        ]);
        payload.resize(choices.pick(&[64, 24, 16, 8, 19, 20, 0, 1, 100]), 0);
    }
    ip(choices, protocol, offset, (source, destination), &payload)
}

fn transport(choices: &mut Choices<'_>, protocol: u8) -> Vec<u8> {
    let ports = [443, 53, 443, 53, 443, 53, 67, 68, 1, 5353];
    let (from, to) = (choices.pick(&ports), choices.pick(&ports));
    let data = choices.pick(&[0, 8, 12, 40, 1200]);
    let len = u16::try_from(8 + data).unwrap();
    let mut payload = u16::to_be_bytes(from).to_vec();
    payload.extend(u16::to_be_bytes(to));
    match protocol {
        17 => {
            let lie = if choices.sometimes(16) {
                choices.pick(&[1, 0xffff, 8, 0xfff8, 100])
            } else {
                0
            };
            payload.extend(len.wrapping_add(lie).to_be_bytes());
            payload.extend([0, 0]);
        }
        1 => {
            payload[0] = choices.pick(&[8, 0, 3, 5, 11, 9]);
            payload.extend([0; 4]);
        }
        _ => payload.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]),
    }
    payload.extend(vec![0; data]);
    if choices.sometimes(8) {
        payload.truncate(choices.pick(&[7, 8, 19, 20, 0, 3]));
    }
    payload
}

fn ip(
    choices: &mut Choices<'_>,
    protocol: u8,
    offset: u16,
    (source, destination): (Ipv4Addr, Ipv4Addr),
    payload: &[u8],
) -> Vec<u8> {
    let options: &[u8] = if choices.sometimes(12) {
        let some: [&[u8]; 9] = [
            &[148, 4, 0, 0],
            &[1, 1, 0, 7],
            &[131, 3, 4, 0],
            &[7, 7, 4, 0, 0, 0, 0, 0],
            &[1, 148, 4, 0],
            &[1, 1, 1, 148],
            &[148, 4, 0, 0, 68, 4, 5, 0],
            &[148, 3, 0, 0],
            &[0; 40],
        ];
        choices.pick(&some)
    } else {
        &[]
    };
    let mut first = 0x45 + u8::try_from(options.len() / 4).unwrap();
    let total = u16::try_from(20 + options.len() + payload.len()).unwrap();
    let mut lie = 0;
    if choices.sometimes(8) {
        lie = choices.pick(&[1, 0xffff, 8, 0xfff8, 0xffec, 0x8000]);
        first = choices.pick(&[first, 0x44, 0x46, 0x4f, 0x65, 0x40]);
    }
    let mut bytes = vec![first, 0];
    bytes.extend(total.wrapping_add(lie).to_be_bytes());
    bytes.extend([0x12, 0x34]);
    bytes.extend((offset | choices.pick(&[0, 0, 0x4000, 0x8000])).to_be_bytes());
    bytes.extend([64, protocol, 0, 0]);
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    bytes.extend(options);
    bytes.extend(payload);
    if bytes.len() < 50 && choices.sometimes(40) {
        bytes.resize(choices.pick(&[46, 50, 51, 100]), 0);
    }
    bytes.extend([8, 0]);
    bytes
}

fn dhcp(choices: &mut Choices<'_>, scene: &Scene, outbound: bool, to: &mut [u8; 6]) -> Vec<u8> {
    let message = if outbound {
        request(choices, scene)
    } else {
        reply(choices, scene)
    };
    let (mut ports, mut ends) = if outbound {
        let own = if choices.sometimes(100) {
            scene.address
        } else {
            Ipv4Addr::UNSPECIFIED
        };
        ((68, 67), (own, Ipv4Addr::BROADCAST))
    } else {
        ((67, 68), (scene.facts.gateway, scene.address))
    };
    match choices.below(4) {
        0 | 1 => *to = [0xff; 6],
        2 if outbound => ends.1 = scene.facts.gateway,
        _ => {}
    }
    if choices.sometimes(12) {
        ports = choices.pick(&[
            (67, 68),
            (68, 67),
            (67, 67),
            (68, 68),
            (1067, 68),
            (1068, 67),
        ]);
    }
    if choices.sometimes(12) {
        ends.0 = address(choices, scene);
    }
    if choices.sometimes(12) {
        ends.1 = address(choices, scene);
    }
    datagram(choices, ports, ends, &message)
}

fn datagram(
    choices: &mut Choices<'_>,
    ports: (u16, u16),
    ends: (Ipv4Addr, Ipv4Addr),
    data: &[u8],
) -> Vec<u8> {
    let mut payload = ports.0.to_be_bytes().to_vec();
    payload.extend(ports.1.to_be_bytes());
    payload.extend(u16::try_from(8 + data.len()).unwrap().to_be_bytes());
    payload.extend([0, 0]);
    payload.extend(data);
    if choices.sometimes(128) {
        let addresses = [ends.0.octets(), ends.1.octets()].concat();
        let mut frame = vec![0; 26];
        frame.extend(addresses);
        let sum = u16::try_from(0xffff - naive_guard::udp_sum(&frame, &payload)).unwrap();
        // One in a while is wrong, and must stay so.
        let damage = u16::from(choices.sometimes(16));
        payload[6..8].copy_from_slice(&(sum ^ damage << 3).to_be_bytes());
    }
    ip(choices, 17, 0, ends, &payload)
}

fn request(choices: &mut Choices<'_>, scene: &Scene) -> Vec<u8> {
    let kind = choices.pick(&[3, 1, 7, 4, 8, 3, 1, 3, 1, 3, 1, 8, 3, 2, 5, 13, 0]);
    let mut options = vec![53, 1, kind];
    if choices.sometimes(130) || kind == 4 {
        option(
            &mut options,
            50,
            &own_or(choices, scene, scene.address).octets(),
        );
    }
    if choices.sometimes(130) {
        option(
            &mut options,
            54,
            &own_or(choices, scene, scene.facts.gateway).octets(),
        );
    }
    let ciaddr = if kind == 7 || choices.sometimes(80) {
        own_or(choices, scene, scene.address)
    } else {
        Ipv4Addr::UNSPECIFIED
    };
    if choices.sometimes(12) {
        option(&mut options, choices.pick(&[82, 118]), &[1, 2, 3, 4]);
    }
    if choices.sometimes(100) {
        option(&mut options, 61, choices.pick(&CLIENT_IDENTIFIERS));
    }
    let op = if choices.sometimes(8) {
        choices.pick(&[2, 0])
    } else {
        1
    };
    message(choices, scene, op, (ciaddr, Ipv4Addr::UNSPECIFIED), options)
}

fn reply(choices: &mut Choices<'_>, scene: &Scene) -> Vec<u8> {
    let asked = scene.facts.asked.last();
    let kind = if asked.is_none() || choices.sometimes(60) {
        choices.pick(&[5, 2, 6, 5, 5, 2, 3, 9])
    } else {
        match asked.map(|asked| asked.kind) {
            Some(1) => 2,
            Some(3) => choices.pick(&[5, 5, 5, 6]),
            _ => 5,
        }
    };
    let mut options = vec![53, 1, kind];
    if choices.sometimes(100) {
        let identifiers = [OWN_IDENTIFIER, OWN_IDENTIFIER, OWN_IDENTIFIER, b"\0vm"];
        option(&mut options, 61, choices.pick(&identifiers));
    }
    if !choices.sometimes(16) {
        option(
            &mut options,
            54,
            &own_or(choices, scene, scene.facts.gateway).octets(),
        );
    }
    if !choices.sometimes(40) {
        let time = choices.pick(&[600, 1, 0, u32::MAX, u32::MAX - 1, 7]);
        option(&mut options, 51, &u32::to_be_bytes(time));
    }
    if !choices.sometimes(60) {
        let mask = choices.pick(&[
            0xffff_ff00,
            0xffff_0000,
            0xfff0_0000,
            0xff00_ff00,
            0,
            u32::MAX,
        ]);
        option(&mut options, 1, &u32::to_be_bytes(mask));
    }
    for _ in 0..choices.below(3) {
        let servers: Vec<u8> = (0..choices.below(6))
            .flat_map(|_| name_server(choices, scene).octets())
            .collect();
        option(&mut options, 6, &servers);
    }
    let yiaddr = if kind == 6 {
        Ipv4Addr::UNSPECIFIED
    } else {
        own_or(choices, scene, scene.address)
    };
    let op = if choices.sometimes(8) {
        choices.pick(&[1, 0])
    } else {
        2
    };
    message(choices, scene, op, (Ipv4Addr::UNSPECIFIED, yiaddr), options)
}

fn message(
    choices: &mut Choices<'_>,
    scene: &Scene,
    op: u8,
    (ciaddr, yiaddr): (Ipv4Addr, Ipv4Addr),
    mut options: Vec<u8>,
) -> Vec<u8> {
    for _ in 0..choices.pick(&[0, 0, 0, 0, 1, 2]) {
        let code = choices.pick(&[0, 12, 53, 54, 50, 51, 52, 1, 6, 55, 61, 80, 80, 80]);
        let len = choices.pick(&[4, 1, 0, 3, 8, 60]);
        if code == 0 {
            options.push(0);
        } else {
            let fill = choices.pick(&[1, 2, 3, 4, 0]);
            option(&mut options, code, &vec![fill; len]);
        }
    }
    let mut bytes = vec![op, 1, 6, 0];
    bytes.extend(transaction(choices, scene, op).to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(ciaddr.octets());
    bytes.extend(yiaddr.octets());
    bytes.extend([0; 4]);
    let relay = if choices.sometimes(8) {
        address(choices, scene)
    } else {
        Ipv4Addr::UNSPECIFIED
    };
    bytes.extend(relay.octets());
    let client = if choices.sometimes(8) {
        mac(choices, VM)
    } else {
        VM
    };
    bytes.extend(client);
    bytes.extend([0; 10 + 64 + 128]);
    if choices.sometimes(16) {
        hide_options(choices, scene, &mut bytes);
    }
    bytes.extend([99, 130, 83, 99]);
    bytes.extend(options);
    if choices.sometimes(40) {
        // Up to the longest frame, or a little less, where an identifier has no room to grow.
        let len = scene.facts.max_frame - 43 - choices.below(8);
        bytes.resize(bytes.len().max(len), 0);
    }
    match choices.below(8) {
        0..=5 => bytes.push(255),
        6 => bytes.extend([0, 0]),
        _ => {}
    }
    if choices.sometimes(8) {
        let at = choices.pick(&[1, 2, 236, 240, 241]);
        if let Some(byte) = bytes.get_mut(at) {
            *byte = choices.byte();
        }
    }
    bytes
}

/// Fewer than are remembered: which of them is forgotten first is not promised.
fn transaction(choices: &mut Choices<'_>, scene: &Scene, op: u8) -> u32 {
    let asked = scene.facts.asked.last();
    match asked.filter(|_| op == 2 && !choices.sometimes(40)) {
        Some(asked) => asked.xid,
        None => u32::try_from(choices.below(8)).unwrap() << 24,
    }
}

/// In the fields of names, where only option 52 has them read.
fn hide_options(choices: &mut Choices<'_>, scene: &Scene, bytes: &mut [u8]) {
    for at in [44, 108] {
        let mut options = Vec::new();
        let code = choices.pick(&[54, 51, 12, 53]);
        option(&mut options, code, &scene.facts.gateway.octets());
        if choices.sometimes(128) {
            option(&mut options, 61, OWN_IDENTIFIER);
        }
        options.push(255);
        bytes[at..at + options.len()].copy_from_slice(&options);
    }
}

fn option(options: &mut Vec<u8>, code: u8, data: &[u8]) {
    options.extend([code, u8::try_from(data.len()).unwrap()]);
    options.extend(data);
}

// --- a lease, as it is ordinarily had ---

pub(crate) fn discover(scene: &Scene) -> Vec<u8> {
    asked(scene, 1, Vec::new())
}

pub(crate) fn select(scene: &Scene) -> Vec<u8> {
    let mut options = Vec::new();
    option(&mut options, 50, &scene.address.octets());
    option(&mut options, 54, &scene.facts.gateway.octets());
    asked(scene, 3, options)
}

pub(crate) fn offer(scene: &Scene) -> Vec<u8> {
    answered(scene, 2, Vec::new())
}

pub(crate) fn ack(scene: &Scene, time: u32, servers: &[Ipv4Addr]) -> Vec<u8> {
    let mut options = Vec::new();
    option(&mut options, 51, &time.to_be_bytes());
    option(&mut options, 1, &scene.network.netmask().octets());
    let servers: Vec<u8> = servers.iter().flat_map(|server| server.octets()).collect();
    option(&mut options, 6, &servers);
    answered(scene, 5, options)
}

fn asked(scene: &Scene, kind: u8, options: Vec<u8>) -> Vec<u8> {
    let (none, ends) = (
        &mut Choices::new(&[]),
        (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST),
    );
    let options = [vec![53, 1, kind], options].concat();
    let message = message(
        none,
        scene,
        1,
        (Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED),
        options,
    );
    let mut bytes = datagram(none, (68, 67), ends, &message);
    bytes.truncate(bytes.len() - 2);
    [&[0xff; 6][..], &VM, &[8, 0], &bytes].concat()
}

fn answered(scene: &Scene, kind: u8, options: Vec<u8>) -> Vec<u8> {
    let (none, ends) = (&mut Choices::new(&[]), (scene.facts.gateway, scene.address));
    let mut server = vec![53, 1, kind];
    option(&mut server, 54, &scene.facts.gateway.octets());
    let options = [server, options].concat();
    let message = message(
        none,
        scene,
        2,
        (Ipv4Addr::UNSPECIFIED, scene.address),
        options,
    );
    let mut bytes = datagram(none, (67, 68), ends, &message);
    bytes.truncate(bytes.len() - 2);
    [&VM[..], &GATEWAY, &[8, 0], &bytes].concat()
}

// --- addresses ---

fn own_or(choices: &mut Choices<'_>, scene: &Scene, own: Ipv4Addr) -> Ipv4Addr {
    if choices.sometimes(24) {
        address(choices, scene)
    } else {
        own
    }
}

fn address(choices: &mut Choices<'_>, scene: &Scene) -> Ipv4Addr {
    let facts = &scene.facts;
    let inside = |at: u32| Ipv4Addr::from(u32::from(scene.network.network()).wrapping_add(at));
    let servers = facts.lease.iter().flat_map(|lease| &lease.name_servers);
    let servers: Vec<Ipv4Addr> = servers.copied().collect();
    let rules: Vec<&Ipv4Net> = facts.allow.iter().chain(&facts.block).collect();
    match choices.below(16) {
        0 => INTERNET,
        1 | 2 => facts.gateway,
        3 => scene.address,
        4 => inside(u32::from(choices.byte())),
        5 => scene.network.network(),
        6 => scene.network.broadcast(),
        7 => choices.pick(&[
            Ipv4Addr::BROADCAST,
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::LOCALHOST,
        ]),
        8 => choices.pick(&[Ipv4Addr::new(224, 0, 0, 251), Ipv4Addr::new(239, 129, 2, 3)]),
        9 | 10 if !servers.is_empty() => choices.pick(&servers),
        11 | 12 if !rules.is_empty() => {
            let rule = choices.pick(&rules);
            edge(choices, rule)
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

fn mac(choices: &mut Choices<'_>, ordinary: [u8; 6]) -> [u8; 6] {
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
fn group_mac(address: Ipv4Addr, network: Ipv4Net, single: [u8; 6]) -> [u8; 6] {
    let [_, b, c, d] = address.octets();
    if address.is_multicast() {
        [1, 0, 0x5e, b & 0x7f, c, d]
    } else if address.is_broadcast() || address == network.broadcast() {
        [0xff; 6]
    } else {
        single
    }
}

/// Those that clients send, or could.
const CLIENT_IDENTIFIERS: [&[u8]; 8] = [
    OWN_IDENTIFIER,
    b"\0vm",
    &[0, 1],
    &[7; 19],
    &[8; 60],
    &[9; 255],
    &[1],
    &[1, 0x52, 0x54, 0, 0, 0, 0x50],
];

/// What the server knows the VM by: 1 for Ethernet, and its MAC address.
const OWN_IDENTIFIER: &[u8] = &[1, VM[0], VM[1], VM[2], VM[3], VM[4], VM[5]];

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
