//! The VM's own DHCP messages, and softnet's, which takes the place of a frame from an address that
//! the VM has no lease of.

use std::net::Ipv4Addr;

use super::super::dhcp::{DhcpRules, MessageSummary, RequestCheck};
use super::super::lease::PackedLease;
use super::super::validate::{self, Transport};
use super::super::verdict::{DropReason, Step, Verdict};
use super::{Outbound, why_not_from};
use crate::batch::Slot;
use crate::wire::dhcp::MessageType;
use crate::wire::ethernet::{Ethernet, ethertype};
use crate::wire::ipv4::{Header, Ipv4};
use crate::wire::udp;

impl Outbound {
    /// To port 67. This is never ordinary traffic, because a server reads what comes to that port
    /// from any port and for any of the host's addresses. The message itself needs inspection.
    #[cold]
    pub(super) fn dhcp_port(
        &self,
        ethernet: &Ethernet,
        destination: u32,
        source_port: u16,
    ) -> Result<Step, DropReason> {
        if source_port != udp::DHCP_CLIENT {
            return Err(DropReason::DhcpRole);
        }
        if destination != self.view.roles().gateway.address
            && destination != u32::from(Ipv4Addr::BROADCAST)
        {
            return Err(DropReason::DhcpDestination);
        }
        // While the gateway's MAC is not known, a VM that outlived the previous softnet may still
        // renew its lease by unicast: the renewal becomes softnet's own request.
        self.broadcast(
            ethernet.destination,
            self.view.roles().dhcp_server().mac().is_none(),
        )?;
        Ok(Step::Dhcp)
    }

    /// To the gateway's boot server: an ordinary packet that carries a DHCP message, which needs
    /// inspection too.
    #[cold]
    pub(super) fn boot_port(
        &self,
        ethernet: &Ethernet,
        header: &Header,
        transport: Transport,
    ) -> Result<Step, DropReason> {
        Ok(
            match self.ordinary::<false>(ethernet, header, None, transport)? {
                Step::Done(Verdict::Forward) | Step::Rules => Step::Boot,
                other => other,
            },
        )
    }

    /// DHCP: the message must be about this VM, and the fields that name the VM are rewritten.
    pub(super) fn request(&mut self, slot: &mut Slot<'_>, is_boot: bool) -> Result<(), DropReason> {
        let validate::Dhcp { ip, message, .. } =
            validate::dhcp(slot.frame()).ok_or(DropReason::DhcpMalformed)?;
        let from = (ip.source.get(), is_boot);
        let check =
            self.dhcp_rules()
                .check_request(&message, from, &self.shared.lease, self.now)?;
        if let RequestCheck::Names(address) = check {
            return self.ask(slot, address, DropReason::DhcpClientAddress);
        }
        let given_back = match message.kind {
            MessageType::Release => Some(message.header.client.get()),
            MessageType::Decline => message.requested,
            _ => None,
        };
        let summary = MessageSummary::of(&message, is_boot);
        let max_frame = self.view.roles().max_frame;
        self.guard
            .pass(&summary, slot, max_frame, self.now, &*self.shared.claims)?;
        // Read at a time when nothing that was requested before can bind another lease.
        let leased = self.shared.lease.packed().address();
        let left = (leased != 0 && !summary.leaves(leased)).then_some(leased);
        if let Some(address) = given_back.or(left) {
            self.shared.lease.give_up(address);
            // Before the server sees the message and may give the address to another VM.
            self.shared
                .claims
                .release_stale(&|| self.shared.lease.address_at(self.now));
        }
        Ok(())
    }

    /// A packet from an address that the VM has no lease of. If the VM has no valid lease at all,
    /// softnet asks the server about the address.
    #[cold]
    pub(super) fn unleased(
        &self,
        lease: PackedLease,
        address: u32,
        reason: DropReason,
    ) -> Result<Step, DropReason> {
        let may_ask = !lease.is_valid(self.now)
            && self.guard.may_ask(self.now)
            && self.dhcp_rules().may_be_asked_for(address);
        may_ask.then_some(Step::Unleased).ok_or(reason)
    }

    /// The address that a frame claims to come from, and the reason to drop it.
    pub(super) fn named(&self, frame: &[u8]) -> Option<(u32, DropReason)> {
        let (ethernet, carried) = Ethernet::split(frame)?;
        if ethernet.ethertype.get() == ethertype::ARP {
            let sender = validate::arp(ethernet, carried).ok()?.sender.get();
            return Some((sender, DropReason::ArpSenderAddress));
        }
        let source = Ipv4::parse(carried)?.header.source.get();
        Some((source, why_not_from(self.shared.lease.packed(), source)))
    }

    /// Replaces a frame that names an address without a lease by softnet's own request. `reason` is
    /// why the frame itself cannot pass.
    pub(super) fn ask(
        &mut self,
        slot: &mut Slot<'_>,
        address: u32,
        reason: DropReason,
    ) -> Result<(), DropReason> {
        let may_ask = !self.shared.lease.packed().is_valid(self.now)
            && self.dhcp_rules().may_be_asked_for(address);
        let is_asked = may_ask
            && self
                .guard
                .ask(slot, self.view.roles().max_frame, address, self.now);
        is_asked.then_some(()).ok_or(reason)
    }

    fn dhcp_rules(&self) -> DhcpRules<'_> {
        DhcpRules {
            vm: self.vm,
            roles: self.view.roles(),
        }
    }
}
