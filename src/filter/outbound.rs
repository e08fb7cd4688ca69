//! The filter from the VM to the host: a frame must come from the VM itself, and may only go where
//! the rules allow.

use std::sync::Arc;

mod by_rules;
mod dhcp;

use by_rules::Opens;

use super::arp::ArpGuard;
use super::audit::{Audit, Auditor};
use super::bucket::Bucket;
use super::denied::Denied;
use super::dhcp::RequestGuard;
use super::lease::PackedLease;
use super::prefix::Destination;
use super::rules::View;
use super::subnet::group_mac;
use super::tracking::Tracker;
use super::validate::{self, Transport};
use super::verdict::{DropReason, Step, Verdict};
use super::{Config, Connections, Filter, Shared};
use crate::batch::Slot;
use crate::clock::Tick;
use crate::direction::Direction;
use crate::wire::answer::Answer;
use crate::wire::ethernet::{Ethernet, ethertype};
use crate::wire::ipv4::{Header, Plain, protocol};
use crate::wire::{Mac, arp, udp};

/// The filter of frames that leave the VM.
#[derive(Debug)]
pub struct Outbound {
    vm: Mac,
    now: Tick,
    view: View,
    tracker: Tracker,
    guard: RequestGuard,
    arp_guard: ArpGuard,
    /// The limit for new TCP connections, if there is one.
    connections: Option<Bucket>,
    /// The limit for answers to the VM.
    answers: Bucket,
    auditor: Auditor,
    shared: Shared,
}

impl Outbound {
    pub(super) fn new(config: &Config<'_>, view: View, shared: Shared) -> Self {
        Self {
            vm: config.vm_mac,
            now: Tick::ZERO,
            view,
            tracker: Tracker::new(Direction::Outbound, Arc::clone(&shared.flows)),
            guard: RequestGuard::new(config, Arc::clone(&shared.transactions)),
            arp_guard: ArpGuard::new(Arc::clone(&shared.unanswered)),
            connections: (config.connection_rate != 0)
                .then(|| Bucket::per_second(CONNECTIONS_AT_ONCE, config.connection_rate)),
            answers: Bucket::per_second(ANSWERS_A_SECOND, ANSWERS_A_SECOND),
            auditor: Auditor::new(Direction::Outbound),
            shared,
        }
    }

    /// From now on what the rules alone refuse passes, and is counted.
    pub fn audit(&mut self, audit: Arc<Audit>) {
        self.auditor.begin(audit);
    }

    /// The VM's connections.
    #[must_use]
    pub fn connections(&self) -> Connections {
        Connections {
            flows: Arc::clone(&self.shared.flows),
            lease: Arc::clone(&self.shared.lease),
        }
    }

    /// What the policy denies, in both directions.
    #[must_use]
    pub fn denied(&self) -> Arc<Denied> {
        Arc::clone(&self.shared.denied)
    }

    /// Checks are ordered by cost: one pass over the headers suffices for a TCP frame with a valid
    /// lease and a destination that the table passes. Only a frame that fails there is checked for
    /// exceptions.
    #[inline]
    fn headers(&self, frame: &[u8]) -> Result<Step, DropReason> {
        let (ethernet, carried) = validate::ethernet(frame, self.view.roles().max_frame)?;
        if ethernet.source != self.vm {
            return Err(DropReason::SourceMac);
        }
        match ethernet.ethertype.get() {
            ethertype::IPV4 => match validate::plain(carried) {
                Some((plain, transport)) => {
                    self.ipv4::<false>(ethernet, &plain.header, Some(plain), transport)
                }
                None => self.other_ipv4(ethernet, carried),
            },
            ethertype::ARP => self.arp(ethernet, carried),
            other => Err(validate::foreign_ethertype(other)),
        }
    }

    #[cold]
    #[inline(never)]
    fn other_ipv4(&self, ethernet: &Ethernet, carried: &[u8]) -> Result<Step, DropReason> {
        let (header, transport) = validate::other_ipv4(carried)?;
        self.ipv4::<true>(ethernet, header, None, transport)
    }

    /// Compiled twice, so that the checks of rare kinds of packets cost the others nothing.
    #[inline(always)]
    fn ipv4<const RARE: bool>(
        &self,
        ethernet: &Ethernet,
        header: &Header,
        plain: Option<&Plain>,
        transport: Transport,
    ) -> Result<Step, DropReason> {
        let destination = header.destination.get();
        match transport {
            Transport::Udp(port, udp::DHCP_SERVER) => {
                return self.dhcp_port(ethernet, destination, port);
            }
            Transport::Udp(udp::DHCP_CLIENT, udp::PXE)
                if destination == self.view.roles().gateway.address =>
            {
                return self.boot_port(ethernet, header, transport);
            }
            Transport::Udp(_, udp::DHCP_CLIENT) => return Err(DropReason::DhcpRole),
            Transport::Trailed => return Ok(Step::Trailer),
            _ => {}
        }
        self.ordinary::<RARE>(ethernet, header, plain, transport)
    }

    /// Judges by the lease and the rules.
    #[inline(always)]
    fn ordinary<const RARE: bool>(
        &self,
        ethernet: &Ethernet,
        header: &Header,
        plain: Option<&Plain>,
        transport: Transport,
    ) -> Result<Step, DropReason> {
        let (source, destination) = (header.source.get(), header.destination.get());
        let lease = self.shared.lease.packed();
        if source != lease.address() || !lease.is_valid(self.now) {
            return self.unleased(lease, source, why_not_from(lease, source));
        }
        if RARE
            && let Transport::IcmpError(quote) = transport
            && (quote.destination != lease.address() || quote.source != destination)
        {
            return Err(DropReason::IcmpQuote);
        }
        let verdict = self.view.rules().outbound.table.get(destination);
        if verdict != Destination::Pass {
            return self.undecided::<RARE>(ethernet, header, plain, transport, verdict);
        }
        self.rest::<RARE>(ethernet, header, transport)
    }

    /// The remaining checks of a packet that the rules let pass.
    #[inline(always)]
    fn rest<const RARE: bool>(
        &self,
        ethernet: &Ethernet,
        header: &Header,
        transport: Transport,
    ) -> Result<Step, DropReason> {
        let destination = header.destination.get();
        if RARE && transport == Transport::Other && !self.may_reach(destination, header.protocol) {
            return Err(DropReason::GatewayProtocol);
        }
        if !self.view.roles().router().has_mac(ethernet.destination) {
            self.destination_mac(ethernet.destination, destination)?;
        }
        Ok(match transport {
            Transport::Tcp { opens: true, .. } => Step::Connection,
            Transport::OpeningFragment if RARE => Step::Connection,
            _ => Step::Done(Verdict::Forward),
        })
    }

    /// A host's kernel itself takes part in tunnels and routing, at each of its addresses, even
    /// where no service listens.
    fn may_reach(&self, address: u32, protocol: u8) -> bool {
        let closed = &self.view.rules().closed_to_protocols;
        matches!(protocol, protocol::TCP | protocol::UDP | protocol::ICMP)
            || closed.binary_search(&address).is_err()
    }

    /// Frames to the gateway have already passed (RFC 7039 protects a host's neighbours in this
    /// way). A group must be one that a rule allows, or else the table would have dropped it.
    #[cold]
    fn destination_mac(&self, mac: Mac, address: u32) -> Result<(), DropReason> {
        if mac.is_multicast() {
            match group_mac(address, self.view.roles().subnet) {
                Some(group) if group == mac => Ok(()),
                _ => Err(DropReason::DestinationGroup),
            }
        } else if self.view.roles().isolation {
            Err(DropReason::DestinationMac)
        } else {
            Ok(())
        }
    }

    /// ARP may only speak for the VM's address.
    #[cold]
    fn arp(&self, ethernet: &Ethernet, carried: &[u8]) -> Result<Step, DropReason> {
        let arp = validate::arp(ethernet, carried)?;
        let lease = self.shared.lease.packed();
        let (sender, target) = (arp.sender.get(), arp.target.get());
        if sender == 0 {
            // A probe asks whether an address is free (RFC 5227).
            let is_leased = target == lease.address() && lease.is_valid(self.now);
            let may_probe =
                target != 0 && (is_leased || target == self.shared.lease.offered(self.now));
            if !may_probe || arp.operation.get() != arp::REQUEST {
                return Err(DropReason::ArpProbe);
            }
        } else if sender != lease.address() || !lease.is_valid(self.now) {
            return self.unleased(lease, sender, DropReason::ArpSenderAddress);
        }
        self.broadcast(ethernet.destination, !self.view.roles().isolation)?;
        Ok(if validate::is_trailed(carried) {
            Step::Trailer
        } else {
            Step::Arp
        })
    }

    /// ARP and DHCP may be broadcast or go to the gateway, or to any station if `open`.
    fn broadcast(&self, mac: Mac, open: bool) -> Result<(), DropReason> {
        if mac == Mac::BROADCAST || self.view.roles().gateway.has_mac(mac) {
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

impl Outbound {
    /// Limits new connections: each takes an entry in the host's NAT, which others need too.
    fn open_connection(&mut self) -> Result<(), DropReason> {
        let now = self.now;
        let connections = self.connections.as_mut();
        let may_open = connections.is_none_or(|bucket| bucket.take(now));
        may_open.then_some(()).ok_or(DropReason::ConnectionRate)
    }
}

impl Filter for Outbound {
    fn begin(&mut self, now: Tick) {
        self.now = now;
        self.view.refresh();
        if self.view.rules().inbound.is_some() {
            self.tracker.sweep(now);
        }
    }

    #[inline]
    fn judge(&mut self, frame: &[u8]) -> Step {
        self.headers(frame)
            .unwrap_or_else(|reason| Step::Done(Verdict::Drop(reason)))
    }

    fn dropped(&mut self, frame: &[u8], reason: DropReason) {
        let denied = &self.shared.denied;
        denied.record(Direction::Outbound, frame, reason, self.now);
    }

    /// The VM is told what its policy refuses, but nothing about frames that it may not send at all,
    /// nor about those that go elsewhere than to the router.
    fn answer(&mut self, frame: &[u8], reason: DropReason) -> Option<Answer> {
        let (ethernet, _) = Ethernet::split(frame)?;
        let roles = self.view.roles();
        if !reason.is_policy() || !roles.router().has_mac(ethernet.destination) {
            return None;
        }
        let answer = Answer::to(frame, roles.gateway.address.into())?;
        self.answers.take(self.now).then_some(answer)
    }

    fn examine(&mut self, slot: &mut Slot<'_>, why: Step) -> Result<(), DropReason> {
        match why {
            Step::Dhcp => self.request(slot, false),
            Step::Boot => {
                self.by_rules(slot.frame())?;
                self.request(slot, true)
            }
            Step::Rules => match self.by_rules(slot.frame())? {
                Opens::Connection => self.open_connection(),
                Opens::Nothing => Ok(()),
            },
            Step::Unleased => {
                let named = self.named(slot.frame()).ok_or(DropReason::Ipv4Malformed);
                named.and_then(|(address, reason)| self.ask(slot, address, reason))
            }
            Step::Arp => self.arp_guard.pass(slot, self.view.roles(), self.now),
            Step::Connection => self.open_connection(),
            Step::Done(_) | Step::Trailer => Err(DropReason::Ipv4Malformed),
        }
    }
}

/// Why no packet may come from this address.
#[cold]
fn why_not_from(lease: PackedLease, source: u32) -> DropReason {
    if lease.address() == 0 {
        DropReason::NoLease
    } else if source == lease.address() {
        DropReason::LeaseExpired
    } else {
        DropReason::SourceAddress
    }
}

/// As many as a client that scans for a way out needs, and too few to keep a VM's cores busy.
const ANSWERS_A_SECOND: u32 = 100;

/// How many connections may be opened before the rate applies. A browser or a parallel build opens
/// far fewer at once.
const CONNECTIONS_AT_ONCE: u32 = 8192;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::filter::leased_pair;

    /// The start of a TCP segment, from 192.168.64.2 to 1.2.3.4.
    #[rustfmt::skip]
    const SEGMENT: [u8; 54] = [
        2, 0, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 2, 8, 0,
        0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 192, 168, 64, 2, 1, 2, 3, 4,
        0xc0, 0, 1, 0xbb, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0,
    ];

    #[test]
    fn the_vm_speaks_for_itself_only() {
        let (mut filter, _) = leased_pair();
        let mut step = |at: usize, value: u8, second: u32| {
            let mut frame = SEGMENT;
            frame[at] = value;
            filter.begin(Tick::from_secs(second));
            filter.judge(&frame)
        };
        // Its lease has expired, so softnet may ask about it.
        assert_eq!(step(0, 2, 600), Step::Unleased);
        let mut verdict = |at, value, second| match step(at, value, second) {
            Step::Done(verdict) => verdict,
            _ => panic!("TCP takes no inspection"),
        };
        assert_eq!(verdict(0, 2, 599), Verdict::Forward);
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
        let (mut filter, _) = leased_pair();
        for len in 0..SEGMENT.len() {
            let step = filter.judge(&SEGMENT[..len]);
            assert_ne!(step, Step::Done(Verdict::Forward), "{len}");
        }
    }

    /// The inbound thread binds the lease between the two checks. The frame's destination has not
    /// been checked, so it must not pass.
    #[test]
    fn a_lease_that_comes_between_the_two_looks_opens_nothing() {
        let (mut filter, _) = leased_pair();
        let mut frame = SEGMENT;
        // To 10.2.3.4, opening a connection.
        (frame[30], frame[47]) = (10, 2);
        filter.begin(Tick::from_secs(600));
        let why = filter.judge(&frame);
        assert_eq!(why, Step::Unleased);
        let lease = crate::filter::Lease {
            address: Ipv4Addr::new(192, 168, 64, 2),
            expires: Tick::from_secs(1200),
        };
        filter.shared.lease.bind(&lease, Tick::from_secs(600));
        let mut len = 54;
        let verdict = filter.inspect(&mut Slot::new(&mut frame, &mut len), why);
        assert_eq!(verdict, Verdict::Drop(DropReason::LeaseExpired));
        let step = filter.judge(&frame);
        assert_eq!(
            step,
            Step::Done(Verdict::Drop(DropReason::DestinationPrivate))
        );
    }
}
