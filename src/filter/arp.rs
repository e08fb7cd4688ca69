//! ARP that leaves the VM, once it may: whom it reaches, how often, and that it says nothing
//! beyond the message.
//!
//! Everybody on a bridge has to read what is for everybody. With isolation nobody but the
//! gateway has an answer for the VM, so that its requests for the gateway go there alone, as a
//! host itself asks first about an entry that it has (RFC 1122, 2.3.2.1). Should the gateway
//! have another MAC address meanwhile, two of them remain without an answer, and then
//! everybody is asked again.
//!
//! ```text
//!   outbound:  a request for the gateway -> asked()       inbound:  its reply -> answered()
//! ```

use std::sync::Arc;

use super::Config;
use super::atomic::{AtomicU32, Ordering};
use super::bucket::Bucket;
use super::policy::Mode;
use super::verdict::DropReason;
use crate::batch::Slot;
use crate::clock::Tick;
use crate::wire::arp::{self, Arp};
use crate::wire::ethernet::Ethernet;
use crate::wire::{Mac, rewrite};

/// What is done to the VM's ARP.
#[derive(Debug)]
pub(super) struct ArpGuard {
    gateway: u32,
    isolation: bool,
    broadcasts: Bucket,
    unanswered: Arc<Unanswered>,
}

impl ArpGuard {
    pub(super) fn new(config: &Config<'_>, unanswered: Arc<Unanswered>) -> Self {
        Self {
            gateway: config.gateway.into(),
            isolation: config.isolation || config.mode == Mode::Host,
            broadcasts: Bucket::per_second(BROADCASTS_AT_ONCE, BROADCASTS_A_SECOND),
            unanswered,
        }
    }

    /// Rewrites the message in the slot, which may go to everybody or to whom it is for.
    pub(super) fn pass(
        &mut self,
        slot: &mut Slot<'_>,
        gateway_mac: Option<Mac>,
        now: Tick,
    ) -> Result<(), DropReason> {
        let (whole, len) = slot.whole();
        let frame = whole.get_mut(..len).ok_or(DropReason::ArpMalformed)?;
        let (ethernet, carried) = Ethernet::split(frame).ok_or(DropReason::Runt)?;
        let arp = Arp::parse(carried).ok_or(DropReason::ArpMalformed)?;
        let is_request = arp.operation.get() == arp::REQUEST;
        let is_broadcast = ethernet.destination == Mac::BROADCAST;
        let asks_for_gateway = is_broadcast && is_request && arp.target.get() == self.gateway;
        let alone = gateway_mac
            .filter(|_| asks_for_gateway && self.isolation && self.unanswered.may_ask_alone());
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

/// How many requests for the gateway went to it alone since its last reply.
#[derive(Debug, Default)]
pub(super) struct Unanswered(AtomicU32);

impl Unanswered {
    /// The gateway has replied. For the inbound side.
    pub(super) fn answered(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn may_ask_alone(&self) -> bool {
        self.0.load(Ordering::Relaxed) < UNANSWERED_MAX
    }

    /// A reply that comes at the same time may be lost on the count, or this request: either
    /// way one more or one less goes to the gateway alone.
    fn asked(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// After so many requests without a reply everybody is asked.
const UNANSWERED_MAX: u32 = 2;
const BROADCASTS_AT_ONCE: u32 = 64;
const BROADCASTS_A_SECOND: u32 = 16;
