//! The two ends of the DHCP guard: they handle the requests and replies that have passed the rules.
//!
//! A request is counted, its names and its client identifier are rewritten, and its transaction is
//! opened. A reply must answer an open transaction, also in what it grants, and gets the VM's
//! identifier back. A message that is dropped here leaves no trace, except that it took a token. An
//! ACK that is dropped because another VM has the address (`dhcp-address-taken`) has still answered
//! its request, and the VM must ask again.
//!
//! softnet's own request is opened here too. Its answer goes to nobody else.

use std::hash::{BuildHasher, RandomState};
use std::net::Ipv4Addr;
use std::sync::Arc;

use arrayvec::ArrayVec;
use zerocopy::IntoBytes;

use super::identifier;
use super::names::NameRule;
use super::transactions::{
    Expected, IDENTIFIER_MAX, Open, OwnRequest, PendingRequest, Transactions,
};
use crate::batch::Slot;
use crate::clock::Tick;
use crate::filter::bucket::Bucket;
use crate::filter::roles::{NAME_SERVERS_MAX, NameServers};
use crate::filter::verdict::DropReason;
use crate::filter::{Claims, Config};
use crate::wire::Mac;
use crate::wire::dhcp::{self, Message, MessageType, Place};
use crate::wire::request::Request;

/// What is remembered of a message while its frame is rewritten.
#[derive(Debug)]
pub(in crate::filter) struct MessageSummary {
    pub(in crate::filter) kind: MessageType,
    xid: u32,
    /// Whether it is to or from the PXE port.
    is_boot: bool,
    is_rapid: bool,
    /// The address that a REQUEST asks for, or that a DISCOVER prefers (RFC 2131, table 4); zero
    /// for none.
    wanted: u32,
    /// The address that a reply grants or offers.
    pub(in crate::filter) granted: u32,
    /// In seconds.
    pub(in crate::filter) lease_time: Option<u32>,
    pub(in crate::filter) mask: Option<u32>,
    pub(in crate::filter) name_servers: NameServers,
    identifier: Option<(ArrayVec<u8, IDENTIFIER_MAX>, Place)>,
}

impl MessageSummary {
    pub(in crate::filter) fn of(message: &Message<'_>, is_boot: bool) -> Self {
        let header = message.header;
        Self {
            kind: message.kind,
            xid: header.xid.get(),
            is_boot,
            is_rapid: message.is_rapid,
            wanted: message.requested.unwrap_or_else(|| header.client.get()),
            granted: header.yours.get(),
            lease_time: message.lease_time,
            mask: message.mask,
            name_servers: message
                .name_servers
                .iter()
                .map(|server| server.get().into())
                .take(NAME_SERVERS_MAX)
                .filter(|server: &Ipv4Addr| !server.is_unspecified())
                .collect(),
            // An option has no more bytes than fit.
            identifier: message.identifier.and_then(|identifier| {
                let data = ArrayVec::try_from(identifier.data).ok()?;
                Some((data, identifier.place))
            }),
        }
    }

    /// What a request asks for. RELEASE and DECLINE ask for nothing, because they have no answer.
    fn expects(&self) -> Option<Expected> {
        Some(match self.kind {
            _ if self.is_boot => Expected::Boot,
            MessageType::Discover if self.is_rapid => Expected::OfferOrLease(self.wanted),
            MessageType::Discover => Expected::Offer,
            MessageType::Request => Expected::Lease(self.wanted),
            MessageType::Inform => Expected::Information,
            _ => return None,
        })
    }

    /// Whether a lease of this address survives this request.
    pub(in crate::filter) fn leaves(&self, address: u32) -> bool {
        self.expects()
            .is_none_or(|expected| expected.leaves(address))
    }
}

/// The outbound end.
#[derive(Debug)]
pub(in crate::filter) struct RequestGuard {
    vm: Mac,
    names: NameRule,
    messages: Bucket,
    declines: Bucket,
    transactions: Arc<Transactions>,
    /// When softnet may send its own request again.
    next_own_request: Tick,
    /// For the xids of softnet's own requests: a counter, and a secret that makes them
    /// unpredictable.
    own_requests: u64,
    secret: RandomState,
}

impl RequestGuard {
    pub(in crate::filter) fn new(config: &Config<'_>, transactions: Arc<Transactions>) -> Self {
        Self {
            vm: config.vm_mac,
            names: NameRule::new(config.names),
            messages: Bucket::new(MESSAGES_AT_ONCE, MESSAGE_INTERVAL),
            declines: Bucket::new(DECLINES_AT_ONCE, DECLINE_INTERVAL),
            transactions,
            next_own_request: Tick::ZERO,
            own_requests: 0,
            secret: RandomState::new(),
        }
    }

    /// Rewrites the request in the slot.
    pub(in crate::filter) fn pass(
        &mut self,
        request: &MessageSummary,
        slot: &mut Slot<'_>,
        max_frame: usize,
        now: Tick,
        claims: &dyn Claims,
    ) -> Result<(), DropReason> {
        let expected = request.expects();
        let is_ambiguous = |expected| {
            let open = self.transactions.lock();
            open.is_ambiguous(request.xid, expected, now)
        };
        if expected.is_some_and(is_ambiguous) {
            return Err(DropReason::DhcpTransaction);
        }
        let is_decline = request.kind == MessageType::Decline;
        if !self.messages.take(now) || is_decline && !self.declines.take(now) {
            return Err(DropReason::DhcpRate);
        }
        if let Some((own, place)) = &request.identifier {
            let option = (*place, own.len());
            let seen = dhcp::identifier_of(self.vm);
            identifier::replace(slot, max_frame, option, &seen)?;
        }
        self.names.apply(slot, claims)?;
        let mut open = self.transactions.lock();
        match expected {
            Some(expected) => open.open(PendingRequest {
                xid: request.xid,
                expected,
                identifier: (request.identifier.as_ref())
                    .map_or_else(ArrayVec::new, |(own, _)| own.clone()),
                since: now,
            }),
            // Earlier requests are void.
            None => open.give_back(now),
        }
        Ok(())
    }

    /// Whether softnet may send its own request now.
    pub(in crate::filter) fn may_ask(&self, now: Tick) -> bool {
        now >= self.next_own_request
    }

    /// Turns the frame in the slot into softnet's own request, which asks whether the VM has this
    /// address. Returns false, with the frame unchanged, if it is too early for that or the frame
    /// would be longer than `max_frame`.
    pub(in crate::filter) fn ask(
        &mut self,
        slot: &mut Slot<'_>,
        max_frame: usize,
        address: u32,
        now: Tick,
    ) -> bool {
        if !self.may_ask(now) || max_frame < Request::LEN {
            return false;
        }
        let (bytes, _) = slot.whole();
        let Some(frame) = bytes.get_mut(..Request::LEN) else {
            return false;
        };
        let own = |xid| OwnRequest {
            xid,
            address,
            since: now,
        };
        let is_open = (0..XIDS_MAX).find_map(|_| {
            let xid = self.new_xid();
            self.transactions.lock().ask(own(xid)).then_some(xid)
        });
        let Some(xid) = is_open else { return false };
        self.next_own_request = now.after(OWN_REQUEST_INTERVAL);
        frame.copy_from_slice(Request::reboot(self.vm, address.into(), xid).as_bytes());
        slot.set_len(Request::LEN);
        true
    }

    /// An xid that the VM cannot guess, so that it can neither disturb softnet's request nor use
    /// the answer.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "half of the hash is enough"
    )]
    fn new_xid(&mut self) -> u32 {
        self.own_requests = self.own_requests.wrapping_add(1);
        self.secret.hash_one(self.own_requests) as u32
    }
}

/// The inbound end.
#[derive(Debug)]
pub(in crate::filter) struct ReplyGuard {
    identifier: [u8; 7],
}

/// What kind of reply it is, if it is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::filter) enum Outcome {
    /// It is forwarded to the VM. Only a reply about its lease is learned from (RFC 2131, 4.3.5).
    ToTheVm { is_about_lease: bool },
    /// It answers softnet's own request.
    Own,
}

impl ReplyGuard {
    pub(in crate::filter) fn new(config: &Config<'_>) -> Self {
        Self {
            identifier: dhcp::identifier_of(config.vm_mac),
        }
    }

    /// Rewrites the reply in the slot if it answers an open request, and closes that request.
    pub(in crate::filter) fn pass(
        &self,
        reply: &MessageSummary,
        open: &mut Open,
        slot: &mut Slot<'_>,
        max_frame: usize,
        now: Tick,
    ) -> Result<Outcome, DropReason> {
        let own = open.own(reply.xid, now).filter(|_| !reply.is_boot);
        if let Some(own) = own {
            let expected = Expected::Lease(own.address);
            check_answer(reply, expected)?;
            self.check_identifier(reply)?;
            open.close_own();
            return Ok(Outcome::Own);
        }
        let pending = open.find(reply.xid, reply.is_boot, now);
        let pending = pending.ok_or(DropReason::DhcpTransaction)?;
        check_answer(reply, pending.expected)?;
        self.check_identifier(reply)?;
        if let Some((returned, place)) = &reply.identifier
            && !pending.identifier.is_empty()
        {
            let option = (*place, returned.len());
            identifier::replace(slot, max_frame, option, &pending.identifier)?;
        }
        let is_about_lease = !matches!(pending.expected, Expected::Information | Expected::Boot);
        if reply.kind != MessageType::Offer {
            open.close(reply.xid, reply.is_boot);
        }
        Ok(Outcome::ToTheVm { is_about_lease })
    }

    /// A server returns the identifier that it received, if any (RFC 6842).
    fn check_identifier(&self, reply: &MessageSummary) -> Result<(), DropReason> {
        match &reply.identifier {
            Some((returned, _)) if returned[..] != self.identifier => {
                Err(DropReason::DhcpClientIdentifier)
            }
            _ => Ok(()),
        }
    }
}

/// Checks that a reply is of the right type for the request, and grants what was asked for.
fn check_answer(reply: &MessageSummary, expected: Expected) -> Result<(), DropReason> {
    let grants_right = match (reply.kind, expected) {
        (MessageType::Offer, Expected::Offer | Expected::OfferOrLease(_))
        | (MessageType::Nak, Expected::Lease(_))
        | (MessageType::Offer | MessageType::Ack, Expected::Boot) => true,
        (MessageType::Ack, Expected::OfferOrLease(_)) if reply.is_rapid => true,
        (MessageType::Ack, Expected::Lease(wanted)) => reply.granted == wanted && wanted != 0,
        // RFC 2131, 4.3.5.
        (MessageType::Ack, Expected::Information) => {
            reply.granted == 0 && reply.lease_time.is_none()
        }
        _ => return Err(DropReason::DhcpTransaction),
    };
    grants_right
        .then_some(())
        .ok_or(DropReason::DhcpGrantedAddress)
}

/// A client sends a few messages in a row when it starts, first its firmware and then its system. A
/// client that gets no answer slows down by itself, to one a minute (RFC 2131, 4.1).
const MESSAGES_AT_ONCE: u32 = 32;
const MESSAGE_INTERVAL: u32 = Tick::PER_SECOND;

/// A server withholds a declined address from everybody (bootpd for ten minutes), so a VM could
/// empty the pool by declining one offer after another. A client that declines must wait ten
/// seconds (RFC 2131, 3.1), and rarely has a reason to do so twice.
const DECLINES_AT_ONCE: u32 = 4;
const DECLINE_INTERVAL: u32 = 60 * Tick::PER_SECOND;

/// Seconds between two of softnet's own requests: as long as a client waits before it asks again
/// (RFC 2131, 4.1).
const OWN_REQUEST_INTERVAL: u32 = 4;
/// How many xids are tried to find one that the VM does not use. The first one nearly always is.
const XIDS_MAX: usize = 4;
