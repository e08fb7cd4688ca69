//! Checks what a DHCP client may request and what a server may answer (RFC 2131).
//!
//! A server binds an address to the client that the message names, not to the sender of the frame.
//! So the message must agree with the frame: a VM may only speak for itself, only the gateway may
//! answer, and only what the VM has asked.
//!
//! ```text
//!   request:  rules -> bucket (how often) -> names, identifier (rewritten) -> transactions (open)
//!   reply:    rules -> transactions (found) -> identifier (restored) -> the lease
//! ```
//!
//! The rules are in this file. Each other step has a file of its own.

mod guard;
mod identifier;
mod names;
mod transactions;

pub(super) use self::guard::{MessageSummary, Outcome, ReplyGuard, RequestGuard};
pub(super) use self::transactions::Transactions;

use super::lease::LeaseCell;
use super::roles::Roles;
use super::verdict::DropReason;
use crate::clock::Tick;
use crate::wire::Mac;
use crate::wire::dhcp::{self, Message, MessageType};

/// What a VM may send to a DHCP server, and the server to the VM.
#[derive(Debug, Clone, Copy)]
pub(super) struct DhcpRules<'a> {
    pub(super) vm: Mac,
    pub(super) roles: &'a Roles,
}

/// What the rules say about a request that they do not drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestCheck {
    Passes,
    /// It renews this address, of which the VM has no known lease.
    Names(u32),
}

impl DhcpRules<'_> {
    /// Whether the VM may send this message from this address, to the PXE port or to the DHCP port.
    pub(super) fn check_request(
        &self,
        message: &Message<'_>,
        (source, is_boot): (u32, bool),
        lease: &LeaseCell,
        now: Tick,
    ) -> Result<RequestCheck, DropReason> {
        let header = message.header;
        let packed = lease.packed();
        let leased = packed.address();
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
        if message.server.is_some_and(|server| server != self.server()) {
            return Err(DropReason::DhcpServerIdentifier);
        }
        let client = header.client.get();
        let claimed = match message.kind {
            // An expired address may have been granted to another VM, and bootpd renews any address
            // that it is asked for (dhcpd.c, "trust it anyways").
            MessageType::Request if !packed.is_valid(now) => 0,
            MessageType::Discover | MessageType::Request | MessageType::Inform => leased,
            _ if is_boot => return Err(DropReason::DhcpMessageType),
            MessageType::Release if leased == 0 || client != leased => {
                return Err(DropReason::DhcpRelease);
            }
            MessageType::Decline if !declines_its_own(message, leased, lease.offered(now)) => {
                return Err(DropReason::DhcpDecline);
            }
            MessageType::Release | MessageType::Decline => leased,
            _ => return Err(DropReason::DhcpMessageType),
        };
        // dnsmasq copies yiaddr into its answer to INFORM (rfc2131.c).
        if header.yours.get() != 0 || header.next_server.get() != 0 {
            return Err(DropReason::DhcpClientAddress);
        }
        if client != 0 && client != claimed {
            let is_renewal = message.kind == MessageType::Request && !is_boot;
            return if is_renewal && !packed.is_valid(now) && (source == 0 || source == client) {
                Ok(RequestCheck::Names(client))
            } else {
                Err(DropReason::DhcpClientAddress)
            };
        }
        if source != 0 && source != claimed {
            return Err(DropReason::DhcpSource);
        }
        Ok(RequestCheck::Passes)
    }

    /// Whether this is an answer from the gateway to the VM. The caller has checked that it comes
    /// from the gateway; [`ReplyGuard`] checks that it answers a request. A PXE reply (`is_boot`)
    /// grants nothing, and may name no address but `leased`.
    pub(super) fn check_reply(
        &self,
        message: &Message<'_>,
        is_boot: bool,
        leased: u32,
    ) -> Result<(), DropReason> {
        let header = message.header;
        if header.operation != dhcp::REPLY {
            return Err(DropReason::DhcpRole);
        }
        if header.hardware != self.vm {
            return Err(DropReason::DhcpHardwareAddress);
        }
        if message.server != Some(self.server()) {
            return Err(DropReason::DhcpServerIdentifier);
        }
        let yours = header.yours.get();
        match message.kind {
            MessageType::Offer | MessageType::Ack if is_boot && (yours == 0 || yours == leased) => {
                Ok(())
            }
            MessageType::Offer if self.may_be_granted(yours) && !is_boot => Ok(()),
            // An answer to an INFORM grants nothing.
            MessageType::Ack if (yours == 0 || self.may_be_granted(yours)) && !is_boot => Ok(()),
            MessageType::Nak if !is_boot => Ok(()),
            MessageType::Offer | MessageType::Ack => Err(DropReason::DhcpGrantedAddress),
            _ => Err(DropReason::DhcpMessageType),
        }
    }

    /// Whether softnet may ask the server about this address. While the network is not known, an
    /// address in 169.254.0.0/16 is one that the VM has chosen itself (RFC 3927).
    pub(super) fn may_be_asked_for(&self, address: u32) -> bool {
        let is_link_local = address >> 16 == 0xa9fe;
        self.may_be_granted(address) && (self.roles.subnet.is_some() || !is_link_local)
    }

    /// Whether a VM of this network may have the address.
    fn may_be_granted(&self, address: u32) -> bool {
        let is_unicast = matches!(address >> 24, 1..=126 | 128..=223);
        let is_inside = (self.roles.subnet).is_none_or(|subnet| subnet.has_station(address));
        is_unicast && is_inside && address != self.roles.gateway.address
    }

    fn server(&self) -> u32 {
        self.roles.dhcp_server().address
    }
}

fn declines_its_own(message: &Message<'_>, leased: u32, offered: u32) -> bool {
    message
        .requested
        .is_some_and(|address| address != 0 && (address == leased || address == offered))
}
