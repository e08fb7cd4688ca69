//! A second filter, for the tests alone: slow and plain, one `if` after another.
//!
//! It is written from docs/filtering.md, not from the filter, and parses with etherparse,
//! so that a mistake in one of the two is no mistake of the other. It names every fault of
//! the first step of the documented order in which there is one: within a step the order is
//! not promised.

use std::net::Ipv4Addr;

use etherparse::{ArpPacketSlice, Ethernet2HeaderSlice, Ipv4HeaderSlice, UdpHeaderSlice};
use ipnet::Ipv4Net;

use crate::naive_dhcp;
use crate::naive_guard::{Allowance, Asked};

/// What a VM and its network are, and what has been learned so far.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) vm: [u8; 6],
    pub(crate) gateway: Ipv4Addr,
    /// Told by the system or pinned by a reply.
    pub(crate) gateway_mac: Option<[u8; 6]>,
    pub(crate) is_gateway_mac_told: bool,
    /// Told by the system; all that is known of the network outbound.
    pub(crate) told_network: Option<Ipv4Net>,
    /// Told by the system or by DHCP; what is known inbound.
    pub(crate) network: Option<Ipv4Net>,
    pub(crate) host_only: bool,
    pub(crate) isolation: bool,
    pub(crate) max_frame: usize,
    /// With the gateway in the place of `@host`.
    pub(crate) allow: Vec<Ipv4Net>,
    pub(crate) block: Vec<Ipv4Net>,
    pub(crate) lease: Option<Lease>,
    pub(crate) offered: Option<Ipv4Addr>,
    pub(crate) asked: Vec<Asked>,
    /// What the last reply answered.
    pub(crate) answered: Option<Asked>,
    pub(crate) messages: Allowance,
    pub(crate) declines: Allowance,
    pub(crate) now: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) address: Ipv4Addr,
    /// `None` for ever.
    pub(crate) expires: Option<u32>,
    pub(crate) name_servers: Vec<Ipv4Addr>,
}

/// Labels of reasons, of which the filter may name any.
pub(crate) type Faults = Vec<&'static str>;

impl Facts {
    pub(crate) fn valid_lease(&self) -> Option<&Lease> {
        let lease = self.lease.as_ref()?;
        let is_over = lease.expires.is_some_and(|second| self.now >= second);
        (!is_over).then_some(lease)
    }

    fn is_gateway(&self, mac: [u8; 6]) -> bool {
        self.gateway_mac == Some(mac)
    }

    fn is_isolated(&self) -> bool {
        self.isolation || self.host_only
    }

    /// Whether a frame may leave the VM.
    pub(crate) fn outbound(&mut self, frame: &[u8]) -> Result<(), Faults> {
        self.check_length(frame)?;
        let ethernet = Ethernet2HeaderSlice::from_slice(frame).unwrap();
        let carried = &frame[14..];
        let (to, from) = (ethernet.destination(), ethernet.source());
        if from != self.vm {
            return Err(vec!["source-mac"]);
        }
        check_ethertype(ethernet.ether_type().0)?;
        if ethernet.ether_type().0 == 0x0806 {
            return self.outbound_arp(to, from, carried);
        }
        let packet = Packet::read(carried)?;
        if packet.is_udp_to(67) || packet.is_udp_to(68) {
            self.outbound_dhcp_path(to, &packet)?;
            return self.outbound_dhcp(&packet);
        }
        let Some(lease) = &self.lease else {
            return Err(vec!["no-lease"]);
        };
        if packet.source != lease.address {
            return Err(vec!["source-address"]);
        }
        let Some(lease) = self.valid_lease() else {
            return Err(vec!["lease-expired"]);
        };
        self.check_destination(&packet, lease)?;
        if is_group(to) {
            if group_mac(packet.destination, self.told_network) != Some(to) {
                return Err(vec!["destination-group"]);
            }
        } else if self.is_isolated() && !self.is_gateway(to) {
            return Err(vec!["destination-mac"]);
        }
        Ok(())
    }

    /// Whether a frame may go to the VM.
    pub(crate) fn inbound(&mut self, frame: &[u8]) -> Result<(), Faults> {
        self.check_length(frame)?;
        let ethernet = Ethernet2HeaderSlice::from_slice(frame).unwrap();
        let carried = &frame[14..];
        let (to, from) = (ethernet.destination(), ethernet.source());
        let mut faults = Vec::new();
        if from == self.vm || is_group(from) {
            faults.push("source-mac");
        }
        if !is_group(to) && to != self.vm {
            faults.push("destination-mac");
        }
        none(faults)?;
        check_ethertype(ethernet.ether_type().0)?;
        if ethernet.ether_type().0 == 0x0806 {
            return self.inbound_arp(to, from, carried);
        }
        let packet = Packet::read(carried)?;
        if packet.is_udp_to(67) {
            return Err(vec!["dhcp-role"]);
        }
        if packet.is_udp_to(68) {
            self.inbound_dhcp_path(to, from, &packet)?;
            return self.inbound_dhcp(from, &packet);
        }
        if self.lease.is_none() {
            return Err(vec!["no-lease"]);
        }
        let Some(lease) = self.valid_lease() else {
            return Err(vec!["lease-expired"]);
        };
        let mut faults = Vec::new();
        if packet.source == lease.address {
            faults.push("source-address");
        }
        match group_mac(packet.destination, self.network) {
            _ if packet.destination == lease.address && to == self.vm => {}
            None if is_group(to) => faults.push("destination-group"),
            None => faults.push("destination-address"),
            Some(group) if group != to => faults.push("destination-group"),
            Some(BROADCAST) => {}
            Some(_) if self.is_allowed_by_rule(packet.destination) => {}
            Some(_) => faults.push("destination-group"),
        }
        none(faults)?;
        let mut faults = Vec::new();
        if self.host_only && packet.source != self.gateway {
            faults.push("host-only");
        }
        if self.is_isolated() {
            let in_network = self.network.is_some_and(|net| net.contains(&packet.source));
            if !self.is_gateway(from) || in_network && packet.source != self.gateway {
                faults.push("isolation");
            }
        }
        none(faults)
    }

    fn check_length(&self, frame: &[u8]) -> Result<(), Faults> {
        if frame.len() < 14 {
            return Err(vec!["runt"]);
        }
        if frame.len() > self.max_frame {
            return Err(vec!["oversize"]);
        }
        Ok(())
    }

    fn outbound_arp(&self, to: [u8; 6], from: [u8; 6], carried: &[u8]) -> Result<(), Faults> {
        let (sender, target) = read_arp(from, carried)?;
        let leased = self.valid_lease().map(|lease| lease.address);
        if sender.is_unspecified() {
            let is_request = carried[7] == 1;
            let is_own = !target.is_unspecified()
                && (Some(target) == leased || Some(target) == self.offered);
            if !is_request || !is_own {
                return Err(vec!["arp-probe"]);
            }
        } else if Some(sender) != leased {
            return Err(vec!["arp-sender-address"]);
        }
        if to == BROADCAST || self.is_gateway(to) {
            return Ok(());
        }
        if is_group(to) {
            return Err(vec!["destination-group"]);
        }
        if self.is_isolated() {
            return Err(vec!["destination-mac"]);
        }
        Ok(())
    }

    fn inbound_arp(&self, to: [u8; 6], from: [u8; 6], carried: &[u8]) -> Result<(), Faults> {
        let (sender, _) = read_arp(from, carried)?;
        let mut faults = Vec::new();
        if is_group(to) && to != BROADCAST {
            faults.push("destination-group");
        }
        if self
            .lease
            .as_ref()
            .is_some_and(|lease| lease.address == sender)
        {
            faults.push("arp-sender-address");
        }
        if sender == self.gateway && !self.is_gateway(from) {
            faults.push("arp-gateway");
        }
        if self.is_isolated() && !self.is_gateway(from) {
            faults.push("isolation");
        }
        none(faults)
    }

    /// Who asks whom, before the message is looked at.
    fn outbound_dhcp_path(&self, to: [u8; 6], packet: &Packet<'_>) -> Result<(), Faults> {
        let mut faults = Vec::new();
        if packet.is_udp_to(68) {
            return Err(vec!["dhcp-role"]);
        }
        if packet.ports.is_none_or(|(from, _)| from != 68) {
            faults.push("dhcp-role");
        }
        if packet.destination != self.gateway && !packet.destination.is_broadcast() {
            faults.push("dhcp-destination");
        }
        if is_group(to) && to != BROADCAST {
            faults.push("destination-group");
        }
        if !is_group(to) && self.gateway_mac.is_some_and(|gateway| gateway != to) {
            faults.push("destination-mac");
        }
        none(faults)
    }

    fn inbound_dhcp_path(
        &self,
        to: [u8; 6],
        from: [u8; 6],
        packet: &Packet<'_>,
    ) -> Result<(), Faults> {
        let mut faults = Vec::new();
        if packet.ports.is_none_or(|(from, _)| from != 67) {
            faults.push("dhcp-role");
        }
        if is_group(to) && to != BROADCAST {
            faults.push("destination-group");
        }
        let is_free = !self.is_gateway_mac_told && self.valid_lease().is_none();
        if packet.source != self.gateway || !(is_free || self.is_gateway(from)) {
            faults.push("dhcp-rogue-server");
        }
        none(faults)
    }

    fn check_destination(&self, packet: &Packet<'_>, lease: &Lease) -> Result<(), Faults> {
        let address = packet.destination;
        if self.host_only && address != self.gateway {
            return Err(vec!["host-only"]);
        }
        let fault = self.destination_fault(address);
        let may_be_name_server = [
            "destination-private",
            "destination-link-local",
            "destination-special",
        ];
        if packet.ports.is_some_and(|(_, to)| to == 53)
            && lease.name_servers.contains(&address)
            && fault.is_some_and(|fault| may_be_name_server.contains(&fault))
        {
            return Ok(());
        }
        none(fault.into_iter().collect())
    }

    fn destination_fault(&self, address: Ipv4Addr) -> Option<&'static str> {
        let rule = self.longest_rule(address);
        let is_never_sent = matches!(address.octets()[0], 0 | 127);
        if is_never_sent && rule.is_none_or(|(len, _)| len < 8) {
            return Some("destination-local");
        }
        if let Some((_, is_allowed)) = rule {
            return (!is_allowed).then_some("destination-blocked");
        }
        if address == self.gateway {
            return None;
        }
        let is_in = |net: &str| net.parse::<Ipv4Net>().unwrap().contains(&address);
        if address.is_broadcast() {
            return Some("destination-broadcast");
        }
        if address.is_private() || is_in("100.64.0.0/10") {
            return Some("destination-private");
        }
        if address.is_link_local() {
            return Some("destination-link-local");
        }
        if address.is_multicast() {
            return Some("destination-multicast");
        }
        if address.octets()[0] >= 240 {
            return Some("destination-reserved");
        }
        if address.is_documentation()
            || is_in("192.0.0.0/24")
            || is_in("198.18.0.0/15")
            || is_in("192.88.99.0/24")
        {
            return Some("destination-special");
        }
        None
    }

    /// Its length, and whether it allows.
    fn longest_rule(&self, address: Ipv4Addr) -> Option<(u8, bool)> {
        let longest = |rules: &[Ipv4Net]| {
            let holding = rules.iter().filter(|rule| rule.contains(&address));
            holding.map(Ipv4Net::prefix_len).max()
        };
        match (longest(&self.allow), longest(&self.block)) {
            (Some(allow), Some(block)) if allow > block => Some((allow, true)),
            (_, Some(block)) => Some((block, false)),
            (Some(allow), None) => Some((allow, true)),
            (None, None) => None,
        }
    }

    fn is_allowed_by_rule(&self, address: Ipv4Addr) -> bool {
        let is_allowed = self.longest_rule(address).is_some_and(|(_, allows)| allows);
        is_allowed && !self.host_only
    }

    fn outbound_dhcp(&mut self, packet: &Packet<'_>) -> Result<(), Faults> {
        let message = naive_dhcp::Message::read(packet.datagram())?;
        self.request(packet.source, &message, packet.end)
    }

    fn inbound_dhcp(&mut self, from: [u8; 6], packet: &Packet<'_>) -> Result<(), Faults> {
        let message = naive_dhcp::Message::read(packet.datagram())?;
        self.reply(from, &message, packet.end)
    }
}

/// An IPv4 packet whose shape is right.
#[derive(Debug)]
pub(crate) struct Packet<'a> {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    /// Of TCP and UDP; none in fragments.
    ports: Option<(u16, u16)>,
    payload: &'a [u8],
    /// Where it ends in its frame.
    end: usize,
}

impl<'a> Packet<'a> {
    fn read(carried: &'a [u8]) -> Result<Self, Faults> {
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

    fn is_udp_to(&self, port: u16) -> bool {
        self.protocol == 17 && self.ports.is_some_and(|(_, to)| to == port)
    }

    fn datagram(&self) -> &'a [u8] {
        &self.payload[8..]
    }
}

fn fragment_faults(offset: usize, more: bool, protocol: u8, payload: &[u8]) -> Faults {
    let len = payload.len();
    let is_bad = len == 0
        || offset != 0 && offset < 20
        || more && len % 8 != 0
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
fn read_arp(from: [u8; 6], carried: &[u8]) -> Result<(Ipv4Addr, Ipv4Addr), Faults> {
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

fn check_ethertype(number: u16) -> Result<(), Faults> {
    match number {
        0x0800 | 0x0806 => Ok(()),
        0x86dd => Err(vec!["ipv6"]),
        0x8100 | 0x88a8 | 0x9100 | 0x9200 | 0x9300 => Err(vec!["vlan"]),
        0x888e => Err(vec!["eapol"]),
        0..=1500 => Err(vec!["llc"]),
        _ => Err(vec!["ethertype"]),
    }
}

pub(crate) fn none(faults: Faults) -> Result<(), Faults> {
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults)
    }
}

/// The MAC address that packets for several stations go to.
fn group_mac(address: Ipv4Addr, network: Option<Ipv4Net>) -> Option<[u8; 6]> {
    let of_network = network.is_some_and(|net| net.prefix_len() < 31 && net.broadcast() == address);
    if address.is_broadcast() || of_network {
        return Some(BROADCAST);
    }
    let [_, b, c, d] = address.octets();
    address
        .is_multicast()
        .then_some([0x01, 0x00, 0x5e, b & 0x7f, c, d])
}

fn is_group(mac: [u8; 6]) -> bool {
    mac[0] & 1 == 1
}

const BROADCAST: [u8; 6] = [0xff; 6];
