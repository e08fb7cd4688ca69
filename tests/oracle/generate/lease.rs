//! The messages by which a VM ordinarily gets its lease.

use std::net::Ipv4Addr;

use super::dhcp::{datagram, message, option};
use crate::choices::Choices;
use crate::scene::{GATEWAY, Scene, VM};

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
