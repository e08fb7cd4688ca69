//! The filter from the host to the VM: checks that a frame is for the VM and that its sender may
//! send it. Learns the lease.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::arp::Unanswered;
use super::claims::Claims;
use super::dhcp::{MessageSummary, Outcome, Parties, ReplyGuard, Transactions};
use super::facts;
use super::flows::{Context, Flows};
use super::lease::{Lease, LeaseCell, NAME_SERVERS_MAX};
use super::policy::{Kind, Mode};
use super::prefix::Destination;
use super::rules::{Rules, View};
use super::subnet::{Subnet, group_mac};
use super::tracking::Tracker;
use super::validate::{self, Transport};
use super::verdict::{DropReason, Step, Verdict};
use super::{Config, Filter};
use crate::batch::Slot;
use crate::clock::Tick;
use crate::direction::Direction;
use crate::wire::dhcp::{self, Message};
use crate::wire::ethernet::{Ethernet, ethertype};
use crate::wire::ipv4::Header;
use crate::wire::{Mac, arp, icmp, udp};

/// The filter of frames to the VM.
#[derive(Debug)]
pub struct Inbound {
    now: Tick,
    parties: Parties,
    mode: Mode,
    isolation: bool,
    /// Whether the gateway's MAC is learned from its replies, because the system did not give it.
    pins_gateway: bool,
    max_frame: usize,
    /// Through which the network is set once it is learned.
    handle: Arc<Rules>,
    rules: View,
    tracker: Tracker,
    /// The result for a packet whose headers are right: if connections are tracked, it must be
    /// inspected by the rules.
    ordinary: Step,
    lease: Arc<LeaseCell>,
    guard: ReplyGuard,
    transactions: Arc<Transactions>,
    claims: Arc<dyn Claims>,
    unanswered: Arc<Unanswered>,
}

impl Inbound {
    pub(super) fn new(
        config: &Config<'_>,
        rules: Arc<Rules>,
        flows: Arc<Flows>,
        lease: Arc<LeaseCell>,
        transactions: Arc<Transactions>,
        claims: Arc<dyn Claims>,
        unanswered: Arc<Unanswered>,
    ) -> Self {
        Self {
            now: Tick::ZERO,
            parties: Parties::new(config),
            mode: config.mode,
            isolation: config.isolation || config.mode == Mode::Host,
            pins_gateway: config.gateway_mac.is_none(),
            max_frame: config.max_frame,
            rules: rules.view(),
            tracker: Tracker::new(Direction::Inbound, flows),
            ordinary: Step::Done(Verdict::Forward),
            handle: rules,
            lease,
            guard: ReplyGuard::new(config),
            transactions,
            claims,
            unanswered,
        }
    }

    #[inline]
    fn headers(&self, frame: &[u8]) -> Result<Step, DropReason> {
        let (ethernet, carried) = validate::ethernet(frame, self.max_frame)?;
        if ethernet.source.is_multicast() || ethernet.source == self.parties.vm {
            return Err(DropReason::SourceMac);
        }
        if ethernet.destination != self.parties.vm && !ethernet.destination.is_multicast() {
            return Err(DropReason::DestinationMac);
        }
        match ethernet.ethertype.get() {
            ethertype::IPV4 => match validate::plain(carried) {
                Some((header, transport)) => self.ipv4::<false>(ethernet, header, transport),
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
        self.ipv4::<true>(ethernet, header, transport)
    }

    /// Compiled twice, like the outbound one.
    #[inline(always)]
    fn ipv4<const RARE: bool>(
        &self,
        ethernet: &Ethernet,
        header: &Header,
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
        let lease = self.lease.packed();
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
        if destination != lease.address() || ethernet.destination != self.parties.vm {
            self.group(ethernet.destination, destination)?;
        }
        if self.mode == Mode::Host && source != self.parties.gateway {
            return Err(DropReason::HostOnly);
        }
        if self.isolation && !self.comes_through_gateway(ethernet.source, source) {
            return Err(DropReason::Isolation);
        }
        Ok(self.ordinary)
    }

    /// With isolation only the gateway may send, for itself and for the networks behind it.
    #[inline]
    fn comes_through_gateway(&self, mac: Mac, source: u32) -> bool {
        let (gateway, subnet) = (self.parties.gateway, self.parties.subnet);
        let is_neighbour = source != gateway && subnet.is_some_and(|net| net.contains(source));
        self.lease.is_gateway_mac(mac) && !is_neighbour
    }

    /// Not for the VM alone: broadcast, or for a group that a rule allows.
    #[cold]
    fn group(&self, mac: Mac, address: u32) -> Result<(), DropReason> {
        let Some(group) = group_mac(address, self.parties.subnet) else {
            return Err(if mac == self.parties.vm {
                DropReason::DestinationAddress
            } else {
                DropReason::DestinationGroup
            });
        };
        let rules = &self.rules.snapshot().outbound;
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

    /// To port 68. The message itself needs inspection.
    #[cold]
    fn dhcp_port(
        &self,
        ethernet: &Ethernet,
        source: u32,
        source_port: u16,
    ) -> Result<Step, DropReason> {
        if !matches!(source_port, udp::DHCP_SERVER | udp::PXE) {
            return Err(DropReason::DhcpRole);
        }
        if ethernet.destination != self.parties.vm && ethernet.destination != Mac::BROADCAST {
            return Err(DropReason::DestinationGroup);
        }
        // A learned MAC is valid as long as the lease, so that a gateway which has been recreated
        // meanwhile can grant the next one.
        let may_be_new = self.pins_gateway && !self.lease.packed().is_valid(self.now);
        let is_gateway = may_be_new || self.lease.is_gateway_mac(ethernet.source);
        if source == self.parties.gateway && is_gateway {
            Ok(match source_port {
                udp::PXE => Step::Boot,
                _ => Step::Dhcp,
            })
        } else {
            Err(DropReason::DhcpRogueServer)
        }
    }

    /// Inspects ARP: only the gateway may claim the gateway's address, and only the VM the VM's.
    #[cold]
    fn arp(&self, ethernet: &Ethernet, carried: &[u8]) -> Result<Step, DropReason> {
        let message = validate::arp(ethernet, carried)?;
        let sender = message.sender.get();
        let is_gateway_mac = self.lease.is_gateway_mac(ethernet.source);
        if ethernet.destination.is_multicast() && ethernet.destination != Mac::BROADCAST {
            return Err(DropReason::DestinationGroup);
        }
        if sender != 0 && sender == self.lease.packed().address() {
            return Err(DropReason::ArpSenderAddress);
        }
        if sender == self.parties.gateway && !is_gateway_mac {
            return Err(DropReason::ArpGateway);
        }
        if self.isolation && !is_gateway_mac {
            return Err(DropReason::Isolation);
        }
        if validate::is_trailed(carried) {
            return Ok(Step::Trailer);
        }
        if sender == self.parties.gateway && message.operation.get() == arp::REPLY {
            self.unanswered.answered();
        }
        Ok(Step::Done(Verdict::Forward))
    }

    /// Learns from a reply to the VM what the server granted or revoked.
    ///
    /// # Errors
    /// If the address that it grants is another VM's.
    fn learn(&mut self, ethernet: Mac, message: &Message<'_>) -> Result<(), DropReason> {
        match message.kind {
            dhcp::OFFER => self.lease.set_offered(message.header.yours.get(), self.now),
            dhcp::NAK => {
                self.lease.clear();
                self.lease.forget_offered();
                self.claims
                    .release_stale(&|| self.lease.address_at(self.now));
            }
            _ => self.bind(ethernet, message)?,
        }
        Ok(())
    }

    /// Binds the lease that an ACK grants. Without a lease time it grants nothing.
    ///
    /// # Errors
    /// If the address is another VM's.
    fn bind(&mut self, ethernet: Mac, message: &Message<'_>) -> Result<(), DropReason> {
        let address = message.header.yours.get();
        let Some(time) = message.lease_time.filter(|_| address != 0) else {
            return Ok(());
        };
        let lease = Lease {
            address: address.into(),
            expires: self.now.after(time),
            name_servers: message
                .name_servers
                .iter()
                .map(|server| Ipv4Addr::from(server.get()))
                .take(NAME_SERVERS_MAX)
                .collect(),
        };
        let mut bind = || {
            if self.pins_gateway {
                self.lease.set_gateway_mac(ethernet);
            }
            let Parties {
                gateway, subnet, ..
            } = &mut self.parties;
            // Before the lease, because nothing leaves until there is one.
            if subnet.is_none()
                && let Some(learned) = subnet_of(address, *gateway, message.mask)
            {
                *subnet = Some(learned);
                self.handle.set_subnet(learned.net());
            }
            self.handle.set_name_servers(&lease.name_servers);
            self.lease.bind(&lease);
        };
        if self.claims.claim(lease.address, &mut bind) {
            Ok(())
        } else {
            Err(DropReason::DhcpAddressTaken)
        }
    }
}

impl Inbound {
    /// When connections are tracked: judges a packet by the rules and by the VM's own connections.
    fn by_rules(&self, frame: &[u8]) -> Result<(), DropReason> {
        let (_, carried) = Ethernet::split(frame).ok_or(DropReason::Runt)?;
        let rules = self.rules.snapshot();
        let Some(inbound) = &rules.inbound else {
            return Ok(());
        };
        let context = Context {
            policy: rules.number,
            lease: self.lease.packed().address(),
            now: self.now,
        };
        if self.tracker.known(carried, context).is_some() {
            return Ok(());
        }
        let facts = facts::of(carried, Direction::Inbound).ok_or(DropReason::Ipv4Malformed)?;
        self.tracker.judge(&facts, context, |way| match way {
            // Of a connection that the VM has opened, which a new policy is asked about.
            Direction::Outbound => {
                let said = rules
                    .outbound
                    .verdict_for_packet(facts.peer, facts.kind, facts.ports);
                self.lease.allow_name_server(said, facts.peer, facts.is_dns)
            }
            Direction::Inbound => inbound.verdict_for_packet(facts.peer, facts.kind, facts.ports),
        })
    }

    /// Inspects DHCP. A reply to the VM must answer its request, and gets the VM's own identifier
    /// back. A reply to softnet's own request ends here. Learns the lease.
    fn reply(&mut self, slot: &mut Slot<'_>) -> Result<(), DropReason> {
        let validate::Dhcp { udp, message, .. } =
            validate::dhcp(slot.frame()).ok_or(DropReason::DhcpMalformed)?;
        let is_boot = udp.source.get() == udp::PXE;
        let leased = self.lease.packed();
        self.parties
            .check_reply(&message, is_boot, leased.address())?;
        let summary = MessageSummary::of(&message, is_boot);
        // Locked until the lease is bound, so that the VM gives it back either before that or after
        // it.
        let transactions = Arc::clone(&self.transactions);
        let mut open = transactions.lock();
        let outcome = self.guard.pass(&summary, &mut open, slot, self.now)?;
        // Parsed again, because it may have been rewritten.
        let validate::Dhcp {
            ethernet, message, ..
        } = validate::dhcp(slot.frame()).ok_or(DropReason::DhcpMalformed)?;
        match outcome {
            Outcome::ToTheVm { is_about_lease } => {
                if is_about_lease {
                    self.learn(ethernet.source, &message)?;
                }
                Ok(())
            }
            Outcome::Own => {
                // If the VM has been granted a lease meanwhile, that is what it asked for itself;
                // and a NAK is about an address that it does not have.
                if message.kind == dhcp::ACK && !self.lease.packed().is_valid(self.now) {
                    self.bind(ethernet.source, &message)?;
                }
                Err(DropReason::DhcpOwnAnswer)
            }
        }
    }
}

impl Filter for Inbound {
    fn begin(&mut self, now: Tick) {
        self.now = now;
        self.rules.refresh();
        self.ordinary = match self.rules.snapshot().inbound {
            Some(_) => Step::Rules,
            None => Step::Done(Verdict::Forward),
        };
    }

    #[inline]
    fn judge(&mut self, frame: &[u8]) -> Step {
        self.headers(frame)
            .unwrap_or_else(|reason| Step::Done(Verdict::Drop(reason)))
    }

    fn examine(&mut self, slot: &mut Slot<'_>, why: Step) -> Result<(), DropReason> {
        match why {
            Step::Rules => self.by_rules(slot.frame()),
            _ => self.reply(slot),
        }
    }
}

/// The network that contains a granted address and the gateway, if the mask says so.
fn subnet_of(address: u32, gateway: u32, mask: Option<u32>) -> Option<Subnet> {
    Subnet::of(gateway, mask?).filter(|subnet| subnet.contains(address))
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
