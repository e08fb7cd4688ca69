//! Whether a frame may leave the VM.

use std::net::Ipv4Addr;

use etherparse::Ethernet2HeaderSlice;
use ipnet::Ipv4Net;

use super::dhcp::Message;
use super::packet::{Packet, read_arp, without_trailer};
use super::rules::{Said, Seen};
use super::{BROADCAST, Facts, Faults, Passed, check_ethertype, group_mac, is_group, none};

impl Facts {
    /// Whether a frame may leave the VM.
    pub(crate) fn outbound(&mut self, frame: &[u8]) -> Result<Passed, Faults> {
        self.check_length(frame)?;
        let ethernet = Ethernet2HeaderSlice::from_slice(frame).unwrap();
        let frame = without_trailer(frame);
        let carried = &frame[14..];
        let (to, from) = (ethernet.destination(), ethernet.source());
        if from != self.vm {
            return Err(vec!["source-mac"]);
        }
        check_ethertype(ethernet.ether_type().0)?;
        if ethernet.ether_type().0 == 0x0806 {
            let (sender, _) = read_arp(from, carried)?;
            if !sender.is_unspecified() && self.is_question_due(sender) {
                return Ok(Passed::Question(sender));
            }
            self.outbound_arp(to, from, carried)?;
            return self.rewrite_arp(frame).map(Passed::As);
        }
        let packet = Packet::read(carried, true)?;
        if packet.is_udp_to(67) || packet.is_udp_to(68) {
            self.outbound_dhcp_path(to, &packet)?;
            return self.outbound_dhcp(&packet);
        }
        if self.is_question_due(packet.source) {
            return Ok(Passed::Question(packet.source));
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
        if packet.quoted.is_some_and(|(source, destination)| {
            destination != lease.address || source != packet.destination
        }) {
            return Err(vec!["icmp-quote"]);
        }
        let mut faults = Vec::new();
        if !self.is_tracking()
            && let Said::No(fault) = self.said(&packet, true, packet.destination, false)
        {
            faults.push(fault);
        }
        let is_own = self.host_addresses.contains(&packet.destination);
        if (is_own || packet.destination == self.gateway)
            && !matches!(packet.protocol, 1 | 6 | 17)
            && !self.opens_protocols(packet.destination)
        {
            faults.push("gateway-protocol");
        }
        if is_group(to) {
            if group_mac(packet.destination, self.network) != Some(to) {
                faults.push("destination-group");
            }
        } else if self.is_isolated() && !self.is_gateway(to) {
            faults.push("destination-mac");
        }
        none(faults)?;
        if self.is_tracking() {
            self.connection(&packet, true)?;
        }
        if packet.destination == self.gateway
            && packet.protocol == 17
            && packet.ports == Some((68, 4011))
        {
            let message = Message::read(packet.datagram())?;
            return self.boot_request(&message, packet.end);
        }
        if packet.opens_connection && !self.connections.take(self.now) {
            return Err(vec!["connection-rate"]);
        }
        Ok(Passed::As(frame.to_vec()))
    }

    /// From "What is rewritten in ARP": one that passes, unless there were too many.
    fn rewrite_arp(&mut self, frame: &[u8]) -> Result<Vec<u8>, Faults> {
        let mut frame = frame.to_vec();
        frame[42..].fill(0);
        let is_request = frame[20..22] == [0, 1];
        if is_request || frame[..6] == BROADCAST {
            frame[32..38].fill(0);
        }
        if frame[..6] != BROADCAST {
            return Ok(frame);
        }
        let is_for_gateway = is_request && frame[38..42] == self.gateway.octets();
        if let Some(gateway) = self.gateway_mac
            && is_for_gateway
            && self.is_isolated()
            && self.unanswered < 2
        {
            self.unanswered += 1;
            frame[..6].copy_from_slice(&gateway);
            return Ok(frame);
        }
        if !self.broadcast_arp.take(self.now) {
            return Err(vec!["arp-rate"]);
        }
        Ok(frame)
    }

    fn outbound_arp(&self, to: [u8; 6], from: [u8; 6], carried: &[u8]) -> Result<(), Faults> {
        let (sender, target) = read_arp(from, carried)?;
        let leased = self.valid_lease().map(|lease| lease.address);
        if sender.is_unspecified() {
            let is_request = carried[7] == 1;
            let is_own =
                !target.is_unspecified() && (Some(target) == leased || self.is_offered(target));
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

    fn outbound_dhcp(&mut self, packet: &Packet<'_>) -> Result<Passed, Faults> {
        let message = Message::read(packet.datagram())?;
        self.request(packet.source, &message, packet.end)
    }

    /// Whether the exception for name servers holds.
    pub(super) fn is_name_server(
        &self,
        packet: &Packet<'_>,
        outbound: bool,
        peer: Ipv4Addr,
        fault: &str,
    ) -> bool {
        let may_be_one = [
            "isolation",
            "destination-private",
            "destination-link-local",
            "destination-metadata",
            "destination-special",
        ];
        let servers = self.lease.iter().flat_map(|lease| &lease.name_servers);
        packet
            .ports
            .is_some_and(|(from, to)| 53 == if outbound { to } else { from })
            && !packet.is_short
            && servers.into_iter().any(|server| *server == peer)
            && may_be_one.contains(&fault)
    }

    /// What rules and what is built in say of a packet of the VM's.
    pub(super) fn outbound_said(&self, seen: &Seen) -> Said {
        let address = seen.address;
        if self.host_only && address != self.gateway {
            return Said::No("host-only");
        }
        let neighbours = self
            .network
            .filter(|net| self.is_isolated() && address != self.gateway && net.contains(&address));
        let is_never_sent = matches!(address.octets()[0], 0 | 127);
        match self.deciding(seen, true, false) {
            Some((_, false)) => return Said::No("destination-blocked"),
            Some((len, true)) => {
                let is_wide = neighbours.is_some_and(|net| len < net.prefix_len());
                if !(is_wide || is_never_sent && len < 8) {
                    return Said::Allowed;
                }
            }
            None => {}
        }
        let rule = self.deciding(seen, false, false);
        if let Some(network) = neighbours
            && rule.is_none_or(|(len, _)| len < network.prefix_len())
        {
            return Said::No(match rule {
                Some((_, false)) => "destination-blocked",
                _ => "isolation",
            });
        }
        if is_never_sent && rule.is_none_or(|(len, _)| len < 8) {
            return Said::No("destination-local");
        }
        match rule {
            Some((_, true)) => Said::Allowed,
            Some((_, false)) => Said::No("destination-blocked"),
            None => self.built_in(seen).map_or(Said::Nothing, Said::No),
        }
    }

    fn built_in(&self, seen: &Seen) -> Option<&'static str> {
        let address = seen.address;
        if address == self.gateway {
            return None;
        }
        if self.blocks_host(seen) && self.host_addresses.contains(&address) {
            return Some("destination-blocked");
        }
        if ["168.63.129.16", "192.80.8.124"].contains(&&*address.to_string()) {
            return Some("destination-metadata");
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

    /// Whether a rule without ports or protocol allows the group that a packet is for.
    pub(super) fn is_allowed_by_rule(&self, packet: &Packet<'_>) -> bool {
        let said = self.outbound_said(&Seen {
            protocol: 255,
            address: packet.destination,
            ports: None,
        });
        matches!(said, Said::Allowed)
    }
}
