//! What a frame carries, when its shape is right: an IPv4 packet or an ARP message.

use std::net::Ipv4Addr;

use etherparse::{ArpPacketSlice, Ipv4HeaderSlice, UdpHeaderSlice};

use super::{Faults, none};

/// An IPv4 packet whose shape is right.
#[derive(Debug)]
pub(super) struct Packet<'a> {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) protocol: u8,
    /// Of TCP and UDP; none in fragments.
    pub(super) ports: Option<(u16, u16)>,
    /// The same, in a first fragment too: what rules look at.
    pub(super) ports_for_rules: Option<(u16, u16)>,
    /// Of TCP, whole or in a first fragment.
    pub(super) flags: u8,
    /// Of a fragment: where it begins, whether more follow, and of which datagram it is.
    pub(super) part: Option<(usize, bool, u16)>,
    /// Of an ICMP error: protocol and ports of the packet that it is about; of an echo, its
    /// identifier in the place of the VM's port.
    pub(super) about: Option<(u8, u16, u16)>,
    pub(super) payload: &'a [u8],
    /// Of TCP, whole or in a first fragment: SYN without ACK.
    pub(super) opens_connection: bool,
    /// Of UDP: what follows the datagram in its packet is not part of it.
    pub(super) is_short: bool,
    /// Source and destination of the packet that an ICMP error is about.
    pub(super) quoted: Option<(Ipv4Addr, Ipv4Addr)>,
    /// Where it ends in its frame.
    pub(super) end: usize,
}

impl<'a> Packet<'a> {
    pub(super) fn read(carried: &'a [u8], is_outbound: bool) -> Result<Self, Faults> {
        let malformed = || vec!["ipv4-malformed"];
        let header = Ipv4HeaderSlice::from_slice(carried).map_err(|_| malformed())?;
        let (total, len) = (usize::from(header.total_len()), header.slice().len());
        if total < len || total > carried.len() {
            return Err(malformed());
        }
        let payload = &carried[len..total];
        let protocol = header.protocol().0;
        let offset = 8 * usize::from(header.fragments_offset().value());
        let is_fragment = offset != 0 || header.more_fragments();
        let mut faults = Vec::new();
        if !are_options_harmless(header.options(), protocol) {
            faults.push("ipv4-options");
        }
        if protocol == 41 {
            faults.push("ipv6-in-ipv4");
        }
        if is_fragment {
            faults.extend(fragment_faults(
                offset,
                header.more_fragments(),
                protocol,
                payload,
            ));
        }
        if offset == 0 {
            faults.extend(transport_faults(protocol, payload, is_fragment));
            if protocol == 1 {
                faults.extend(icmp_faults(payload, is_outbound));
            }
        }
        none(faults)?;
        let has_ports = matches!(protocol, 6 | 17) && !is_fragment;
        let port = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
        Ok(Self {
            source: header.source_addr(),
            destination: header.destination_addr(),
            protocol,
            ports: has_ports.then(|| (port(0), port(2))),
            ports_for_rules: (matches!(protocol, 6 | 17) && offset == 0)
                .then(|| (port(0), port(2))),
            flags: if protocol == 6 && offset == 0 {
                payload[13]
            } else {
                0
            },
            part: is_fragment.then(|| (offset, header.more_fragments(), header.identification())),
            about: (protocol == 1 && offset == 0)
                .then(|| about(payload, is_outbound))
                .flatten(),
            payload,
            opens_connection: protocol == 6 && offset == 0 && payload[13] & 0x12 == 0x02,
            is_short: protocol == 17
                && !is_fragment
                && usize::from(u16::from_be_bytes([payload[4], payload[5]])) < payload.len(),
            quoted: (protocol == 1 && offset == 0)
                .then(|| quoted(payload))
                .flatten(),
            end: 14 + total,
        })
    }

    pub(super) fn is_udp_to(&self, port: u16) -> bool {
        self.protocol == 17 && self.ports.is_some_and(|(_, to)| to == port)
    }

    pub(super) fn datagram(&self) -> &'a [u8] {
        &self.payload[8..]
    }
}

fn fragment_faults(offset: usize, more: bool, protocol: u8, payload: &[u8]) -> Faults {
    let len = payload.len();
    let is_bad = len == 0
        || offset != 0 && offset < if protocol == 1 { 68 } else { 20 }
        || more && !len.is_multiple_of(8)
        || 20 + offset + len > 65535
        || offset == 0 && protocol == 6 && len < 20
        || offset == 0 && matches!(protocol, 1 | 17) && len < 8;
    let is_dhcp = offset == 0
        && protocol == 17
        && UdpHeaderSlice::from_slice(payload).is_ok_and(|udp| {
            let (from, to) = (udp.source_port(), udp.destination_port());
            matches!(to, 67 | 68) || (from, to) == (68, 4011)
        });
    if is_bad || is_dhcp {
        vec!["fragment"]
    } else {
        vec![]
    }
}

/// Of a whole packet or a first fragment.
fn transport_faults(protocol: u8, payload: &[u8], is_fragment: bool) -> Faults {
    let mut faults = Vec::new();
    match protocol {
        1 if payload.len() < 8 && !is_fragment => faults.push("transport-malformed"),
        6 if payload.len() < 20 && !is_fragment => faults.push("transport-malformed"),
        17 => match UdpHeaderSlice::from_slice(payload) {
            Err(_) => faults.push("transport-malformed"),
            Ok(udp) => {
                let said = usize::from(udp.length());
                // The rest of a datagram in fragments is still to come.
                let ports = [udp.source_port(), udp.destination_port()];
                let is_about_dhcp = ports.iter().any(|port| [67, 68, 4011].contains(port));
                let is_right = if is_fragment {
                    said > payload.len()
                } else if is_about_dhcp {
                    said == payload.len()
                } else {
                    8 <= said && said <= payload.len()
                };
                if !is_right {
                    faults.push("transport-malformed");
                }
            }
        },
        _ => {}
    }
    faults
}

/// What is wrong with an ICMP message by itself, from "Both directions".
fn icmp_faults(payload: &[u8], is_outbound: bool) -> Faults {
    let mut faults = Vec::new();
    let Some(kind) = payload.first() else {
        return faults;
    };
    if *kind == 5 {
        faults.push("icmp-redirect");
    }
    if matches!(kind, 4 | 9 | 10 | 15..=18 | 42 | 43) || *kind == 13 && !is_outbound {
        faults.push("icmp-type");
    }
    if payload.len() < 8 {
        return faults;
    }
    let mtu = u16::from_be_bytes([payload[6], payload[7]]);
    if payload[..2] == [3, 4] && (1..=67).contains(&mtu) {
        faults.push("icmp-mtu");
    }
    if matches!(kind, 3 | 11 | 12) && quoted(payload).is_none() {
        faults.push("icmp-quote");
    }
    faults
}

/// Source and destination of the packet within an ICMP error, if its header is whole.
fn quoted(payload: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    if !matches!(payload.first(), Some(3 | 11 | 12)) {
        return None;
    }
    let packet = payload.get(8..)?;
    let first = *packet.first()?;
    let len = 4 * usize::from(first & 15);
    if first >> 4 != 4 || len < 20 || packet.len() < len {
        return None;
    }
    let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
    Some((address(12), address(16)))
}

/// No-operation and end, and router alert in IGMP.
fn are_options_harmless(options: &[u8], protocol: u8) -> bool {
    let mut at = 0;
    while at < options.len() {
        match options[at] {
            0 => return options[at..].iter().all(|byte| *byte == 0),
            1 => at += 1,
            148 if protocol == 2 && options.get(at + 1) == Some(&4) && at + 4 <= options.len() => {
                at += 4;
            }
            _ => return false,
        }
    }
    true
}

/// Sender and target of an ARP message.
pub(super) fn read_arp(from: [u8; 6], carried: &[u8]) -> Result<(Ipv4Addr, Ipv4Addr), Faults> {
    let malformed = || vec!["arp-malformed"];
    let arp = ArpPacketSlice::from_slice(carried).map_err(|_| malformed())?;
    if arp.hw_addr_type().0 != 1
        || arp.proto_addr_type().0 != 0x0800
        || arp.hw_addr_size() != 6
        || arp.proto_addr_size() != 4
    {
        return Err(malformed());
    }
    let mut faults = Vec::new();
    if !matches!(arp.operation().0, 1 | 2) {
        faults.push("arp-operation");
    }
    if arp.sender_hw_addr() != from {
        faults.push("arp-sender-mac");
    }
    none(faults)?;
    let address = |bytes: &[u8]| Ipv4Addr::from(<[u8; 4]>::try_from(bytes).unwrap());
    Ok((
        address(arp.sender_protocol_addr()),
        address(arp.target_protocol_addr()),
    ))
}

/// The frame without what is behind its packet or message, which counts in longer frames only.
pub(super) fn without_trailer(frame: &[u8]) -> &[u8] {
    if frame.len() <= 64 {
        return frame;
    }
    let carried = &frame[14..];
    let end = match frame[12..14] {
        [8, 6] => 28,
        [8, 0] => Ipv4HeaderSlice::from_slice(carried)
            .map_or(carried.len(), |header| usize::from(header.total_len())),
        _ => carried.len(),
    };
    &frame[..14 + end.clamp(0, carried.len())]
}

/// What of the packet that an error is about names its connection, if eight bytes of its payload
/// are there.
fn about(payload: &[u8], is_outbound: bool) -> Option<(u8, u16, u16)> {
    let quote = &payload[8..];
    let start = quote.get(4 * usize::from(quote.first()? & 15)..)?;
    let word = |at: usize| u16::from_be_bytes([start[at], start[at + 1]]);
    let protocol = *quote.get(9)?;
    start.get(7)?;
    Some(match protocol {
        6 | 17 => (protocol, word(0), word(2)),
        1 if is_outbound => (protocol, 0, word(4)),
        1 => (protocol, word(4), 0),
        _ => (protocol, 0, 0),
    })
}
