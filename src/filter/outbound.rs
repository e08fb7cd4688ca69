//! From the VM to the host: nobody but the VM itself speaks, and only to whom it may.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::dhcp::Parties;
use super::lease::{Hot, LeaseCell};
use super::policy::Mode;
use super::prefix::{Destination, PrefixTable};
use super::shape::{self, Transport};
use super::subnet::group_mac;
use super::verdict::{DropReason, Verdict};
use super::{Check, Config, Seconds};
use crate::wire::ethernet::{Ethernet, ethertype};
use crate::wire::{Mac, arp, dhcp, udp};

/// The filter of frames that leave the VM.
#[derive(Debug)]
pub struct Outbound {
    parties: Parties,
    isolation: bool,
    max_frame: usize,
    table: Arc<PrefixTable>,
    lease: Arc<LeaseCell>,
}

impl Outbound {
    pub(super) fn new(config: &Config<'_>, table: Arc<PrefixTable>, lease: Arc<LeaseCell>) -> Self {
        Self {
            parties: Parties::new(config),
            isolation: config.isolation || config.mode == Mode::Host,
            max_frame: config.max_frame,
            table,
            lease,
        }
    }

    /// In the order of cost: one pass over the headers of a TCP frame with a valid lease, to
    /// a destination that the table passes. Only what fails there looks for an exception.
    #[inline]
    fn judge(&self, frame: &[u8], now: Seconds) -> Result<Verdict, DropReason> {
        let (ethernet, carried) = shape::ethernet(frame, self.max_frame)?;
        if ethernet.source != self.parties.vm {
            return Err(DropReason::SourceMac);
        }
        match ethernet.ethertype.get() {
            ethertype::IPV4 => self.judge_ipv4(ethernet, carried, now),
            ethertype::ARP => self.judge_arp(ethernet, carried, now),
            other => Err(shape::foreign_ethertype(other)),
        }
    }

    #[inline]
    fn judge_ipv4(
        &self,
        ethernet: &Ethernet,
        carried: &[u8],
        now: Seconds,
    ) -> Result<Verdict, DropReason> {
        let (header, transport) = shape::ipv4(carried)?;
        let (source, destination) = (header.source.get(), header.destination.get());
        match transport {
            Transport::Udp(port, udp::DHCP_SERVER) => {
                return self.judge_dhcp(ethernet, destination, port);
            }
            Transport::Udp(_, udp::DHCP_CLIENT) => return Err(DropReason::DhcpRole),
            _ => {}
        }
        let lease = self.lease.hot();
        if source != lease.address() || !lease.is_valid(now) {
            return Err(why_not_from(lease, source));
        }
        let verdict = self.table.get(destination);
        if let Some(reason) = verdict.refusal()
            && !self.is_dns(verdict, destination, transport)
        {
            return Err(reason);
        }
        if !self.lease.is_gateway_mac(ethernet.destination) {
            self.judge_destination_mac(ethernet.destination, destination)?;
        }
        Ok(Verdict::Forward)
    }

    /// A name server that the lease names is reached on port 53 although it is not public,
    /// for it is often the resolver of a company's network.
    fn is_dns(&self, verdict: Destination, destination: u32, transport: Transport) -> bool {
        let (Transport::Udp(_, port) | Transport::Tcp(port)) = transport else {
            return false;
        };
        port == udp::DNS && verdict.may_be_name_server() && self.lease.has_name_server(destination)
    }

    /// Frames for the gateway have passed already (RFC 7039 has a host's neighbours protected
    /// like that). A group can only be one that a rule allows, or the table had refused it.
    #[cold]
    fn judge_destination_mac(&self, mac: Mac, address: u32) -> Result<(), DropReason> {
        if mac.is_multicast() {
            match group_mac(address, self.parties.subnet) {
                Some(group) if group == mac => Ok(()),
                _ => Err(DropReason::DestinationGroup),
            }
        } else if self.isolation {
            Err(DropReason::DestinationMac)
        } else {
            Ok(())
        }
    }

    /// To port 67, which is never ordinary traffic: a server reads what comes there from any
    /// port and for any of the host's addresses. The message itself is for [`Check::dhcp`].
    #[cold]
    fn judge_dhcp(
        &self,
        ethernet: &Ethernet,
        destination: u32,
        source_port: u16,
    ) -> Result<Verdict, DropReason> {
        if source_port != udp::DHCP_CLIENT {
            return Err(DropReason::DhcpRole);
        }
        if destination != self.parties.gateway && destination != u32::from(Ipv4Addr::BROADCAST) {
            return Err(DropReason::DhcpDestination);
        }
        self.judge_gateway_mac(ethernet.destination, true)?;
        Ok(Verdict::Dhcp)
    }

    /// ARP speaks for the VM's address only.
    #[cold]
    fn judge_arp(
        &self,
        ethernet: &Ethernet,
        carried: &[u8],
        now: Seconds,
    ) -> Result<Verdict, DropReason> {
        let arp = shape::arp(ethernet, carried)?;
        let lease = self.lease.hot();
        let (sender, target) = (arp.sender.get(), arp.target.get());
        if sender == 0 {
            // A probe asks whether the address is free (RFC 5227).
            let is_leased = target == lease.address() && lease.is_valid(now);
            let may_probe = target != 0 && (is_leased || target == self.lease.offered());
            if !may_probe || arp.operation.get() != arp::REQUEST {
                return Err(DropReason::ArpProbe);
            }
        } else if sender != lease.address() || !lease.is_valid(now) {
            return Err(DropReason::ArpSenderAddress);
        }
        self.judge_gateway_mac(ethernet.destination, false)?;
        Ok(Verdict::Forward)
    }

    /// ARP and DHCP go to everybody or to the gateway. As long as the gateway's MAC is not
    /// known, a VM that outlived the last softnet may still renew its lease with the gateway.
    fn judge_gateway_mac(&self, mac: Mac, is_dhcp: bool) -> Result<(), DropReason> {
        if mac == Mac::BROADCAST || self.lease.is_gateway_mac(mac) {
            return Ok(());
        }
        if mac.is_multicast() {
            return Err(DropReason::DestinationGroup);
        }
        let is_open = if is_dhcp {
            self.lease.gateway_mac().is_none()
        } else {
            !self.isolation
        };
        if is_open {
            Ok(())
        } else {
            Err(DropReason::DestinationMac)
        }
    }
}

impl Check for Outbound {
    #[inline]
    fn check(&self, frame: &[u8], now: Seconds) -> Verdict {
        self.judge(frame, now).unwrap_or_else(Verdict::Drop)
    }

    fn dhcp(&mut self, slot: &mut [u8], len: usize, _now: Seconds) -> Result<usize, DropReason> {
        let frame = slot.get(..len).ok_or(DropReason::DhcpMalformed)?;
        let (_, ip, message) = shape::dhcp(frame).ok_or(DropReason::DhcpMalformed)?;
        let lease = self.lease.hot();
        self.parties
            .check_request(&message, ip.source.get(), lease, self.lease.offered())?;
        let gives_up = match message.kind {
            dhcp::RELEASE => true,
            dhcp::DECLINE => message.requested == Some(lease.address()),
            _ => false,
        };
        if gives_up {
            self.lease.give_up(lease);
        }
        Ok(len)
    }
}

/// Why nothing may come from this address.
#[cold]
fn why_not_from(lease: Hot, source: u32) -> DropReason {
    if lease.address() == 0 {
        DropReason::NoLease
    } else if source == lease.address() {
        DropReason::LeaseExpired
    } else {
        DropReason::SourceAddress
    }
}
