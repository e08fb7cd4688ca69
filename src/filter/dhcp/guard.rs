//! The two ends of the DHCP guard: what becomes of a request that agrees with the rules, and
//! of a reply that does.
//!
//! A request is counted, its identifier rewritten, and its transaction opened. A reply must
//! answer an open one, and gets the VM's identifier back. Of a message that is dropped here
//! nothing is remembered, but that it took a token. An ACK that passes here and is dropped
//! since another VM has the address (`dhcp-address-taken`) has answered its request all the
//! same: the VM asks again.

use std::sync::Arc;

use arrayvec::ArrayVec;

use super::identifier;
use super::transactions::{Asked, Generation, IDENTIFIER_MAX, Transactions};
use crate::batch::Slot;
use crate::clock::Tick;
use crate::filter::Config;
use crate::filter::bucket::Bucket;
use crate::filter::verdict::DropReason;
use crate::wire::dhcp::{self, Message, Place};

/// What is kept of a message while its frame is rewritten.
#[derive(Debug)]
pub(in crate::filter) struct Noted {
    kind: u8,
    xid: u32,
    is_rapid: bool,
    identifier: Option<(ArrayVec<u8, IDENTIFIER_MAX>, Place)>,
}

impl Noted {
    pub(in crate::filter) fn of(message: &Message<'_>) -> Self {
        Self {
            kind: message.kind,
            xid: message.header.xid.get(),
            is_rapid: message.is_rapid,
            identifier: message.identifier.map(|identifier| {
                let data = identifier.data.iter().copied();
                (data.take(IDENTIFIER_MAX).collect(), identifier.place)
            }),
        }
    }
}

/// The outbound end.
#[derive(Debug)]
pub(in crate::filter) struct RequestGuard {
    identifier: [u8; 7],
    max_frame: usize,
    messages: Bucket,
    declines: Bucket,
    transactions: Arc<Transactions>,
}

impl RequestGuard {
    pub(in crate::filter) fn new(config: &Config<'_>, transactions: Arc<Transactions>) -> Self {
        Self {
            identifier: dhcp::identifier_of(config.vm_mac),
            max_frame: config.max_frame,
            messages: Bucket::new(MESSAGES_AT_ONCE, MESSAGE_INTERVAL),
            declines: Bucket::new(DECLINES_AT_ONCE, DECLINE_INTERVAL),
            transactions,
        }
    }

    /// Rewrites the request in the slot.
    pub(in crate::filter) fn pass(
        &mut self,
        request: &Noted,
        slot: &mut Slot<'_>,
        now: Tick,
    ) -> Result<(), DropReason> {
        let is_decline = request.kind == dhcp::DECLINE;
        if !self.messages.take(now) || is_decline && !self.declines.take(now) {
            return Err(DropReason::DhcpRate);
        }
        let identifier = match &request.identifier {
            None => [].as_slice(),
            Some((own, place)) => {
                let option = (*place, own.len());
                identifier::replace(slot, self.max_frame, option, &self.identifier)?;
                own.as_slice()
            }
        };
        let asked = match request.kind {
            dhcp::DISCOVER if request.is_rapid => Asked::OfferOrLease,
            dhcp::DISCOVER => Asked::Offer,
            dhcp::REQUEST_LEASE => Asked::Lease,
            dhcp::INFORM => Asked::Information,
            // RELEASE and DECLINE: there is no answer, and what was asked before is void.
            _ => {
                self.transactions.give_back();
                return Ok(());
            }
        };
        self.transactions.open(request.xid, asked, identifier, now);
        Ok(())
    }
}

/// The inbound end.
#[derive(Debug)]
pub(in crate::filter) struct ReplyGuard {
    identifier: [u8; 7],
    max_frame: usize,
    transactions: Arc<Transactions>,
}

/// A reply that goes on to the VM.
#[derive(Debug)]
pub(in crate::filter) struct Answer {
    /// Whether it is about an address: an answer to INFORM changes nothing (RFC 2131, 4.3.5).
    pub(in crate::filter) is_about_lease: bool,
    generation: Generation,
}

impl ReplyGuard {
    pub(in crate::filter) fn new(config: &Config<'_>, transactions: Arc<Transactions>) -> Self {
        Self {
            identifier: dhcp::identifier_of(config.vm_mac),
            max_frame: config.max_frame,
            transactions,
        }
    }

    /// Rewrites the reply in the slot, if the VM waits for it.
    pub(in crate::filter) fn pass(
        &self,
        reply: &Noted,
        slot: &mut Slot<'_>,
        now: Tick,
    ) -> Result<Answer, DropReason> {
        let question = self
            .transactions
            .find(reply.xid, now)
            .filter(|question| is_answer(reply, question.asked))
            .ok_or(DropReason::DhcpTransaction)?;
        match &reply.identifier {
            Some((returned, _)) if returned[..] != self.identifier => {
                return Err(DropReason::DhcpClientIdentifier);
            }
            Some((returned, place)) if !question.identifier.is_empty() => {
                let option = (*place, returned.len());
                identifier::replace(slot, self.max_frame, option, &question.identifier)?;
            }
            _ => {}
        }
        if reply.kind != dhcp::OFFER {
            question.close();
        }
        Ok(Answer {
            is_about_lease: question.asked != Asked::Information,
            generation: question.generation,
        })
    }

    /// Whether the VM gave its address back since it asked for this answer. To be asked
    /// after the lease was bound: either this sees what the outbound side does, or the
    /// outbound side sees the lease.
    pub(in crate::filter) fn is_void(&self, answer: &Answer) -> bool {
        self.transactions.is_void(answer.generation)
    }
}

fn is_answer(reply: &Noted, asked: Asked) -> bool {
    match (reply.kind, asked) {
        (dhcp::OFFER, Asked::Offer | Asked::OfferOrLease)
        | (dhcp::ACK, Asked::Lease | Asked::Information)
        | (dhcp::NAK, Asked::Lease) => true,
        (dhcp::ACK, Asked::OfferOrLease) => reply.is_rapid,
        _ => false,
    }
}

/// A client that starts sends a few messages in a row, firmware and system one after the
/// other; one that gets no answer slows down by itself, to one a minute (RFC 2131, 4.1).
const MESSAGES_AT_ONCE: u32 = 32;
const MESSAGE_INTERVAL: u32 = Tick::PER_SECOND;

/// A server keeps what was declined from everybody (bootpd for ten minutes), so that a VM
/// could empty the pool one offer after the other. A client that declines is to wait ten
/// seconds (RFC 2131, 3.1), and hardly has a reason to do so twice.
const DECLINES_AT_ONCE: u32 = 4;
const DECLINE_INTERVAL: u32 = 60 * Tick::PER_SECOND;
