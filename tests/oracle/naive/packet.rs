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
    pub(super) payload: &'a [u8],
    /// Where it ends in its frame.
    pub(super) end: usize,
}

impl<'a> Packet<'a> {
    pub(super) fn read(carried: &'a [u8]) -> Result<Self, Faults> {
        let malformed = || vec!["ipv4-malformed"];
        let header = Ipv4HeaderSlice::from_slice(carried).map_err(|_| malformed())?;
        let (total, len) = (usize::from(header.total_len()), header.slice().len());
        if total < len || total > carried.len() {
            return Err(malformed());
        }
        if total < carried.len() && 14 + carried.len() > 64 {
            return Err(malformed());
        }
        let payload = &carried[len..total];
        let protocol = header.protocol().0;
        let offset = 8 * usize::from(header.fragments_offset().value());
        let is_fragment = offset != 0 || header.more_fragments();
        let mut faults = Vec::new();
        if !are_options_harmless(header.options()) {
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
        }
        none(faults)?;
        let has_ports = matches!(protocol, 6 | 17) && !is_fragment;
        let port = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
        Ok(Self {
            source: header.source_addr(),
            destination: header.destination_addr(),
            protocol,
            ports: has_ports.then(|| (port(0), port(2))),
            payload,
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
        || offset != 0 && offset < 20
        || more && !len.is_multiple_of(8)
        || 20 + offset + len > 65535
        || offset == 0 && protocol == 6 && len < 20
        || offset == 0 && matches!(protocol, 1 | 17) && len < 8;
    let is_dhcp = offset == 0
        && protocol == 17
        && UdpHeaderSlice::from_slice(payload)
            .is_ok_and(|udp| matches!(udp.destination_port(), 67 | 68));
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
        1 => {
            if payload.first() == Some(&5) {
                faults.push("icmp-redirect");
            }
            if payload.len() < 8 {
                faults.push("transport-malformed");
            }
        }
        6 if payload.len() < 20 && !is_fragment => faults.push("transport-malformed"),
        17 => match UdpHeaderSlice::from_slice(payload) {
            Err(_) => faults.push("transport-malformed"),
            Ok(udp) => {
                let said = usize::from(udp.length());
                // The rest of a datagram in fragments is still to come.
                let is_right = if is_fragment {
                    said > payload.len()
                } else {
                    said == payload.len()
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

/// Router alert, no-operation and end.
fn are_options_harmless(options: &[u8]) -> bool {
    let mut at = 0;
    while at < options.len() {
        match options[at] {
            0 => return true,
            1 => at += 1,
            148 if options.get(at + 1) == Some(&4) && at + 4 <= options.len() => at += 4,
            _ => return false,
        }
    }
    true
}

/// Sender and target of an ARP message.
pub(super) fn read_arp(from: [u8; 6], carried: &[u8]) -> Result<(Ipv4Addr, Ipv4Addr), Faults> {
    let malformed = || vec!["arp-malformed"];
    if 14 + carried.len() > 64 {
        return Err(malformed());
    }
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
