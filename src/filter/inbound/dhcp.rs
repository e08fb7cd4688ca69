//! The DHCP server's replies: which the VM gets, and what softnet learns from them.

use std::sync::Arc;

use super::super::dhcp::{DhcpRules, MessageSummary, Outcome};
use super::super::lease::Lease;
use super::super::rules::Learned;
use super::super::subnet::Subnet;
use super::super::validate;
use super::super::verdict::{DropReason, Step};
use super::Inbound;
use crate::batch::Slot;
use crate::wire::dhcp::MessageType;
use crate::wire::ethernet::Ethernet;
use crate::wire::{Mac, udp};

impl Inbound {
    /// To port 68. The message itself needs inspection.
    #[cold]
    pub(super) fn dhcp_port(
        &self,
        ethernet: &Ethernet,
        source: u32,
        source_port: u16,
    ) -> Result<Step, DropReason> {
        if !matches!(source_port, udp::DHCP_SERVER | udp::PXE) {
            return Err(DropReason::DhcpRole);
        }
        if ethernet.destination != self.vm && ethernet.destination != Mac::BROADCAST {
            return Err(DropReason::DestinationGroup);
        }
        // A learned MAC is valid as long as the lease, so that a gateway which has been recreated
        // meanwhile can grant the next one.
        let may_be_new = self.pins_gateway && !self.shared.lease.packed().is_valid(self.now);
        let server = self.view.roles().dhcp_server();
        let is_server = may_be_new || server.has_mac(ethernet.source);
        if source == server.address && is_server {
            Ok(match source_port {
                udp::PXE => Step::Boot,
                _ => Step::Dhcp,
            })
        } else {
            Err(DropReason::DhcpRogueServer)
        }
    }

    /// Inspects DHCP. A reply to the VM must answer its request, and gets the VM's own identifier
    /// back. A reply to softnet's own request ends here. Learns the lease.
    pub(super) fn reply(&mut self, slot: &mut Slot<'_>) -> Result<(), DropReason> {
        let validate::Dhcp {
            ethernet,
            udp,
            message,
            ..
        } = validate::dhcp(slot.frame()).ok_or(DropReason::DhcpMalformed)?;
        let server = ethernet.source;
        let is_boot = udp.source.get() == udp::PXE;
        let leased = self.shared.lease.packed().address();
        let roles = self.view.roles();
        DhcpRules { vm: self.vm, roles }.check_reply(&message, is_boot, leased)?;
        let reply = MessageSummary::of(&message, is_boot);
        // Locked until the lease is bound, so that the VM gives it back either before that or after
        // it.
        let transactions = Arc::clone(&self.shared.transactions);
        let mut open = transactions.lock();
        let outcome = self
            .guard
            .pass(&reply, &mut open, slot, roles.max_frame, self.now)?;
        match outcome {
            Outcome::ToTheVm { is_about_lease } => {
                if is_about_lease {
                    self.learn(server, &reply)?;
                }
                Ok(())
            }
            Outcome::Own => {
                // If the VM has been granted a lease meanwhile, that is what it asked for itself;
                // and a NAK is about an address that it does not have.
                if reply.kind == MessageType::Ack && !self.shared.lease.packed().is_valid(self.now)
                {
                    self.bind(server, &reply)?;
                }
                Err(DropReason::DhcpOwnAnswer)
            }
        }
    }

    /// Learns from a reply to the VM what the server granted or revoked.
    ///
    /// # Errors
    /// If the address that it grants is another VM's.
    fn learn(&mut self, server: Mac, reply: &MessageSummary) -> Result<(), DropReason> {
        match reply.kind {
            MessageType::Offer => self.shared.lease.set_offered(reply.granted, self.now),
            MessageType::Nak => {
                self.shared.lease.clear();
                self.shared.lease.forget_offered();
                let lease = || self.shared.lease.address_at(self.now);
                self.shared.claims.release_stale(&lease);
            }
            _ => self.bind(server, reply)?,
        }
        Ok(())
    }

    /// Binds the lease that an ACK grants. Without a lease time it grants nothing.
    ///
    /// # Errors
    /// If the address is another VM's.
    fn bind(&mut self, server: Mac, reply: &MessageSummary) -> Result<(), DropReason> {
        let address = reply.granted;
        let Some(time) = reply.lease_time.filter(|_| address != 0) else {
            return Ok(());
        };
        let lease = Lease {
            address: address.into(),
            expires: self.now.after(time),
        };
        let gateway = self.view.roles().gateway.address;
        let learned = Learned {
            gateway_mac: self.pins_gateway.then_some(server),
            subnet: subnet_of(address, gateway, reply.mask),
            name_servers: reply.name_servers.clone(),
        };
        let is_free = self.shared.claims.claim(lease.address, &mut || {
            // Before the lease, because nothing leaves until there is one.
            self.rules.learn(&learned);
            self.shared.lease.bind(&lease, self.now);
        });
        self.view.refresh();
        is_free.then_some(()).ok_or(DropReason::DhcpAddressTaken)
    }
}

/// The network that contains a granted address and the gateway, if the mask says so.
fn subnet_of(address: u32, gateway: u32, mask: Option<u32>) -> Option<Subnet> {
    Subnet::of(gateway, mask?).filter(|subnet| subnet.contains(address))
}
