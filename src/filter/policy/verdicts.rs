//! What the rules say about one packet: by its address only, or by everything that rules can name.

use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;

use super::super::prefix::{Destination, PrefixTable};
use super::built_in::NEVER_SENT;
use super::ports::{Action, PortPair, PortTable};
use crate::wire::ipv4::protocol;

/// The verdicts for the packets of one direction.
#[derive(Debug)]
pub(crate) struct Verdicts {
    /// By the other machine's address only.
    pub(crate) table: PrefixTable,
    pub(super) details: Option<Box<Details>>,
}

/// What decides where the table does not.
#[derive(Debug)]
pub(super) struct Details {
    pub(super) ports: PortTable,
    /// Rules without ports, for TCP, UDP, ICMP, and all other protocols.
    pub(super) by_kind: [Arc<PrefixTable>; 4],
    /// The verdict of a rule that allows.
    pub(super) allowed: Destination,
    /// Outbound only: for inbound packets there is nothing that a rule could open by mistake.
    pub(super) guard: Option<Guard>,
}

/// The addresses that no wide rule opens.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) gateway: u32,
    /// The VM's network, if its neighbours are closed.
    pub(super) neighbours: Option<Ipv4Net>,
    pub(super) host_only: bool,
}

impl Verdicts {
    /// The verdict where addresses alone do not decide: for a TCP or UDP packet with its ports, if
    /// it has them, or for a packet of another kind.
    #[inline(never)]
    pub(crate) fn verdict_for_packet(
        &self,
        address: u32,
        kind: Kind,
        ports: Option<PortPair>,
    ) -> Destination {
        let Some(details) = &self.details else {
            return self.table.get(address);
        };
        let guard = details.guard.as_ref();
        if guard.is_some_and(|guard| guard.host_only && address != guard.gateway) {
            return Destination::HostOnly;
        }
        match ports.and_then(|ports| details.ports.get(address, ports)) {
            Some((Action::Block, _)) => return Destination::Blocked,
            Some((Action::Allow, len)) if guard.is_none_or(|it| it.lets(address, len)) => {
                return details.allowed;
            }
            _ => {}
        }
        details.by_kind[kind as usize].get(address)
    }
}

/// The protocols that rules tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    Udp,
    Icmp,
    Other,
}

impl Kind {
    /// The kind of a protocol, by its number in the IPv4 header.
    pub(in crate::filter) const fn of(protocol: u8) -> Self {
        match protocol {
            protocol::TCP => Self::Tcp,
            protocol::UDP => Self::Udp,
            protocol::ICMP => Self::Icmp,
            _ => Self::Other,
        }
    }
}

impl Guard {
    /// Whether a rule with this prefix length opens an address in it.
    fn lets(&self, address: u32, prefix_len: u8) -> bool {
        if address == self.gateway {
            return true;
        }
        let is_local = NEVER_SENT.contains(&address.to_be_bytes()[0]);
        let is_neighbour = |net: &Ipv4Net| net.contains(&Ipv4Addr::from(address));
        let neighbours = self.neighbours.filter(is_neighbour);
        (!is_local || prefix_len >= 8)
            && neighbours.is_none_or(|net| prefix_len >= net.prefix_len())
    }
}
