//! Whether a frame may go to the VM.

use etherparse::Ethernet2HeaderSlice;

use super::dhcp::Message;
use super::packet::{Packet, read_arp, without_trailer};
use super::{BROADCAST, Facts, Faults, Passed, check_ethertype, group_mac, is_group, none};

impl Facts {
    /// Whether a frame may go to the VM.
    pub(crate) fn inbound(&mut self, frame: &[u8]) -> Result<Passed, Faults> {
        self.check_length(frame)?;
        let ethernet = Ethernet2HeaderSlice::from_slice(frame).unwrap();
        let frame = without_trailer(frame);
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
            self.inbound_arp(to, from, carried)?;
            return Ok(Passed::As(frame.to_vec()));
        }
        let packet = Packet::read(carried, false)?;
        if packet.is_udp_to(67) {
            return Err(vec!["dhcp-role"]);
        }
        if packet.is_udp_to(68) {
            self.inbound_dhcp_path(to, from, &packet)?;
            self.inbound_dhcp(from, &packet)?;
            return Ok(Passed::Message);
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
        if packet
            .quoted
            .is_some_and(|(source, _)| source != lease.address)
        {
            faults.push("icmp-quote");
        }
        match group_mac(packet.destination, self.network) {
            _ if packet.destination == lease.address && to == self.vm => {}
            None if is_group(to) => faults.push("destination-group"),
            None => faults.push("destination-address"),
            Some(group) if group != to => faults.push("destination-group"),
            Some(BROADCAST) => {}
            Some(_) if self.is_allowed_by_rule(&packet) => {}
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
        none(faults)?;
        if self.is_tracking() {
            self.connection(&packet, false)?;
        }
        Ok(Passed::As(frame.to_vec()))
    }

    fn inbound_arp(&mut self, to: [u8; 6], from: [u8; 6], carried: &[u8]) -> Result<(), Faults> {
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
        none(faults)?;
        let is_reply = carried[6..8] == [0, 2];
        if is_reply && sender == self.gateway && self.is_gateway(from) {
            self.unanswered = 0;
        }
        Ok(())
    }

    fn inbound_dhcp_path(
        &self,
        to: [u8; 6],
        from: [u8; 6],
        packet: &Packet<'_>,
    ) -> Result<(), Faults> {
        let mut faults = Vec::new();
        if packet
            .ports
            .is_none_or(|(from, _)| from != 67 && from != 4011)
        {
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

    fn inbound_dhcp(&mut self, from: [u8; 6], packet: &Packet<'_>) -> Result<(), Faults> {
        let message = Message::read(packet.datagram())?;
        let port = packet.ports.map_or(0, |(from, _)| from);
        self.reply((from, port), &message, packet.end)
    }
}
