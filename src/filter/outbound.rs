//! From the VM to the host: nobody but the VM itself speaks, and only to whom it may.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::claims::Claims;
use super::dhcp::{Noted, Parties, RequestGuard, Transactions};
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
    guard: RequestGuard,
    claims: Arc<dyn Claims>,
}

impl Outbound {
    pub(super) fn new(
        config: &Config<'_>,
        table: Arc<PrefixTable>,
        lease: Arc<LeaseCell>,
        transactions: Arc<Transactions>,
        claims: Arc<dyn Claims>,
    ) -> Self {
        Self {
            parties: Parties::new(config),
            isolation: config.isolation || config.mode == Mode::Host,
            max_frame: config.max_frame,
            table,
            lease,
            guard: RequestGuard::new(config, transactions),
            claims,
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
        // As long as the gateway's MAC is not known, a VM that outlived the last softnet may
        // still renew its lease by unicast.
        self.judge_broadcast(ethernet.destination, self.lease.gateway_mac().is_none())?;
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
        self.judge_broadcast(ethernet.destination, !self.isolation)?;
        Ok(Verdict::Forward)
    }

    /// ARP and DHCP go to everybody or to the gateway, or to any station if it is `open`.
    fn judge_broadcast(&self, mac: Mac, open: bool) -> Result<(), DropReason> {
        if mac == Mac::BROADCAST || self.lease.is_gateway_mac(mac) {
            Ok(())
        } else if mac.is_multicast() {
            Err(DropReason::DestinationGroup)
        } else if open {
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

    fn dhcp(&mut self, slot: &mut [u8], len: usize, now: Seconds) -> Result<usize, DropReason> {
        let frame = slot.get(..len).ok_or(DropReason::DhcpMalformed)?;
        let (_, ip, message) = shape::dhcp(frame).ok_or(DropReason::DhcpMalformed)?;
        self.parties
            .check_request(&message, ip.source.get(), &self.lease)?;
        let given_back = match message.kind {
            dhcp::RELEASE => Some(message.header.client.get()),
            dhcp::DECLINE => message.requested,
            _ => None,
        };
        let len = self.guard.pass(&Noted::of(&message), slot, len, now)?;
        if let Some(address) = given_back {
            self.lease.give_up(address);
            // Before the server hears of it, and may give the address to another VM.
            self.claims.settle(&|| self.lease.address_at(now));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::{Seconds, leased_pair};

    /// The start of a TCP segment, from 192.168.64.2 to 1.2.3.4.
    #[rustfmt::skip]
    const SEGMENT: [u8; 54] = [
        2, 0, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 2, 8, 0,
        0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 192, 168, 64, 2, 1, 2, 3, 4,
        0xc0, 0, 1, 0xbb, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0,
    ];

    #[test]
    fn the_vm_speaks_for_itself_only() {
        let (filter, _) = leased_pair();
        let verdict = |at: usize, value: u8, second: u32| {
            let mut frame = SEGMENT;
            frame[at] = value;
            filter.check(&frame, Seconds(second))
        };
        assert_eq!(verdict(0, 2, 599), Verdict::Forward);
        assert_eq!(verdict(0, 2, 600), Verdict::Drop(DropReason::LeaseExpired));
        assert_eq!(verdict(5, 9, 0), Verdict::Drop(DropReason::DestinationMac));
        assert_eq!(verdict(11, 9, 0), Verdict::Drop(DropReason::SourceMac));
        assert_eq!(verdict(29, 9, 0), Verdict::Drop(DropReason::SourceAddress));
        assert_eq!(
            verdict(30, 10, 0),
            Verdict::Drop(DropReason::DestinationPrivate)
        );
    }

    #[test]
    fn every_cut_of_a_frame_has_a_verdict() {
        let (filter, _) = leased_pair();
        for len in 0..SEGMENT.len() {
            assert_ne!(
                filter.check(&SEGMENT[..len], Seconds(0)),
                Verdict::Forward,
                "{len}"
            );
        }
    }
}
