//! The filter from the host to the VM: checks that a frame is for the VM and that its sender may
//! send it. Learns the lease.

use std::sync::Arc;

mod by_rules;
mod dhcp;

use super::audit::{Audit, Auditor};
use super::dhcp::ReplyGuard;
use super::policy::{Kind, Mode};
use super::prefix::Destination;
use super::rules::{Rules, View};
use super::subnet::group_mac;
use super::tracking::Tracker;
use super::validate::{self, Transport};
use super::verdict::{DropReason, Step, Verdict};
use super::{Config, Filter, Shared};
use crate::batch::Slot;
use crate::clock::Tick;
use crate::direction::Direction;
use crate::wire::ethernet::{Ethernet, ethertype};
use crate::wire::ipv4::{Header, Plain};
use crate::wire::{Mac, arp, icmp, udp};

/// The filter of frames to the VM.
#[derive(Debug)]
pub struct Inbound {
    vm: Mac,
    now: Tick,
    /// Whether the gateway's MAC is learned from its replies, because the system did not give it.
    pins_gateway: bool,
    /// Through which is set what a grant says about the network.
    rules: Arc<Rules>,
    view: View,
    tracker: Tracker,
    /// Whether there is more to check than in most VMs: in host-only mode, or when connections are
    /// tracked.
    is_strict: bool,
    guard: ReplyGuard,
    auditor: Auditor,
    shared: Shared,
}

impl Inbound {
    pub(super) fn new(config: &Config<'_>, rules: Arc<Rules>, shared: Shared) -> Self {
        Self {
            vm: config.vm_mac,
            now: Tick::ZERO,
            pins_gateway: config.gateway_mac.is_none(),
            view: rules.view(),
            rules,
            tracker: Tracker::new(Direction::Inbound, Arc::clone(&shared.flows)),
            is_strict: true,
            guard: ReplyGuard::new(config),
            auditor: Auditor::new(Direction::Inbound),
            shared,
        }
    }

    /// From now on what the rules alone refuse passes, and is counted.
    pub fn audit(&mut self, audit: Arc<Audit>) {
        self.auditor.begin(audit);
    }

    #[inline]
    fn headers(&self, frame: &[u8]) -> Result<Step, DropReason> {
        let (ethernet, carried) = validate::ethernet(frame, self.view.roles().max_frame)?;
        if ethernet.source.is_multicast() || ethernet.source == self.vm {
            return Err(DropReason::SourceMac);
        }
        if ethernet.destination != self.vm && !ethernet.destination.is_multicast() {
            return Err(DropReason::DestinationMac);
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

    /// Compiled twice, like the outbound one.
    #[inline(always)]
    fn ipv4<const RARE: bool>(
        &self,
        ethernet: &Ethernet,
        header: &Header,
        plain: Option<&Plain>,
        transport: Transport,
    ) -> Result<Step, DropReason> {
        let (source, destination) = (header.source.get(), header.destination.get());
        match transport {
            Transport::Udp(port, udp::DHCP_CLIENT) => {
                return self.dhcp_port(ethernet, source, port);
            }
            Transport::Udp(_, udp::DHCP_SERVER) => return Err(DropReason::DhcpRole),
            Transport::Icmp(icmp::TIMESTAMP) => return Err(DropReason::IcmpType),
            Transport::Trailed => return Ok(Step::Trailer),
            _ => {}
        }
        let lease = self.shared.lease.packed();
        if !lease.is_valid(self.now) {
            return Err(match lease.address() {
                0 => DropReason::NoLease,
                _ => DropReason::LeaseExpired,
            });
        }
        if source == lease.address() {
            return Err(DropReason::SourceAddress);
        }
        if RARE
            && let Transport::IcmpError(quote) = transport
            && quote.source != lease.address()
        {
            return Err(DropReason::IcmpQuote);
        }
        let is_for_vm = destination == lease.address() && ethernet.destination == self.vm;
        if self.is_strict || !is_for_vm {
            return self.strict(ethernet, header, plain, is_for_vm);
        }
        self.isolated(ethernet, source)?;
        Ok(Step::Done(Verdict::Forward))
    }

    /// The remaining checks in host-only mode, when connections are tracked, and of a packet that is
    /// not for the VM alone. On its own, so that the other packets need not keep what it takes.
    #[inline(never)]
    fn strict(
        &self,
        ethernet: &Ethernet,
        header: &Header,
        plain: Option<&Plain>,
        is_for_vm: bool,
    ) -> Result<Step, DropReason> {
        let (source, roles) = (header.source.get(), self.view.roles());
        if !is_for_vm {
            self.group(ethernet.destination, header.destination.get())?;
        }
        if roles.mode == Mode::Host && source != roles.gateway.address {
            return Err(DropReason::HostOnly);
        }
        self.isolated(ethernet, source)?;
        if self.view.rules().inbound.is_none()
            || plain.is_some_and(|plain| {
                self.tracker
                    .goes_on(Direction::Inbound, plain, &self.context())
            })
        {
            return Ok(Step::Done(Verdict::Forward));
        }
        Ok(Step::Rules)
    }

    #[inline(always)]
    fn isolated(&self, ethernet: &Ethernet, source: u32) -> Result<(), DropReason> {
        if self.view.roles().isolation && !self.comes_through_gateway(ethernet.source, source) {
            return Err(DropReason::Isolation);
        }
        Ok(())
    }

    /// With isolation only the gateway may send, for itself and for the networks behind it.
    #[inline]
    fn comes_through_gateway(&self, mac: Mac, source: u32) -> bool {
        let roles = self.view.roles();
        roles.router().has_mac(mac) && !roles.is_neighbour(source)
    }

    /// Not for the VM alone: broadcast, or for a group that a rule allows.
    #[cold]
    fn group(&self, mac: Mac, address: u32) -> Result<(), DropReason> {
        let Some(group) = group_mac(address, self.view.roles().subnet) else {
            return Err(if mac == self.vm {
                DropReason::DestinationAddress
            } else {
                DropReason::DestinationGroup
            });
        };
        let rules = &self.view.rules().outbound;
        let mut verdict = rules.table.get(address);
        if verdict == Destination::NeedsMore {
            // If a rule allows a group, the VM receives everything sent to it; the rule may also
            // name more than the address.
            verdict = rules.verdict_for_packet(address, Kind::Other, None);
        }
        if group == mac && (group == Mac::BROADCAST || verdict.refusal().is_none()) {
            Ok(())
        } else {
            Err(DropReason::DestinationGroup)
        }
    }

    /// Inspects ARP: only the gateway may claim the gateway's address, and only the VM the VM's.
    #[cold]
    fn arp(&self, ethernet: &Ethernet, carried: &[u8]) -> Result<Step, DropReason> {
        let message = validate::arp(ethernet, carried)?;
        let sender = message.sender.get();
        let gateway = self.view.roles().gateway;
        let is_gateway_mac = gateway.has_mac(ethernet.source);
        if ethernet.destination.is_multicast() && ethernet.destination != Mac::BROADCAST {
            return Err(DropReason::DestinationGroup);
        }
        if sender != 0 && sender == self.shared.lease.packed().address() {
            return Err(DropReason::ArpSenderAddress);
        }
        if sender == gateway.address && !is_gateway_mac {
            return Err(DropReason::ArpGateway);
        }
        if self.view.roles().isolation && !is_gateway_mac {
            return Err(DropReason::Isolation);
        }
        if validate::is_trailed(carried) {
            return Ok(Step::Trailer);
        }
        if sender == gateway.address && message.operation.get() == arp::REPLY {
            self.shared.unanswered.answered();
        }
        Ok(Step::Done(Verdict::Forward))
    }
}

impl Filter for Inbound {
    fn begin(&mut self, now: Tick) {
        self.now = now;
        self.view.refresh();
        let is_tracked = self.view.rules().inbound.is_some();
        self.is_strict = is_tracked || self.view.roles().mode == Mode::Host;
    }

    #[inline]
    fn judge(&mut self, frame: &[u8]) -> Step {
        self.headers(frame)
            .unwrap_or_else(|reason| Step::Done(Verdict::Drop(reason)))
    }

    fn dropped(&mut self, frame: &[u8], reason: DropReason) {
        let denied = &self.shared.denied;
        denied.record(Direction::Inbound, frame, reason, self.now);
    }

    fn examine(&mut self, slot: &mut Slot<'_>, why: Step) -> Result<(), DropReason> {
        match why {
            Step::Rules => self.by_rules(slot.frame()),
            _ => self.reply(slot),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::leased_pair;

    /// The start of a TCP segment, from 1.2.3.4 to 192.168.64.2.
    #[rustfmt::skip]
    const SEGMENT: [u8; 54] = [
        0x52, 0x54, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0,
        0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 1, 2, 3, 4, 192, 168, 64, 2,
        0xc0, 0, 1, 0xbb, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0,
    ];

    #[test]
    fn the_gateway_alone_speaks_to_the_vm() {
        let (_, mut filter) = leased_pair();
        let mut verdict = |at: usize, value: u8, second: u32| {
            let mut frame = SEGMENT;
            frame[at] = value;
            filter.begin(Tick::from_secs(second));
            let Step::Done(verdict) = filter.judge(&frame) else {
                panic!("TCP takes no inspection");
            };
            verdict
        };
        assert_eq!(verdict(0, 0x52, 599), Verdict::Forward);
        assert_eq!(
            verdict(0, 0x52, 600),
            Verdict::Drop(DropReason::LeaseExpired)
        );
        assert_eq!(verdict(5, 9, 0), Verdict::Drop(DropReason::DestinationMac));
        assert_eq!(verdict(11, 9, 0), Verdict::Drop(DropReason::Isolation));
        assert_eq!(
            verdict(33, 9, 0),
            Verdict::Drop(DropReason::DestinationAddress)
        );
    }

    #[test]
    fn every_cut_of_a_frame_has_a_verdict() {
        let (_, mut filter) = leased_pair();
        for len in 0..SEGMENT.len() {
            let step = filter.judge(&SEGMENT[..len]);
            assert_ne!(step, Step::Done(Verdict::Forward), "{len}");
        }
    }
}
