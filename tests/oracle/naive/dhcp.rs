//! The second filter's word on DHCP messages, from docs/filtering.md, RFC 2131 and 2132.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{Facts, Faults, Lease, Passed, none};

/// A message and all its options.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) xid: u32,
    op: u8,
    ciaddr: Ipv4Addr,
    pub(super) yiaddr: Ipv4Addr,
    siaddr: Ipv4Addr,
    giaddr: Ipv4Addr,
    chaddr: [u8; 6],
    options: Vec<(u8, Vec<u8>)>,
    /// The other bytes of the fixed part, from `secs` on.
    fixed: Vec<u8>,
    /// How many bytes follow the end option of the field with the client identifier.
    room: usize,
    is_identifier_hidden: bool,
}

impl Message {
    pub(super) fn read(data: &[u8]) -> Result<Self, Faults> {
        Self::try_read(data).ok_or_else(|| vec!["dhcp-malformed"])
    }

    fn try_read(data: &[u8]) -> Option<Self> {
        if data.len() < 240 || data[236..240] != [99, 130, 83, 99] {
            return None;
        }
        if data[1] != 1 || data[2] != 6 {
            return None;
        }
        let mut options = Vec::new();
        let mut room = read_options(&data[240..], &mut options)?;
        let of_message = options.len();
        let overload = options.iter().find(|(code, _)| *code == 52);
        let fields = overload.map_or(0, |(_, data)| data.first().copied().unwrap_or(0));
        if matches!(fields, 1 | 3) {
            let count = options.len();
            let behind = read_options(&data[108..236], &mut options)?;
            if options[count..].iter().any(|(code, _)| *code == 61) {
                room = behind;
            }
        }
        if matches!(fields, 2 | 3) {
            let count = options.len();
            let behind = read_options(&data[44..108], &mut options)?;
            if options[count..].iter().any(|(code, _)| *code == 61) {
                room = behind;
            }
        }
        for (code, len) in [(1, 4), (50, 4), (51, 4), (52, 1), (53, 1), (54, 4)] {
            let mut of_code = options.iter().filter(|(other, _)| *other == code);
            if of_code.next().is_some_and(|(_, data)| data.len() != len) || of_code.next().is_some()
            {
                return None;
            }
        }
        let mut identifiers = options.iter().filter(|(code, _)| *code == 61);
        if identifiers.next().is_some_and(|(_, data)| data.len() < 2)
            || identifiers.next().is_some()
        {
            return None;
        }
        let is_hidden = options[of_message..].iter().any(|(code, _)| *code == 61);
        let address = |at: usize| Ipv4Addr::new(data[at], data[at + 1], data[at + 2], data[at + 3]);
        let message = Self {
            xid: u32::from_be_bytes(data[4..8].try_into().unwrap()),
            op: data[0],
            ciaddr: address(12),
            yiaddr: address(16),
            siaddr: address(20),
            giaddr: address(24),
            chaddr: data[28..34].try_into().unwrap(),
            options,
            fixed: if is_hidden {
                data[8..44].to_vec()
            } else {
                data[8..240].to_vec()
            },
            room,
            is_identifier_hidden: is_hidden,
        };
        message.option(53)?;
        Some(message)
    }

    pub(super) fn room_behind_identifier(&self) -> usize {
        self.room
    }

    pub(super) fn is_identifier_hidden(&self) -> bool {
        self.is_identifier_hidden
    }

    /// Whether this is the other message with these options, but for the client identifier.
    pub(super) fn is_with(
        &self,
        other: &Self,
        mut expected: Vec<(u8, Vec<u8>)>,
        identifier: Option<&[u8]>,
    ) -> bool {
        for (code, data) in &mut expected {
            if *code == 61 {
                *data = identifier.unwrap_or_default().to_vec();
            }
        }
        self.options == expected
            && (self.xid, self.op, &self.fixed) == (other.xid, other.op, &other.fixed)
    }

    pub(super) fn options(&self) -> &[(u8, Vec<u8>)] {
        &self.options
    }

    /// The address that a REQUEST asks for.
    pub(super) fn wanted(&self) -> Ipv4Addr {
        self.address(50).unwrap_or(self.ciaddr)
    }

    /// Without the one that ends the padding, as many as there are.
    pub(super) fn option_count(&self) -> usize {
        self.options.len()
    }

    pub(super) fn option(&self, code: u8) -> Option<&[u8]> {
        let found = self.options.iter().find(|(other, _)| *other == code)?;
        Some(&found.1)
    }

    pub(super) fn kind(&self) -> u8 {
        self.option(53).unwrap()[0]
    }

    fn address(&self, code: u8) -> Option<Ipv4Addr> {
        let bytes: [u8; 4] = self.option(code)?.try_into().unwrap();
        Some(bytes.into())
    }

    /// The first four; an empty list does not count.
    fn name_servers(&self) -> Vec<Ipv4Addr> {
        let mut lists = self.options.iter().filter(|(code, _)| *code == 6);
        let list = lists.find(|(_, data)| data.len() >= 4);
        let servers = list.iter().flat_map(|(_, data)| data.chunks_exact(4));
        servers
            .map(|server| Ipv4Addr::new(server[0], server[1], server[2], server[3]))
            .take(4)
            .filter(|server| !server.is_unspecified())
            .collect()
    }
}

/// How many bytes follow the end option; `None` when an option leaves the area.
fn read_options(area: &[u8], options: &mut Vec<(u8, Vec<u8>)>) -> Option<usize> {
    let mut at = 0;
    while at < area.len() && area[at] != 255 {
        if area[at] == 0 {
            at += 1;
            continue;
        }
        let len = usize::from(*area.get(at + 1)?);
        options.push((area[at], area.get(at + 2..at + 2 + len)?.to_vec()));
        at += 2 + len;
    }
    Some(area.len().saturating_sub(at + 1))
}

impl Facts {
    /// The VM asks. What it gives back is its own no more.
    pub(super) fn request(
        &mut self,
        source: Ipv4Addr,
        message: &Message,
        end: usize,
    ) -> Result<Passed, Faults> {
        let leased = self.lease.as_ref().map(|lease| lease.address);
        let renewable = self.valid_lease().map(|lease| lease.address);
        let requested = message.address(50);
        let kind = message.kind();
        self.check_client(message)?;
        let mut faults = Vec::new();
        if message
            .address(54)
            .is_some_and(|server| server != self.gateway)
        {
            faults.push("dhcp-server-identifier");
        }
        if !matches!(kind, 1 | 3 | 4 | 7 | 8) {
            faults.push("dhcp-message-type");
        }
        let serves_nobody = message.yiaddr.is_unspecified() && message.siaddr.is_unspecified();
        let names_another = !message.ciaddr.is_unspecified() && Some(message.ciaddr) != renewable;
        let becomes_question = kind == 3
            && names_another
            && serves_nobody
            && (source.is_unspecified() || source == message.ciaddr);
        if faults.is_empty() && becomes_question && self.is_question_due(message.ciaddr) {
            return Ok(Passed::Question(message.ciaddr));
        }
        let own = if kind == 3 { renewable } else { leased };
        if kind == 7 && (leased.is_none() || Some(message.ciaddr) != leased) {
            faults.push("dhcp-release");
        }
        let declines_own = requested.is_some_and(|address| {
            !address.is_unspecified() && (Some(address) == leased || self.is_offered(address))
        });
        if kind == 4 && !declines_own {
            faults.push("dhcp-decline");
        }
        if !serves_nobody || !message.ciaddr.is_unspecified() && Some(message.ciaddr) != own {
            faults.push("dhcp-client-address");
        }
        if !source.is_unspecified() && Some(source) != own {
            faults.push("dhcp-source");
        }
        none(faults)?;
        self.guard_request(message, 67, end)?;
        if kind == 7 || kind == 4 && requested == leased {
            self.lease = None;
        }
        Ok(Passed::Message)
    }

    /// The VM asks the boot server, in a packet that may go to the gateway.
    pub(super) fn boot_request(&mut self, message: &Message, end: usize) -> Result<Passed, Faults> {
        self.check_client(message)?;
        let leased = self.valid_lease().map(|lease| lease.address);
        let mut faults = Vec::new();
        if message
            .address(54)
            .is_some_and(|server| server != self.gateway)
        {
            faults.push("dhcp-server-identifier");
        }
        if !matches!(message.kind(), 1 | 3 | 8) {
            faults.push("dhcp-message-type");
        }
        let serves_nobody = message.yiaddr.is_unspecified() && message.siaddr.is_unspecified();
        if !serves_nobody || !message.ciaddr.is_unspecified() && Some(message.ciaddr) != leased {
            faults.push("dhcp-client-address");
        }
        none(faults)?;
        self.guard_request(message, 4011, end)?;
        Ok(Passed::Message)
    }

    /// Whether it is a client's message about the VM alone.
    fn check_client(&self, message: &Message) -> Result<(), Faults> {
        let mut faults = Vec::new();
        if message.option(52).is_some() {
            faults.push("dhcp-malformed");
        }
        if message.op != 1 {
            faults.push("dhcp-role");
        }
        if message.chaddr != self.vm {
            faults.push("dhcp-hardware-address");
        }
        let speaks_for_others = [82, 118]
            .into_iter()
            .any(|code| message.option(code).is_some());
        if !message.giaddr.is_unspecified() || speaks_for_others {
            faults.push("dhcp-relay");
        }
        none(faults)
    }

    /// The gateway answers, from one of its two ports.
    pub(super) fn reply(
        &mut self,
        (from, port): ([u8; 6], u16),
        message: &Message,
        end: usize,
    ) -> Result<(), Faults> {
        let mut faults = Vec::new();
        let (kind, yiaddr) = (message.kind(), message.yiaddr);
        let is_about_boot = port == 4011;
        if message.op != 2 {
            faults.push("dhcp-role");
        }
        if message.chaddr != self.vm {
            faults.push("dhcp-hardware-address");
        }
        if message.address(54) != Some(self.gateway) {
            faults.push("dhcp-server-identifier");
        }
        if !matches!(kind, 2 | 5 | 6) || is_about_boot && kind == 6 {
            faults.push("dhcp-message-type");
        }
        let leased = self.lease.as_ref().map(|lease| lease.address);
        let is_fit = if is_about_boot {
            yiaddr.is_unspecified() || Some(yiaddr) == leased
        } else {
            kind == 5 && yiaddr.is_unspecified() || self.is_grantable(yiaddr, self.network)
        };
        if matches!(kind, 2 | 5) && !is_fit {
            faults.push("dhcp-granted-address");
        }
        none(faults)?;
        if !is_about_boot && let Some(outcome) = self.answer_question(from, message) {
            return outcome;
        }
        let asked = self.guard_reply(message, port, end)?;
        self.answered = Some(asked.clone());
        if is_about_boot || asked.kind == 8 {
            return Ok(());
        }
        let grants = kind == 5 && !yiaddr.is_unspecified();
        match (kind, message.option(51)) {
            (5, Some(_)) if grants && self.taken.contains(&yiaddr) => {
                return Err(vec!["dhcp-address-taken"]);
            }
            (2, _) => {
                // Like a lease, it ends within the time that a lease can.
                let until = self.now.saturating_add(64).min(u32::MAX - 1);
                self.offered = Some((yiaddr, until.into()));
            }
            (6, _) => (self.lease, self.offered) = (None, None),
            (5, Some(time)) if grants => self.bind(from, message, time.try_into().unwrap()),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn bind(&mut self, from: [u8; 6], message: &Message, time: [u8; 4]) {
        if !self.is_gateway_mac_told {
            self.gateway_mac = Some(from);
        }
        if self.network.is_none() {
            self.network = message.address(1).and_then(|mask| {
                let network = Ipv4Net::with_netmask(self.gateway, mask).ok()?.trunc();
                network.contains(&message.yiaddr).then_some(network)
            });
        }
        // Nothing goes on that was open under a lease that has ended, or of another address.
        if self
            .valid_lease()
            .is_none_or(|lease| lease.address != message.yiaddr)
        {
            self.tracked.clear();
            self.datagrams.clear();
        }
        self.lease = Some(Lease {
            address: message.yiaddr,
            expires: match u32::from_be_bytes(time) {
                u32::MAX => None,
                time => Some(self.now.saturating_add(time).min(u32::MAX - 1)),
            },
            name_servers: message.name_servers(),
        });
        self.offered = None;
    }

    /// Whether a VM of this network can have the address.
    pub(super) fn is_grantable(&self, address: Ipv4Addr, network: Option<Ipv4Net>) -> bool {
        if matches!(address.octets()[0], 0 | 127 | 224..) || address == self.gateway {
            return false;
        }
        network.is_none_or(|network| {
            let is_end = address == network.network() || address == network.broadcast();
            network.contains(&address) && (network.prefix_len() >= 31 || !is_end)
        })
    }
}
