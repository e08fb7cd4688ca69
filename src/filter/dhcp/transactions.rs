//! The open DHCP transactions: what was asked of the server and not answered yet. No other reply is
//! accepted.
//!
//! The outbound side opens a transaction with each request before the request leaves. The inbound
//! side looks it up with each reply, and closes it with the last. One lock guards everything; only
//! DHCP takes it. The inbound side holds it until it has bound the lease:
//!
//! ```text
//!   outbound:  open()       ask()         give_back(), and only then the lease is given up
//!   inbound:          find() ... the lease is bound ... close()
//! ```
//!
//! So a reply that is on its way either binds the lease before the VM gives it back, and the lease
//! then ends, or finds no transaction any more.
//!
//! The VM may not send another request that such a reply would match either: softnet cannot know
//! whether the server has seen a message (its checksum may be wrong, its TTL zero). So what an xid
//! asked for is remembered for as long as a reply may be under way, answered or not. When the VM
//! asks for another address, or its lease ends, these earlier requests become void, and their xids
//! are refused.

use std::sync::{Mutex, MutexGuard, PoisonError};

use arrayvec::ArrayVec;

use crate::clock::Tick;

/// The last requests of one VM, and softnet's own.
#[derive(Debug, Default)]
pub(in crate::filter) struct Transactions(Mutex<Open>);

/// The transactions, behind the lock.
#[derive(Debug, Default)]
pub(in crate::filter) struct Open {
    /// Oldest first.
    pending: ArrayVec<PendingRequest, PENDING_MAX>,
    own: Option<OwnRequest>,
    /// Address requests that may still be answered with a lease, or might have been.
    address_requests: ArrayVec<AddressRequest, ADDRESS_REQUESTS_MAX>,
}

/// A request for a lease under an xid.
#[derive(Debug)]
struct AddressRequest {
    xid: u32,
    /// [`Expected::Lease`] or [`Expected::OfferOrLease`].
    expected: Expected,
    is_void: bool,
    /// When it was sent last, or became void.
    since: Tick,
}

/// A request of the VM.
#[derive(Debug)]
pub(super) struct PendingRequest {
    pub(super) xid: u32,
    pub(super) expected: Expected,
    /// The client identifier that the VM sent; empty if it sent none.
    pub(super) identifier: ArrayVec<u8, IDENTIFIER_MAX>,
    pub(super) since: Tick,
}

/// What a message asks for, and so what may answer it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// DISCOVER: an offer.
    Offer,
    /// DISCOVER with rapid commit (RFC 4039): an offer or, if the server chooses so, a lease at
    /// once, preferably of this address.
    OfferOrLease(u32),
    /// REQUEST: a lease of this address, or a refusal.
    Lease(u32),
    /// INFORM: parameters for an address that the VM already has.
    Information,
    /// Anything to the PXE port: what to boot.
    Boot,
}

impl Expected {
    /// Whether the reply may be a lease.
    fn asks_for_address(self) -> bool {
        matches!(self, Self::Lease(_) | Self::OfferOrLease(_))
    }

    /// Whether a lease of this address survives this request. The server ends it when it grants
    /// another address.
    pub(super) fn leaves(self, address: u32) -> bool {
        match self {
            Self::Lease(wanted) => wanted == address,
            Self::OfferOrLease(_) => false,
            Self::Offer | Self::Information | Self::Boot => true,
        }
    }
}

/// softnet's own request, which asks whether the VM has this address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::filter) struct OwnRequest {
    pub(in crate::filter) xid: u32,
    pub(in crate::filter) address: u32,
    pub(in crate::filter) since: Tick,
}

impl Transactions {
    pub(in crate::filter) fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Whether a reply to this request could be taken for a reply to another, or the other way
    /// round.
    pub(super) fn is_ambiguous(&self, xid: u32, expected: Expected, now: Tick) -> bool {
        if expected == Expected::Boot {
            return false;
        }
        let mut address_requests = self.address_requests.iter();
        let collides = |request: &AddressRequest| {
            let follows = matches!(
                (request.expected, expected),
                (Expected::OfferOrLease(_), Expected::Lease(_))
            );
            let differs = expected.asks_for_address() && expected != request.expected && !follows;
            request.xid == xid && is_recent(request.since, now) && (request.is_void || differs)
        };
        if address_requests.any(collides) {
            return true;
        }
        let is_information = expected == Expected::Information;
        let other = self.pending.iter().find(|other| {
            other.xid == xid && is_recent(other.since, now) && other.expected != Expected::Boot
        });
        other.is_some_and(|other| (other.expected == Expected::Information) != is_information)
    }

    /// Remembers a request. It replaces an earlier one of the same transaction, or else the oldest.
    /// Makes address requests void that conflict with it.
    pub(super) fn open(&mut self, request: PendingRequest) {
        if request.expected.asks_for_address() {
            self.note_address_request(&request);
        }
        let is_boot = request.expected == Expected::Boot;
        let same = |other: &PendingRequest| {
            other.xid == request.xid && is_boot == (other.expected == Expected::Boot)
        };
        self.pending.retain(|other| !same(other));
        if self.pending.is_full() {
            self.pending.remove(0);
        }
        // The answer is the VM's then.
        self.own = self.own.filter(|own| own.xid != request.xid);
        self.pending.push(request);
    }

    /// Only the last address request counts, as for the server: it gives a client one address, and
    /// frees the previous one.
    fn note_address_request(&mut self, request: &PendingRequest) {
        let &PendingRequest {
            xid,
            expected,
            since,
            ..
        } = request;
        let is_rapid = matches!(expected, Expected::OfferOrLease(_));
        self.void(since, |request| {
            request.xid != xid && (request.expected != expected || is_rapid)
        });
        self.own = self.own.filter(|own| expected.leaves(own.address));
        self.address_requests.retain(|request| request.xid != xid);
        if self.address_requests.is_full() {
            self.address_requests.remove(0);
        }
        self.address_requests.push(AddressRequest {
            xid,
            expected,
            is_void: false,
            since,
        });
    }

    /// Finds an open request of the VM, on the PXE port or on the DHCP port.
    pub(super) fn find(&self, xid: u32, is_boot: bool, now: Tick) -> Option<&PendingRequest> {
        self.pending.iter().find(|request| {
            request.xid == xid
                && (request.expected == Expected::Boot) == is_boot
                && is_recent(request.since, now)
        })
    }

    /// A request of the VM has got its final answer.
    pub(super) fn close(&mut self, xid: u32, is_boot: bool) {
        self.pending
            .retain(|it| it.xid != xid || (it.expected == Expected::Boot) != is_boot);
    }

    /// Remembers softnet's own request, which replaces the previous one. Returns false, and nothing
    /// must be sent, if its xid is that of a transaction of the VM.
    pub(super) fn ask(&mut self, own: OwnRequest) -> bool {
        let is_free = self.find(own.xid, false, own.since).is_none();
        if is_free {
            self.own = Some(own);
        }
        is_free
    }

    /// softnet's own request, if it is open and has this xid.
    pub(super) fn own(&self, xid: u32, now: Tick) -> Option<OwnRequest> {
        self.own
            .filter(|own| own.xid == xid && is_recent(own.since, now))
    }

    /// softnet's own request has got its final answer.
    pub(super) fn close_own(&mut self) {
        self.own = None;
    }

    /// Makes all requests void: a reply that the server sent before it knew of this would bind an
    /// address that is free again. Must be called before the lease is given up.
    pub(super) fn give_back(&mut self, now: Tick) {
        self.void(now, |_| true);
        self.pending.clear();
        self.own = None;
    }

    /// Makes address requests void that may still be answered, and forgets those that can no longer
    /// be.
    fn void(&mut self, now: Tick, is_meant: impl Fn(&AddressRequest) -> bool) {
        self.address_requests
            .retain(|request| is_recent(request.since, now));
        for request in &mut self.address_requests {
            if !request.is_void && is_meant(request) {
                (request.is_void, request.since) = (true, now);
            }
        }
        let address_requests = &self.address_requests;
        let is_void = |xid| {
            address_requests
                .iter()
                .any(|request| request.is_void && request.xid == xid)
        };
        self.pending
            .retain(|it| it.expected == Expected::Boot || !is_void(it.xid));
    }
}

fn is_recent(since: Tick, now: Tick) -> bool {
    now.as_secs() < since.as_secs().saturating_add(PATIENCE)
}

/// A client has one transaction at a time. After a reboot, or with an INFORM in between, two or
/// three may be open.
const PENDING_MAX: usize = 8;

/// More than can be open and void at the same time: `dhcp-rate` lets 32 such messages pass and then
/// one a second, and each is kept for at most twice [`PATIENCE`].
const ADDRESS_REQUESTS_MAX: usize = 32 + 2 * 64 + 1;

/// How long a request stays open, in seconds. A client asks again after at most 64, and so reopens
/// it (RFC 2131, 4.1).
const PATIENCE: u64 = 64;

/// The maximum length of an option.
pub(super) const IDENTIFIER_MAX: usize = u8::MAX as usize;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Tick = Tick::from_secs(1000);

    fn request(xid: u32, expected: Expected, second: u32) -> PendingRequest {
        PendingRequest {
            xid,
            expected,
            identifier: [1, 2, 3].into_iter().collect(),
            since: Tick::from_secs(second),
        }
    }

    fn expected(open: &Open, xid: u32, second: u32) -> Option<Expected> {
        let request = open.find(xid, false, Tick::from_secs(second));
        request.map(|request| request.expected)
    }

    #[test]
    fn a_question_is_found_as_it_was_asked_until_it_is_answered() {
        let mut open = Open::default();
        assert_eq!(expected(&open, 0, 0), None);
        for it in [
            Expected::Offer,
            Expected::OfferOrLease(0),
            Expected::Lease(9),
        ] {
            open.open(request(7, it, 1000));
            assert_eq!(expected(&open, 7, 1000), Some(it));
            assert_eq!(open.find(7, false, NOW).unwrap().identifier[..], [1, 2, 3]);
            assert_eq!(expected(&open, 8, 1000), None);
        }
        open.close(7, false);
        assert_eq!(expected(&open, 7, 1000), None);
    }

    #[test]
    fn a_question_waits_for_64_seconds() {
        let mut open = Open::default();
        open.open(request(7, Expected::Offer, 1000));
        assert_eq!(expected(&open, 7, 1063), Some(Expected::Offer));
        assert_eq!(expected(&open, 7, 1064), None);
        open.open(request(7, Expected::Offer, 1064));
        assert_eq!(expected(&open, 7, 1127), Some(Expected::Offer));
    }

    #[test]
    fn the_oldest_of_too_many_is_forgotten() {
        let mut open = Open::default();
        for xid in 1..=8 {
            open.open(request(xid, Expected::Offer, 1000 + xid));
        }
        // Sent again, the first request is now the youngest.
        open.open(request(1, Expected::Lease(9), 1009));
        open.open(request(9, Expected::Offer, 1010));
        let left = (0..20).filter(|xid| expected(&open, *xid, 1010).is_some());
        assert_eq!(left.collect::<Vec<_>>(), [1, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn the_port_of_pxe_has_transactions_of_its_own() {
        let mut open = Open::default();
        open.open(request(0, Expected::Boot, 1000));
        assert!(!open.is_ambiguous(0, Expected::Information, NOW));
        open.open(request(0, Expected::Lease(9), 1000));
        assert!(!open.is_ambiguous(0, Expected::Boot, NOW));
        assert_eq!(open.find(0, true, NOW).unwrap().expected, Expected::Boot);
        open.close(0, true);
        assert!(open.find(0, true, NOW).is_none());
        assert_eq!(expected(&open, 0, 1000), Some(Expected::Lease(9)));
    }

    #[test]
    fn one_transaction_is_about_a_lease_or_about_information() {
        let mut open = Open::default();
        open.open(request(7, Expected::Offer, 1000));
        assert!(!open.is_ambiguous(7, Expected::Lease(9), NOW));
        assert!(open.is_ambiguous(7, Expected::Information, NOW));
        assert!(!open.is_ambiguous(8, Expected::Information, NOW));
        assert!(!open.is_ambiguous(7, Expected::Information, Tick::from_secs(1064)));
        open.open(request(8, Expected::Information, 1000));
        assert!(open.is_ambiguous(8, Expected::Lease(9), NOW));
        assert!(open.is_ambiguous(8, Expected::OfferOrLease(0), NOW));
    }

    #[test]
    fn softnets_own_question_is_none_of_the_vms() {
        let own = |xid| OwnRequest {
            xid,
            address: 9,
            since: NOW,
        };
        let mut open = Open::default();
        open.open(request(7, Expected::Offer, 1000));
        assert!(!open.ask(own(7)));
        assert_eq!(open.own(7, NOW), None);
        assert!(open.ask(own(8)));
        assert_eq!(expected(&open, 8, 1000), None);
        assert_eq!(open.own(8, Tick::from_secs(1063)), Some(own(8)));
        assert_eq!(open.own(8, Tick::from_secs(1064)), None);
        // The VM cannot know this xid. If it uses it anyway, the answer is the VM's.
        open.open(request(8, Expected::Lease(9), 1000));
        assert_eq!(open.own(8, NOW), None);
    }

    #[test]
    fn only_the_last_wish_counts() {
        let mut open = Open::default();
        open.open(request(1, Expected::Lease(8), 1000));
        open.open(request(2, Expected::Lease(8), 1000));
        assert_eq!(expected(&open, 1, 1000), Some(Expected::Lease(8)));
        // A request for anything but a lease changes nothing.
        open.open(request(3, Expected::Offer, 1000));
        assert_eq!(expected(&open, 1, 1000), Some(Expected::Lease(8)));
        open.open(request(3, Expected::Lease(9), 1000));
        assert_eq!(expected(&open, 1, 1000), None);
        assert_eq!(expected(&open, 2, 1000), None);
        assert!(open.is_ambiguous(1, Expected::Lease(8), NOW));
        open.open(request(4, Expected::OfferOrLease(0), 1001));
        assert_eq!(expected(&open, 3, 1001), None);
        open.open(request(4, Expected::Lease(9), 1001));
        assert_eq!(expected(&open, 4, 1001), Some(Expected::Lease(9)));
    }

    #[test]
    fn an_xid_asks_for_one_address_answered_or_not() {
        let mut open = Open::default();
        open.open(request(1, Expected::OfferOrLease(0), 1000));
        assert!(!open.is_ambiguous(1, Expected::OfferOrLease(0), NOW));
        assert!(open.is_ambiguous(1, Expected::OfferOrLease(8), NOW));
        assert!(!open.is_ambiguous(1, Expected::Lease(8), NOW));
        open.open(request(1, Expected::Lease(8), 1000));
        open.close(1, false);
        open.open(request(1, Expected::Offer, 1000));
        for (again, is_refused) in [
            (Expected::Lease(8), false),
            (Expected::Lease(9), true),
            (Expected::OfferOrLease(0), true),
            (Expected::Offer, false),
            (Expected::Boot, false),
        ] {
            assert_eq!(open.is_ambiguous(1, again, NOW), is_refused, "{again:?}");
        }
    }

    #[test]
    fn giving_back_voids_what_was_asked_before() {
        let mut open = Open::default();
        open.open(request(7, Expected::Lease(9), 1000));
        let own = OwnRequest {
            xid: 8,
            address: 9,
            since: NOW,
        };
        assert!(open.ask(own));
        open.give_back(NOW);
        assert_eq!((expected(&open, 7, 1000), open.own(8, NOW)), (None, None));
        assert!(open.is_ambiguous(7, Expected::Lease(9), NOW));
        assert!(!open.is_ambiguous(9, Expected::Lease(9), NOW));
        assert!(open.is_ambiguous(7, Expected::Offer, Tick::from_secs(1063)));
        assert!(!open.is_ambiguous(7, Expected::Offer, Tick::from_secs(1064)));
    }
}
