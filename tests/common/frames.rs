//! Frames as a VM and its gateway send them, byte by byte.

use std::net::Ipv4Addr;

use softnet::wire::Mac;

pub(crate) const VM_MAC: Mac = Mac([0x52, 0x54, 0, 0, 1, 0]);
pub(crate) const GATEWAY_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
pub(crate) const VM: Ipv4Addr = Ipv4Addr::new(192, 168, 64, 5);
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 64, 1);
pub(crate) const INTERNET: Ipv4Addr = Ipv4Addr::new(1, 2, 3, 4);

/// From the VM to the internet, by way of the gateway.
pub(crate) fn outbound(payload: &[u8]) -> Vec<u8> {
    let packet = ipv4(VM, INTERNET, &udp(4000, 5000, payload));
    ethernet(GATEWAY_MAC, VM_MAC, 0x0800, &packet)
}

/// From the internet to the VM, by way of the gateway.
pub(crate) fn inbound(payload: &[u8]) -> Vec<u8> {
    let packet = ipv4(INTERNET, VM, &udp(5000, 4000, payload));
    ethernet(VM_MAC, GATEWAY_MAC, 0x0800, &packet)
}

/// The VM asks for its address by broadcast (RFC 2131, 4.3.2), under an identifier of 19
/// bytes like that of systemd-networkd, for which 7 bytes and padding are sent on.
pub(crate) fn dhcp_request() -> Vec<u8> {
    let mut options = vec![53, 1, 3, 61, 19];
    options.extend([255; 19]);
    options.extend([50, 4]);
    options.extend(VM.octets());
    options.extend([54, 4]);
    options.extend(GATEWAY.octets());
    let message = dhcp(1, Ipv4Addr::UNSPECIFIED, &options);
    let packet = ipv4(
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::BROADCAST,
        &udp(68, 67, &message),
    );
    ethernet(Mac::BROADCAST, VM_MAC, 0x0800, &packet)
}

/// The gateway grants it for an hour, and returns the identifier that it was sent. Behind the
/// options there is room for the VM's own.
pub(crate) fn dhcp_ack() -> Vec<u8> {
    let mut options = vec![
        53, 1, 5, 51, 4, 0, 0, 14, 16, 1, 4, 255, 255, 255, 0, 61, 7, 1,
    ];
    options.extend(VM_MAC.0);
    options.extend([54, 4]);
    options.extend(GATEWAY.octets());
    options.push(255);
    options.extend([0; 20]);
    let message = dhcp(2, VM, &options);
    let packet = ipv4(GATEWAY, VM, &udp(67, 68, &message));
    ethernet(VM_MAC, GATEWAY_MAC, 0x0800, &packet)
}

fn dhcp(op: u8, yours: Ipv4Addr, options: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..8].copy_from_slice(&[op, 1, 6, 0, 0xca, 0xfe, 0xf0, 0x0d]);
    message[16..20].copy_from_slice(&yours.octets());
    message[28..34].copy_from_slice(&VM_MAC.0);
    message[236..240].copy_from_slice(&[99, 130, 83, 99]);
    message.extend(options);
    message.push(255);
    message
}

fn ethernet(destination: Mac, source: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [
        &destination.0[..],
        &source.0,
        &ethertype.to_be_bytes(),
        payload,
    ]
    .concat()
}

fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0];
    packet[2..4].copy_from_slice(&length(20 + payload.len()));
    packet.extend(source.octets());
    packet.extend(destination.octets());
    let sum: u32 = packet
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&length(!folded as usize & 0xffff));
    packet.extend(payload);
    packet
}

/// Without a checksum, as UDP over IPv4 may be.
fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let [source, destination] = [source, destination].map(u16::to_be_bytes);
    [
        &source[..],
        &destination,
        &length(8 + payload.len()),
        &[0, 0],
        payload,
    ]
    .concat()
}

fn length(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap().to_be_bytes()
}
