//! DHCP messages in frames, right and wrong.

use std::net::Ipv4Addr;

use super::address::{address, mac, name_server, own_or};
use super::packet::ip;
use crate::choices::Choices;
use crate::naive;
use crate::scene::{Scene, VM};

pub(super) fn dhcp(
    choices: &mut Choices<'_>,
    scene: &Scene,
    outbound: bool,
    to: &mut [u8; 6],
) -> Vec<u8> {
    let message = if outbound {
        request(choices, scene)
    } else {
        reply(choices, scene)
    };
    let is_about_boot = choices.sometimes(20);
    let (mut ports, mut ends) = if outbound && is_about_boot {
        ((68, 4011), (scene.address, scene.facts.gateway))
    } else if outbound {
        let own = if choices.sometimes(100) {
            scene.address
        } else {
            Ipv4Addr::UNSPECIFIED
        };
        ((68, 67), (own, Ipv4Addr::BROADCAST))
    } else {
        let port = if is_about_boot { 4011 } else { 67 };
        ((port, 68), (scene.facts.gateway, scene.address))
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
            (68, 4011),
            (4011, 68),
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

pub(super) fn datagram(
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
        let sum = u16::try_from(0xffff - naive::udp_sum(&frame, &payload)).unwrap();
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
        let wanted = if choices.sometimes(30) {
            scene.facts.taken[0]
        } else {
            own_or(choices, scene, scene.address)
        };
        option(&mut options, 50, &wanted.octets());
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
    for _ in 0..choices.pick(&[0, 0, 0, 1, 2, 3]) {
        let name = choices.pick(&NAMES);
        if choices.sometimes(128) {
            option(&mut options, 12, name);
        } else {
            let flags = choices.pick(&[0, 1, 4, 5, 13, 0xf0]);
            let mut data = vec![flags, 0, 0];
            if flags & 4 != 0 && !choices.sometimes(30) {
                data.push(u8::try_from(name.len()).unwrap());
            }
            data.extend(name);
            if choices.sometimes(128) {
                data.push(0);
            }
            data.truncate(choices.pick(&[255, 255, 255, 255, 3, 2, 4]));
            option(&mut options, 81, &data);
        }
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
    if let Some(question) = &scene.facts.question
        && choices.sometimes(120)
    {
        return answer(choices, scene, question);
    }
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
    } else if choices.sometimes(16) {
        scene.facts.taken[0]
    } else if let Some(asked) = asked
        && asked.kind == 3
        && choices.sometimes(160)
    {
        // The server grants what it was asked for.
        asked.wanted
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

/// To softnet's own question, or nearly.
fn answer(choices: &mut Choices<'_>, scene: &Scene, question: &naive::Question) -> Vec<u8> {
    let kind = choices.pick(&[5, 5, 5, 6, 2]);
    let mut options = vec![53, 1, kind];
    option(&mut options, 54, &scene.facts.gateway.octets());
    if !choices.sometimes(20) {
        option(
            &mut options,
            51,
            &u32::to_be_bytes(choices.pick(&[600, 7, 0])),
        );
    }
    if choices.sometimes(60) {
        option(
            &mut options,
            61,
            choices.pick(&[OWN_IDENTIFIER, OWN_IDENTIFIER, b"\0vm"]),
        );
    }
    let yiaddr = if kind == 6 {
        Ipv4Addr::UNSPECIFIED
    } else {
        own_or(choices, scene, question.address)
    };
    let mut bytes = message(choices, scene, 2, (Ipv4Addr::UNSPECIFIED, yiaddr), options);
    if !choices.sometimes(20) {
        bytes[4..8].copy_from_slice(&question.xid.to_be_bytes());
    }
    bytes
}

pub(super) fn message(
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
    let (mut yiaddr, mut siaddr) = (yiaddr, Ipv4Addr::UNSPECIFIED);
    if op == 1 && choices.sometimes(6) {
        yiaddr = address(choices, scene);
    }
    if choices.sometimes(6) {
        siaddr = address(choices, scene);
    }
    bytes.extend(yiaddr.octets());
    bytes.extend(siaddr.octets());
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

pub(super) fn option(options: &mut Vec<u8>, code: u8, data: &[u8]) {
    options.extend([code, u8::try_from(data.len()).unwrap()]);
    options.extend(data);
}

/// What VMs call themselves, or could.
const NAMES: [&[u8]; 14] = [
    b"vm-1",
    b"vm-1",
    b"VM-1",
    b"other",
    b"wpad",
    b"ISATAP",
    b"localhost",
    b"mac",
    b"taken",
    b"-vm",
    b"vm-",
    b"vm.example",
    b"",
    b"vm\0",
];

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
