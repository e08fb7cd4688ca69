//! Rewrites and limits outbound ARP that the filter allows: where it goes, how often, and that it
//! contains nothing but the message.
//!
//! Every station on a bridge has to read a broadcast. With isolation only the gateway can answer
//! the VM, so the VM's requests for the gateway are sent to the gateway alone, in the way a host
//! checks an entry that it already has (RFC 1122, 2.3.2.1). If the gateway's MAC address has
//! changed, two requests remain unanswered, and from then on requests are broadcast again.
//!
//! ```text
//!   outbound:  a request for the gateway -> asked()       inbound:  its reply -> answered()
//! ```

use std::sync::Arc;

use super::atomic::{AtomicU32, Ordering};
use super::bucket::Bucket;
use super::roles::Roles;
use super::verdict::DropReason;
use crate::batch::Slot;
use crate::clock::Tick;
use crate::wire::arp::{self, Arp};
use crate::wire::ethernet::Ethernet;
use crate::wire::{Mac, rewrite};

/// Limits and rewrites the VM's ARP.
#[derive(Debug)]
pub(super) struct ArpGuard {
    broadcasts: Bucket,
    unanswered: Arc<Unanswered>,
}

impl ArpGuard {
    pub(super) fn new(unanswered: Arc<Unanswered>) -> Self {
        Self {
            broadcasts: Bucket::per_second(BROADCASTS_AT_ONCE, BROADCASTS_A_SECOND),
            unanswered,
        }
    }

    /// Rewrites the message in the slot, which may be broadcast or go to one station.
    pub(super) fn pass(
        &mut self,
        slot: &mut Slot<'_>,
        roles: &Roles,
        now: Tick,
    ) -> Result<(), DropReason> {
        let (whole, len) = slot.whole();
        let frame = whole.get_mut(..len).ok_or(DropReason::ArpMalformed)?;
        let (ethernet, carried) = Ethernet::split(frame).ok_or(DropReason::Runt)?;
        let arp = Arp::parse(carried).ok_or(DropReason::ArpMalformed)?;
        let is_request = arp.operation.get() == arp::REQUEST;
        let is_broadcast = ethernet.destination == Mac::BROADCAST;
        let asks_for_gateway =
            is_broadcast && is_request && arp.target.get() == roles.gateway.address;
        let alone = (roles.gateway.mac())
            .filter(|_| asks_for_gateway && roles.isolation && self.unanswered.may_ask_alone());
        match alone {
            Some(mac) => {
                self.unanswered.asked();
                rewrite::set_destination(frame, mac);
            }
            None if is_broadcast && !self.broadcasts.take(now) => return Err(DropReason::ArpRate),
            None => {}
        }
        rewrite::clean_arp(frame);
        Ok(())
    }
}

/// How many requests have gone to the gateway alone since its last reply.
#[derive(Debug, Default)]
pub(super) struct Unanswered(AtomicU32);

impl Unanswered {
    /// Records that the gateway has replied. Called by the inbound side.
    pub(super) fn answered(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn may_ask_alone(&self) -> bool {
        self.0.load(Ordering::Relaxed) < UNANSWERED_MAX
    }

    /// A reply that comes at the same time, or this request, may not be counted: then one request
    /// more or less goes to the gateway alone.
    fn asked(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// After this many requests without a reply, requests are broadcast.
const UNANSWERED_MAX: u32 = 2;
const BROADCASTS_AT_ONCE: u32 = 64;
const BROADCASTS_A_SECOND: u32 = 16;
