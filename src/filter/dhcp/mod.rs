//! What a DHCP client may ask, and what a server may answer (RFC 2131).
//!
//! A server binds an address to whom the message names, not to whom the frame comes from.
//! So the message must agree with the frame: a VM speaks for itself only, and only the
//! gateway answers, and only what the VM has asked.
//!
//! ```text
//!   request:  rules -> bucket (how often) -> identifier (rewritten) -> transactions (open)
//!   reply:    rules -> transactions (found) -> identifier (restored) -> the lease
//! ```
//!
//! The rules are below; each other station is a file.

mod guard;
mod identifier;
mod transactions;

pub(super) use self::guard::{Noted, ReplyGuard, RequestGuard};
pub(super) use self::transactions::Transactions;

use super::Config;
use super::lease::LeaseCell;
use super::subnet::Subnet;
use super::verdict::DropReason;
use crate::wire::Mac;
use crate::wire::dhcp::{self, Message};

/// What is known about the VM and its network.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parties {
    pub(super) vm: Mac,
    pub(super) gateway: u32,
    pub(super) subnet: Option<Subnet>,
}

impl Parties {
    pub(super) fn new(config: &Config<'_>) -> Self {
        Self {
            vm: config.vm_mac,
            gateway: config.gateway.into(),
            subnet: config.subnet.map(Subnet::from),
        }
    }

    /// Whether the VM may send this message from this address.
    pub(super) fn check_request(
        &self,
        message: &Message<'_>,
        source: u32,
        lease: &LeaseCell,
    ) -> Result<(), DropReason> {
        let header = message.header;
        let leased = lease.hot().address();
        let is_unseen = leased == 0 && !lease.was_bound();
        // Servers read hidden options too, but no client needs them in its short message.
        if message.is_overloaded {
            return Err(DropReason::DhcpMalformed);
        }
        if header.operation != dhcp::REQUEST {
            return Err(DropReason::DhcpRole);
        }
        if header.hardware != self.vm {
            return Err(DropReason::DhcpHardwareAddress);
        }
        if header.relay.get() != 0 || message.speaks_for_others {
            return Err(DropReason::DhcpRelay);
        }
        if message.server.is_some_and(|server| server != self.gateway) {
            return Err(DropReason::DhcpServerIdentifier);
        }
        let client = header.client.get();
        let claimed = match message.kind {
            // When softnet starts under a running VM it knows no lease, yet the VM renews the
            // one that it has. The server decides whether that is so: it answers only the
            // client to whom it granted the address. Once this softnet has seen a lease there is
            // no need for that: a client whose lease was taken or given back has no address,
            // and one whose lease ran out starts anew, by DISCOVER or by REQUEST; until they
            // have an address again their ciaddr is zero (RFC 2131, 4.3.6 and 4.4). Who is late
            // still may name the lease that ran out, which is remembered until another comes.
            dhcp::REQUEST_LEASE if is_unseen && self.may_be_granted(client) => client,
            dhcp::DISCOVER | dhcp::REQUEST_LEASE | dhcp::INFORM => leased,
            dhcp::RELEASE if leased == 0 || client != leased => {
                return Err(DropReason::DhcpRelease);
            }
            dhcp::DECLINE if !declines_its_own(message, leased, lease.offered()) => {
                return Err(DropReason::DhcpDecline);
            }
            dhcp::RELEASE | dhcp::DECLINE => leased,
            _ => return Err(DropReason::DhcpMessageType),
        };
        if client != 0 && client != claimed {
            return Err(DropReason::DhcpClientAddress);
        }
        if source != 0 && source != claimed {
            return Err(DropReason::DhcpSource);
        }
        Ok(())
    }

    /// Whether this is an answer of the gateway to the VM. That it comes from the gateway has
    /// been checked; whether the VM has asked for it is for [`ReplyGuard`].
    pub(super) fn check_reply(&self, message: &Message<'_>) -> Result<(), DropReason> {
        let header = message.header;
        if header.operation != dhcp::REPLY {
            return Err(DropReason::DhcpRole);
        }
        if header.hardware != self.vm {
            return Err(DropReason::DhcpHardwareAddress);
        }
        if message.server != Some(self.gateway) {
            return Err(DropReason::DhcpServerIdentifier);
        }
        let yours = header.yours.get();
        match message.kind {
            dhcp::OFFER if self.may_be_granted(yours) => Ok(()),
            // An answer to INFORM grants nothing.
            dhcp::ACK if yours == 0 || self.may_be_granted(yours) => Ok(()),
            dhcp::NAK => Ok(()),
            dhcp::OFFER | dhcp::ACK => Err(DropReason::DhcpGrantedAddress),
            _ => Err(DropReason::DhcpMessageType),
        }
    }

    /// Whether a VM of this network can have the address.
    fn may_be_granted(&self, address: u32) -> bool {
        let is_unicast = matches!(address >> 24, 1..=126 | 128..=223);
        let is_inside = self.subnet.is_none_or(|subnet| subnet.has_station(address));
        is_unicast && is_inside && address != self.gateway
    }
}

fn declines_its_own(message: &Message<'_>, leased: u32, offered: u32) -> bool {
    message
        .requested
        .is_some_and(|address| address != 0 && (address == leased || address == offered))
}
