//! The VM's lease from the DHCP server, in a cell that both directions share without locks.
//!
//! The inbound side writes when it sees what the server grants. The outbound side reads the cell
//! for every frame, which costs one load:
//!
//! ```text
//!   inbound:  ACK -> bind()            outbound:  address, expiry  (each frame)
//!             NAK -> clear()
//!                        RELEASE, DECLINE -> give_up()
//! ```
//!
//! What else comes with a lease, its name servers, is in the snapshot ([`super::rules`]).

use std::net::Ipv4Addr;

use super::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::clock::Tick;

/// An address leased to the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The VM's address.
    pub address: Ipv4Addr,
    /// When it expires; [`Tick::NEVER`] for a lease without end.
    pub expires: Tick,
}

/// The lease of one VM.
#[derive(Debug, Default)]
pub struct LeaseCell {
    /// Address in the upper half, expiry in the lower; zero without a lease.
    packed: AtomicU64,
    /// The address that the server offered last, and until when the offer counts; zero for none.
    offered: AtomicU64,
    /// See [`Self::tenure`].
    tenure: AtomicU32,
}

impl LeaseCell {
    /// The lease, expired or not.
    #[must_use]
    pub fn lease(&self) -> Option<Lease> {
        let packed = self.packed();
        (packed.0 != 0).then(|| Lease {
            address: packed.address().into(),
            expires: packed.expires(),
        })
    }

    /// The leased address, unless there is no lease or it has expired.
    #[must_use]
    pub fn address_at(&self, now: Tick) -> Option<Ipv4Addr> {
        let packed = self.packed();
        packed.is_valid(now).then(|| packed.address().into())
    }

    /// Lends an address without end, as no server has: for frames that were captured after it was
    /// granted. Before the filters see their first frame.
    pub fn assume(&self, address: Ipv4Addr) {
        let lease = Lease {
            address,
            expires: Tick::NEVER,
        };
        self.bind(&lease, Tick::ZERO);
    }

    /// Address and expiry, in one load.
    #[inline]
    pub(super) fn packed(&self) -> PackedLease {
        PackedLease(self.packed.load(Ordering::Acquire))
    }

    /// The number of the time that the VM has had its address without a break: the same after a
    /// renewal, but another if the lease has ended before, even if the address is the same again.
    /// Somebody else may have had it meanwhile.
    #[inline]
    pub(super) fn tenure(&self) -> u32 {
        self.tenure.load(Ordering::Acquire)
    }

    /// Stores a new lease. Only for the inbound side: there is one writer at a time.
    pub(super) fn bind(&self, lease: &Lease, now: Tick) {
        let before = self.packed();
        if !before.is_valid(now) || before.address() != u32::from(lease.address) {
            // Before the lease, so that nothing under the new one has the old number.
            self.tenure.fetch_add(1, Ordering::AcqRel);
        }
        let packed = PackedLease::new(lease.address.into(), lease.expires);
        // A swap, because `give_up` also reads and writes: then one of the two sees the other.
        self.packed.swap(packed.0, Ordering::AcqRel);
        self.forget_offered();
    }

    /// Forgets the lease, because the server has revoked it. Only for the inbound side.
    pub(super) fn clear(&self) {
        self.packed.swap(0, Ordering::AcqRel);
    }

    /// Forgets the lease of an address that the VM itself gave back, even if it has been renewed
    /// meanwhile. This is the only write by the outbound side: the server may now give the address
    /// to another client, so no further frame may carry it.
    pub(super) fn give_up(&self, address: u32) {
        let without = |packed| (PackedLease(packed).address() == address).then_some(0);
        let _ = self
            .packed
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, without);
    }

    /// The address that the server has recently offered, and that the VM may probe for; zero for
    /// none.
    pub(super) fn offered(&self, now: Tick) -> u32 {
        let offer = PackedLease(self.offered.load(Ordering::Relaxed));
        if offer.is_valid(now) {
            offer.address()
        } else {
            0
        }
    }

    pub(super) fn set_offered(&self, address: u32, now: Tick) {
        let offer = PackedLease::new(address, now.after(OFFER_LASTS));
        self.offered.store(offer.0, Ordering::Relaxed);
    }

    pub(super) fn forget_offered(&self) {
        self.offered.store(0, Ordering::Relaxed);
    }
}

/// Address and expiry in one word, so that they always belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PackedLease(u64);

impl PackedLease {
    /// The fraction of the last second is cut off. All ones mean [`Tick::NEVER`].
    fn new(address: u32, expires: Tick) -> Self {
        let last = u64::from(u32::MAX - 1);
        let seconds = match expires {
            Tick::NEVER => u64::from(u32::MAX),
            other => other.as_secs().min(last),
        };
        Self(u64::from(address) << 32 | seconds)
    }

    /// Zero if there is no lease.
    #[inline]
    pub(super) fn address(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(super) fn expires(self) -> Tick {
        match self.seconds() {
            u32::MAX => Tick::NEVER,
            seconds => Tick::from_secs(seconds),
        }
    }

    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the lower half of the word is meant"
    )]
    fn seconds(self) -> u32 {
        self.0 as u32
    }

    /// Whether there is a lease that has not expired.
    #[inline]
    pub(super) fn is_valid(self, now: Tick) -> bool {
        now.as_secs() < u64::from(self.seconds())
    }
}

/// How long a server's offer counts, in seconds: as long as a request for it stays open. A server
/// reserves the address for a shorter time (dnsmasq for 30 s, dhcp-common.h), and then offers it to
/// others.
const OFFER_LASTS: u32 = 64;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn lease(last: u8, expires: u32) -> Lease {
        Lease {
            address: Ipv4Addr::new(192, 168, 64, last),
            expires: Tick::ZERO.after(expires),
        }
    }

    #[test]
    fn a_lease_is_read_as_it_was_bound() {
        let cell = LeaseCell::default();
        assert_eq!(cell.lease(), None);
        cell.bind(&lease(2, 600), Tick::ZERO);
        assert_eq!(cell.lease(), Some(lease(2, 600)));
        cell.clear();
        assert_eq!(cell.lease(), None);
    }

    #[test]
    fn a_lease_ends_at_its_second() {
        let cell = LeaseCell::default();
        assert!(!cell.packed().is_valid(Tick::from_secs(0)));
        cell.bind(&lease(2, 600), Tick::ZERO);
        assert!(cell.packed().is_valid(Tick::from_secs(599)));
        assert!(!cell.packed().is_valid(Tick::from_secs(600)));
        cell.bind(&lease(2, u32::MAX), Tick::ZERO);
        assert!(cell.packed().is_valid(Tick::from_secs(u32::MAX - 1)));
    }

    #[test]
    fn a_lease_that_has_ended_is_another_tenure_when_it_comes_again() {
        let cell = LeaseCell::default();
        let mut last = cell.tenure();
        let mut is_new = |cell: &LeaseCell, lease: &Lease, second| {
            cell.bind(lease, Tick::from_secs(second));
            let before = std::mem::replace(&mut last, cell.tenure());
            before != last
        };
        assert!(is_new(&cell, &lease(2, 600), 0));
        assert!(!is_new(&cell, &lease(2, 900), 599), "renewed");
        assert!(is_new(&cell, &lease(2, 1800), 900), "expired");
        assert!(is_new(&cell, &lease(3, 1800), 900), "another");
        cell.clear();
        assert!(is_new(&cell, &lease(3, 1800), 900), "revoked");
        cell.give_up(lease(3, 0).address.into());
        assert!(is_new(&cell, &lease(3, 1800), 900), "given up");
    }

    #[test]
    fn giving_up_an_address_leaves_another() {
        let cell = LeaseCell::default();
        let address = |last| lease(last, 0).address.into();
        cell.bind(&lease(3, 900), Tick::ZERO);
        cell.give_up(address(2));
        assert_eq!(cell.lease(), Some(lease(3, 900)));
        cell.bind(&lease(3, 1800), Tick::ZERO);
        cell.give_up(address(3));
        assert_eq!(cell.lease(), None);
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
