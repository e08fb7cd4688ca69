//! Sequences of packets of a few connections, both ways, with waits and changes of policy in between:
//! after each packet both filters must have the same outcome. The test and the fuzz target
//! `connections` share it.

use std::net::Ipv4Addr;

use crate::choices::Choices;
use crate::scene::{GATEWAY, Scene, VM};

/// What the bytes make, with a name for each outcome.
pub(crate) fn play(bytes: &[u8], mut count: impl FnMut(bool, &'static str)) -> Result<(), String> {
    let mut scene = Scene::new(&mut Choices::new(&[]))?;
    scene.lease_for_ever()?;
    let mut choices = Choices::new(bytes);
    let (allow, block) = choices.pick(&POLICIES);
    scene.set_policy(allow, block);
    while !choices.is_empty() {
        match choices.below(16) {
            0 => {
                let (allow, block) = choices.pick(&POLICIES);
                scene.set_policy(allow, block);
            }
            1 | 2 => scene.wait(choices.pick(&WAITS)),
            _ => {
                let outbound = choices.sometimes(128);
                let frame = packet(&mut choices, &scene, outbound);
                let outcome = scene.pass(outbound, &frame)?;
                count(outbound, outcome.err().unwrap_or("forward"));
            }
        }
    }
    Ok(())
}

/// Twice, a minute apart, more new connections to one server than the VM may have there: UDP that nobody
/// answers, each from a port of its own.
pub(crate) fn flood_a_server(mut count: impl FnMut(&'static str)) -> Result<(), String> {
    let mut scene = Scene::new(&mut Choices::new(&[]))?;
    scene.lease_for_ever()?;
    scene.set_policy(&["out 0.0.0.0/0"], &["in 0.0.0.0/0"]);
    for _ in 0..2 {
        for port in 2000..2000 + 7800_u16 {
            let ports = [port, 443].map(u16::to_be_bytes).concat();
            let datagram = [&ports[..], &[0, 20], &[0; 14]].concat();
            let packet = ipv4(17, scene.address, PEERS[0], &datagram);
            let frame = [&[GATEWAY, VM].concat()[..], &[8, 0], &packet].concat();
            let outcome = scene.pass(true, &frame)?;
            count(outcome.err().unwrap_or("forward"));
        }
        scene.wait(60);
    }
    Ok(())
}

/// Of one of a few connections, or an ICMP error about one.
fn packet(choices: &mut Choices<'_>, scene: &Scene, outbound: bool) -> Vec<u8> {
    let (protocol, own, peer_port) = choices.pick(&CONNECTIONS);
    let peer = choices.pick(&PEERS);
    let mut ports = [own, peer_port];
    if !outbound {
        ports.reverse();
    }
    let ports = ports.map(u16::to_be_bytes).concat();
    let payload = match protocol {
        6 => {
            let flags = choices.pick(&FLAGS);
            [&ports[..], &[0; 8], &[0x50, flags], &[0; 6]].concat()
        }
        17 => [&ports[..], &[0, 20], &[0; 14]].concat(),
        1 if choices.sometimes(64) => {
            let [from, to] = [scene.address, peer];
            let quoted = match outbound {
                true => ipv4(
                    17,
                    to,
                    from,
                    &[&[1, 187, 0, 1][..], &[0, 20], &[0; 14]].concat(),
                ),
                false => ipv4(
                    17,
                    from,
                    to,
                    &[&[0, 1, 1, 187][..], &[0, 20], &[0; 14]].concat(),
                ),
            };
            [&[3, 1, 0, 0, 0, 0, 0, 0][..], &quoted].concat()
        }
        1 => {
            let kind = choices.pick(&[8, 0]);
            [&[kind, 0, 0, 0][..], &own.to_be_bytes(), &[0; 6]].concat()
        }
        _ => vec![0; 20],
    };
    let (source, destination, macs) = if outbound {
        (scene.address, peer, [GATEWAY, VM])
    } else {
        (peer, scene.address, [VM, GATEWAY])
    };
    let packet = ipv4(protocol, source, destination, &payload);
    [&macs.concat()[..], &[8, 0], &packet].concat()
}

fn ipv4(protocol: u8, source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x45, 0, len[0], len[1], 0, 1, 0, 0, 64, protocol, 0, 0];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

/// Protocol, the VM's port and the peer's.
const CONNECTIONS: [(u8, u16, u16); 7] = [
    (6, 1, 443),
    (6, 2, 443),
    (6, 450, 7),
    (17, 1, 443),
    (17, 1, 53),
    (1, 5, 0),
    (47, 0, 0),
];

const PEERS: [Ipv4Addr; 2] = [Ipv4Addr::new(1, 2, 3, 4), Ipv4Addr::new(5, 6, 7, 8)];

/// SYN, SYN and ACK, ACK, FIN and ACK, RST.
const FLAGS: [u8; 8] = [0x02, 0x12, 0x10, 0x10, 0x11, 0x04, 0x10, 0x00];

/// In seconds: on both sides of each timeout.
const WAITS: [u32; 16] = [
    1, 9, 10, 20, 29, 30, 31, 89, 90, 119, 120, 179, 180, 600, 7439, 7440,
];

/// Allowed and blocked. All but one track connections.
const POLICIES: [(&[&str], &[&str]); 8] = [
    (&[], &["in 9.9.9.9/32"]),
    (&["in 1.2.3.4/32"], &["0.0.0.0/0"]),
    (&["out 1.2.3.4/32"], &["0.0.0.0/0", "in 0.0.0.0/0"]),
    (&["out 0.0.0.0/0"], &["in 0.0.0.0/0"]),
    (&["in tcp 0.0.0.0/0 to 400-500"], &["in 0.0.0.0/0"]),
    (&[], &["5.6.7.8/32"]),
    (&["out tcp 1.2.3.4/32:443"], &["out 0.0.0.0/0"]),
    (&["in udp 5.6.7.8/32"], &["in 5.6.7.8/32", "out 1.2.3.4/32"]),
];
