//! Frames from choices: ordinary ones, with a few faults in them.

mod address;
mod dhcp;
pub(crate) mod lease;
mod packet;

pub(crate) use self::address::{INTERNET, SPECIAL_RANGES, name_server, special_edge};

use std::net::Ipv4Addr;

use self::address::{address, mac};
use self::dhcp::dhcp;
use self::packet::packet;
use crate::choices::Choices;
use crate::scene::{GATEWAY, Scene, VM};

/// A frame in one of the directions.
pub(crate) fn frame(choices: &mut Choices<'_>, scene: &Scene, outbound: bool) -> Vec<u8> {
    if !scene.recent.is_empty() && scene.facts.is_tracking() && choices.sometimes(110) {
        return again(choices, scene, outbound);
    }
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

/// A packet like one that has passed, or an answer to it: what belongs to its connection.
fn again(choices: &mut Choices<'_>, scene: &Scene, outbound: bool) -> Vec<u8> {
    let place = choices.below(scene.recent.len());
    let (was_outbound, mut frame) = scene.recent[place].clone();
    let payload = 14 + 4 * usize::from(frame[14] & 15);
    if was_outbound != outbound {
        let (to, from) = frame.split_at_mut(6);
        to.swap_with_slice(&mut from[..6]);
        let (source, destination) = frame[26..34].split_at_mut(4);
        source.swap_with_slice(destination);
        if matches!(frame[23], 6 | 17) && frame.len() >= payload + 4 {
            let (one, other) = frame[payload..payload + 4].split_at_mut(2);
            one.swap_with_slice(other);
        }
    }
    if frame[23] == 6 && frame.len() > payload + 13 {
        frame[payload + 13] = choices.pick(&[0x10, 0x10, 0x12, 0x02, 0x11, 0x04, 0x14, 0x00]);
    }
    if frame[23] == 1 && frame.len() > payload && choices.sometimes(128) {
        frame[payload] = choices.pick(&[0, 8]);
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
    let junk = choices.pick(&[0, 0, 0, 7]);
    bytes.extend([junk; 6]);
    let target = if outbound && choices.sometimes(100) {
        scene.facts.gateway
    } else {
        target
    };
    bytes.extend(target.octets());
    bytes.resize(choices.pick(&[28, 46, 28, 46, 28, 46, 50, 51, 27]), junk);
    bytes.extend([8, 6]);
    bytes
}
