//! The VM behind the socket and the DHCP server behind the TAP, as far as tests need them.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt,
};

pub(crate) const TAP: &str = "tart0";
pub(crate) const VM_MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
pub(crate) const VM_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 64, 2);
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 64, 1);

/// Receives what the VM is sent until `wanted` finds it.
pub(crate) fn receive<T>(vm: &UnixDatagram, wanted: impl Fn(&[u8]) -> Option<T>) -> T {
    let mut frame = [0; 2000];
    loop {
        let len = vm.recv(&mut frame).unwrap();
        assert_ne!(len, 0, "an empty datagram makes QEMU's card deaf");
        if let Some(found) = wanted(&frame[..len]) {
            return found;
        }
    }
}

pub(crate) fn dhcp_server() -> UdpSocket {
    dhcp_server_on(TAP)
}

pub(crate) fn dhcp_server_on(tap: &str) -> UdpSocket {
    // Bound to its device first, so that one for each device can have the port.
    let (family, kind) = (AddressFamily::Inet, SockType::Datagram);
    let server = socket(family, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
    setsockopt(&server, sockopt::BindToDevice, &tap.into()).unwrap();
    bind(server.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, 67)).unwrap();
    let server = UdpSocket::from(server);
    server.set_broadcast(true).unwrap();
    server
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    server
}

/// Answers one message of the VM's as the DHCP server, and returns the source MAC of the
/// answer as the VM receives it.
pub(crate) fn serve(server: &UdpSocket, vm: &UnixDatagram, question: u8, answer: u8) -> [u8; 6] {
    reply(server, VM_MAC, question, answer, 600);
    receive(vm, |frame| {
        let is_answer = frame.len() >= 285 && frame[282..285] == [53, 1, answer];
        is_answer.then(|| frame[6..12].try_into().unwrap())
    })
}

/// Answers one message of the VM with this MAC as the DHCP server, which grants for `seconds`.
pub(crate) fn reply(server: &UdpSocket, mac: [u8; 6], question: u8, answer: u8, seconds: u32) {
    let mut message = [0; 1000];
    loop {
        let len = server.recv(&mut message).unwrap();
        assert!(len >= 243 && message[28..34] == mac, "{len}");
        if message[240..243] == [53, 1, question] {
            break;
        }
    }
    message[0] = 2;
    message[16..20].copy_from_slice(&VM_ADDRESS.octets());
    let [a, b, c, d] = GATEWAY.octets();
    let [s, t, u, v] = seconds.to_be_bytes();
    let options = [
        [53, 1, answer].as_slice(),
        &[54, 4, a, b, c, d],
        &[51, 4, s, t, u, v],
        &[1, 4, 255, 255, 255, 0],
        &[3, 4, a, b, c, d],
        &[6, 4, a, b, c, d],
        &[255],
    ]
    .concat();
    message[240..].fill(0);
    message[240..][..options.len()].copy_from_slice(&options);
    server
        .send_to(&message[..300], (Ipv4Addr::BROADCAST, 68))
        .unwrap();
}

pub(crate) const DISCOVER: u8 = 1;
pub(crate) const OFFER: u8 = 2;
pub(crate) const REQUEST: u8 = 3;
pub(crate) const ACK: u8 = 5;

/// A message of the VM's DHCP client (RFC 2131), which asks for broadcast answers.
pub(crate) fn dhcp(kind: u8) -> Vec<u8> {
    dhcp_for(kind, VM_ADDRESS)
}

/// The same about this address, for which a REQUEST asks, by a transaction of its own.
pub(crate) fn dhcp_for(kind: u8, address: Ipv4Addr) -> Vec<u8> {
    let mut message = vec![0; 300];
    message[..3].copy_from_slice(&[1, 1, 6]);
    message[4..8].copy_from_slice(b"tart");
    message[7] ^= address.octets()[3] ^ VM_ADDRESS.octets()[3];
    message[10] = 0x80;
    message[28..34].copy_from_slice(&VM_MAC);
    message[236..240].copy_from_slice(&[99, 130, 83, 99]);
    let mut options = vec![53, 1, kind];
    if kind == REQUEST {
        options.extend([50, 4].iter().chain(&address.octets()));
        options.extend([54, 4].iter().chain(&GATEWAY.octets()));
    }
    options.push(255);
    message[240..][..options.len()].copy_from_slice(&options);
    udp(
        [0xff; 6],
        (Ipv4Addr::UNSPECIFIED, 68),
        (Ipv4Addr::BROADCAST, 67),
        &message,
    )
}

/// A frame of the VM's, with the UDP checksum left out, as it may be over IPv4 (RFC 768).
pub(crate) fn udp(
    to: [u8; 6],
    source: (Ipv4Addr, u16),
    target: (Ipv4Addr, u16),
    payload: &[u8],
) -> Vec<u8> {
    let len = |header: usize| u16::try_from(header + payload.len()).unwrap().to_be_bytes();
    let mut ipv4 = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0].to_vec();
    ipv4[2..4].copy_from_slice(&len(28));
    ipv4.extend(source.0.octets());
    ipv4.extend(target.0.octets());
    let words = ipv4
        .chunks(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    ipv4[10..12].copy_from_slice(&sum.to_be_bytes());
    [
        to.as_slice(),
        &VM_MAC,
        &[8, 0],
        &ipv4,
        &source.1.to_be_bytes(),
        &target.1.to_be_bytes(),
        &len(8),
        &[0, 0],
        payload,
    ]
    .concat()
}
