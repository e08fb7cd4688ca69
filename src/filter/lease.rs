//! The VM's lease from the DHCP server, in a cell that both directions share without locks.
//!
//! The inbound side writes when it sees what the server grants. The outbound side reads the cell
//! for every frame, which costs one load:
//!
//! ```text
//!   inbound:  ACK -> bind()            outbound:  address, expiry  (each frame)
//!             NAK -> clear()                      name servers     (port 53 only)
//!                        RELEASE, DECLINE -> give_up()
//! ```
//!
//! The name servers do not fit into the word. They are protected by a sequence lock, whose count is
//! odd while the writer is writing.

use std::net::Ipv4Addr;

use arrayvec::ArrayVec;

use super::atomic::{AtomicU32, AtomicU64, Ordering, fence, spin_loop};
use super::prefix::Destination;
use crate::clock::Tick;
use crate::wire::Mac;

/// An address leased to the VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The VM's address.
    pub address: Ipv4Addr,
    /// When it expires; [`Tick::NEVER`] for a lease without end.
    pub expires: Tick,
    /// The first four name servers that came with it.
    pub name_servers: NameServers,
}

/// The name servers of a lease. There are at most as many as are remembered; resolvers use three
/// (`MAXNS` of resolv.h).
pub type NameServers = ArrayVec<Ipv4Addr, NAME_SERVERS_MAX>;

/// The lease of one VM, and the MAC address of its gateway.
#[derive(Debug)]
pub struct LeaseCell {
    /// Address in the upper half, expiry in the lower; zero without a lease.
    packed: AtomicU64,
    /// [`UNKNOWN_MAC`], or the address as a number.
    gateway_mac: AtomicU64,
    /// The address that the server offered last, and until when the offer counts; zero for none.
    offered: AtomicU64,
    sequence: AtomicU32,
    name_servers: [AtomicU32; NAME_SERVERS_MAX],
}

impl LeaseCell {
    /// A cell without a lease.
    #[must_use]
    pub fn new(gateway_mac: Option<Mac>) -> Self {
        Self {
            packed: AtomicU64::new(0),
            gateway_mac: AtomicU64::new(gateway_mac.map_or(UNKNOWN_MAC, Mac::to_u64)),
            offered: AtomicU64::new(0),
            sequence: AtomicU32::new(0),
            name_servers: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }

    /// The lease, expired or not, all of it from one grant. Spins while a grant is being written,
    /// which takes nanoseconds. Not for the path of every frame.
    #[must_use]
    pub fn lease(&self) -> Option<Lease> {
        let (packed, name_servers) = loop {
            match self.attempt() {
                Some(both) => break both,
                None => spin_loop(),
            }
        };
        (packed.0 != 0).then(|| Lease {
            address: packed.address().into(),
            expires: packed.expires(),
            name_servers: name_servers
                .into_iter()
                .filter(|server| *server != 0)
                .map(Ipv4Addr::from)
                .collect(),
        })
    }

    /// The leased address, unless there is no lease or it has expired.
    #[must_use]
    pub fn address_at(&self, now: Tick) -> Option<Ipv4Addr> {
        let packed = self.packed();
        packed.is_valid(now).then(|| packed.address().into())
    }

    /// The MAC address of the gateway, once it is known.
    #[must_use]
    pub fn gateway_mac(&self) -> Option<Mac> {
        match self.gateway_mac.load(Ordering::Relaxed) {
            UNKNOWN_MAC => None,
            number => Some(Mac::from_u64(number)),
        }
    }

    /// Sets the gateway's current MAC address. For a caller that can ask the system, when a bridge
    /// has been recreated or has taken another port's address.
    pub fn set_gateway_mac(&self, mac: Mac) {
        self.gateway_mac.store(mac.to_u64(), Ordering::Relaxed);
    }

    /// Lends an address without end, as no server has: for frames that were captured after it was
    /// granted. Before the filters see their first frame.
    pub fn assume(&self, address: Ipv4Addr) {
        self.bind(&Lease {
            address,
            expires: Tick::NEVER,
            name_servers: ArrayVec::new(),
        });
    }

    /// Address and expiry, in one load.
    #[inline]
    pub(super) fn packed(&self) -> PackedLease {
        PackedLease(self.packed.load(Ordering::Acquire))
    }

    /// Whether this is the gateway's MAC address; always false while that is unknown.
    #[inline]
    pub(super) fn is_gateway_mac(&self, mac: Mac) -> bool {
        mac.to_u64() == self.gateway_mac.load(Ordering::Relaxed)
    }

    /// A name server from the lease is reachable on port 53 even if the table refuses its address,
    /// because it is often the resolver of a company's network.
    pub(super) fn allow_name_server(
        &self,
        said: Destination,
        peer: u32,
        is_dns: bool,
    ) -> Destination {
        if is_dns && said.may_be_name_server() && self.has_name_server(peer) {
            Destination::Pass
        } else {
            said
        }
    }

    /// Whether the lease came with this name server. Retries a few times, which is enough while a
    /// grant is being written. It does not wait for a writer that has been interrupted, because
    /// this is on the path of frames, and a client asks a name server again.
    fn has_name_server(&self, address: u32) -> bool {
        let name_servers = (0..ATTEMPTS_MAX).find_map(|_| self.attempt());
        address != 0 && name_servers.is_some_and(|(_, servers)| servers.contains(&address))
    }

    /// Stores a new lease. Only for the inbound side: there is one writer at a time.
    pub(super) fn bind(&self, lease: &Lease) {
        // The odd count must be visible before anything that follows. So there is a release fence
        // after the store, and the readers have an acquire fence before they read the count again.
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence
            .store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        let mut name_servers = lease.name_servers.iter();
        for slot in &self.name_servers {
            let server = name_servers.next().map_or(0, |server| u32::from(*server));
            slot.store(server, Ordering::Relaxed);
        }
        let packed = PackedLease::new(lease.address.into(), lease.expires);
        // A swap, because `give_up` also reads and writes: then one of the two sees the other.
        self.packed.swap(packed.0, Ordering::AcqRel);
        self.sequence
            .store(sequence.wrapping_add(2), Ordering::Release);
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

    /// Reads the whole lease, or returns `None` while it is being written.
    fn attempt(&self) -> Option<(PackedLease, [u32; NAME_SERVERS_MAX])> {
        let before = self.sequence.load(Ordering::Acquire);
        let packed = self.packed();
        let name_servers = self
            .name_servers
            .each_ref()
            .map(|slot| slot.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let after = self.sequence.load(Ordering::Relaxed);
        (before == after && before.is_multiple_of(2)).then_some((packed, name_servers))
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

pub(super) const NAME_SERVERS_MAX: usize = 4;

/// How long a server's offer counts, in seconds: as long as a request for it stays open. A server
/// reserves the address for a shorter time (dnsmasq for 30 s, dhcp-common.h), and then offers it to
/// others.
const OFFER_LASTS: u32 = 64;

/// Writing a grant takes a few nanoseconds.
const ATTEMPTS_MAX: usize = 16;

/// Above every MAC address, which has 48 bits.
const UNKNOWN_MAC: u64 = u64::MAX;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn lease(last: u8, expires: u32) -> Lease {
        Lease {
            address: Ipv4Addr::new(192, 168, 64, last),
            expires: Tick::ZERO.after(expires),
            name_servers: [
                Ipv4Addr::new(192, 168, 64, 1),
                Ipv4Addr::new(10, 0, 0, last),
            ]
            .into_iter()
            .collect(),
        }
    }

    #[test]
    fn a_lease_is_read_as_it_was_bound() {
        let cell = LeaseCell::new(None);
        assert_eq!(cell.lease(), None);
        cell.bind(&lease(2, 600));
        assert_eq!(cell.lease(), Some(lease(2, 600)));
        assert!(cell.has_name_server(0x0a00_0002));
        assert!(!cell.has_name_server(0x0a00_0003));
        assert!(!cell.has_name_server(0));
        cell.clear();
        assert_eq!(cell.lease(), None);
    }

    #[test]
    fn a_lease_ends_at_its_second() {
        let cell = LeaseCell::new(None);
        assert!(!cell.packed().is_valid(Tick::from_secs(0)));
        cell.bind(&lease(2, 600));
        assert!(cell.packed().is_valid(Tick::from_secs(599)));
        assert!(!cell.packed().is_valid(Tick::from_secs(600)));
        cell.bind(&lease(2, u32::MAX));
        assert!(cell.packed().is_valid(Tick::from_secs(u32::MAX - 1)));
    }

    #[test]
    fn giving_up_an_address_leaves_another() {
        let cell = LeaseCell::new(None);
        let address = |last| lease(last, 0).address.into();
        cell.bind(&lease(3, 900));
        cell.give_up(address(2));
        assert_eq!(cell.lease(), Some(lease(3, 900)));
        cell.bind(&lease(3, 1800));
        cell.give_up(address(3));
        assert_eq!(cell.lease(), None);
    }

    #[test]
    fn an_unknown_gateway_has_no_mac() {
        let cell = LeaseCell::new(None);
        assert!(!cell.is_gateway_mac(Mac([0; 6])));
        cell.set_gateway_mac(Mac([2, 0, 0, 0, 0, 1]));
        assert!(cell.is_gateway_mac(Mac([2, 0, 0, 0, 0, 1])));
        assert_eq!(cell.gateway_mac(), Some(Mac([2, 0, 0, 0, 0, 1])));
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
