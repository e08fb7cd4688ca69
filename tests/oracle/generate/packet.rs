//! IPv4 packets, right and wrong.

use std::net::Ipv4Addr;

use super::address::{INTERNET, address, group_mac};
use crate::choices::Choices;
use crate::scene::Scene;

pub(super) fn packet(
    choices: &mut Choices<'_>,
    scene: &Scene,
    outbound: bool,
    to: &mut [u8; 6],
) -> Vec<u8> {
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
    if protocol == 1 && matches!(payload.first(), Some(3 | 11 | 12)) && choices.sometimes(200) {
        quote(
            choices,
            scene,
            (source, destination),
            outbound,
            &mut payload,
        );
    }
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
    let ports = [443, 53, 443, 53, 443, 53, 67, 68, 1, 5353, 4011];
    let (from, to) = (choices.pick(&ports), choices.pick(&ports));
    let data = choices.pick(&[0, 8, 12, 40, 1200]);
    let len = u16::try_from(8 + data).unwrap();
    let mut payload = u16::to_be_bytes(from).to_vec();
    payload.extend(u16::to_be_bytes(to));
    match protocol {
        17 => {
            let lie = if choices.sometimes(16) {
                choices.pick(&[1, 0xffff, 8, 0xfff8, 100, 0xfffe])
            } else {
                0
            };
            payload.extend(len.wrapping_add(lie).to_be_bytes());
            payload.extend([0, 0]);
        }
        1 => {
            payload[0] =
                choices.pick(&[8, 0, 3, 3, 3, 5, 11, 12, 9, 10, 4, 13, 14, 15, 18, 42, 43]);
            payload[1] = choices.pick(&[4, 3, 1, 0]);
            payload.extend([0, 0]);
            payload.extend(u16::to_be_bytes(choices.pick(&[1400, 0, 1, 67, 68, 552])));
        }
        _ => {
            let flags = choices.pick(&[0x10, 0x10, 0x18, 0x02, 0x12, 0xc2, 0x04]);
            payload.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        }
    }
    payload.extend(vec![0; data]);
    if choices.sometimes(8) {
        payload.truncate(choices.pick(&[7, 8, 19, 20, 0, 3]));
    }
    payload
}

/// What an ICMP error is about: a packet that came the other way, or nearly.
fn quote(
    choices: &mut Choices<'_>,
    scene: &Scene,
    (source, destination): (Ipv4Addr, Ipv4Addr),
    outbound: bool,
    payload: &mut Vec<u8>,
) {
    let (mut from, mut to) = if outbound {
        (destination, source)
    } else {
        (scene.address, address(choices, scene))
    };
    if choices.sometimes(40) {
        from = address(choices, scene);
    }
    if choices.sometimes(40) {
        to = address(choices, scene);
    }
    let first = choices.pick(&[0x45, 0x45, 0x45, 0x45, 0x46, 0x44, 0x65, 0x4f]);
    let mut packet = vec![first, 0, 0, 60, 0, 1, 0, 0, 64, 6, 0, 0];
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.resize(choices.pick(&[28, 28, 28, 20, 24, 19, 0, 60]), 0);
    payload.truncate(8);
    payload.extend(packet);
}

pub(super) fn ip(
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
