//! How many of the host's NAT ports the VM takes up at one server, and a limit on them.
//!
//! A NAT that several VMs share has 64,512 ports (1024 to 65535) for each protocol, address and
//! port that they connect to, since those are what must tell its connections apart (Linux,
//! `nf_nat_core.c`; pf, `pf_get_sport`). SYNs from one VM that nobody answered took them all, and
//! its neighbours got no connection to that server. So a server here is a protocol, an address and
//! a port, and what is limited at each is
//!
//! - connections that are open, to half of the NAT's ports. That is more than an operating system
//!   gives one address (28,232 in Linux, 16,384 in macOS and Windows), so none comes near it;
//! - connections that were not answered. The NAT holds them for two minutes, longer than the table
//!   does, and nothing of what the VM does later takes them back. So they drain at a constant rate,
//!   and only an answer makes up for one at once.
//!
//! There are fewer counters than servers. Those that share one share its limits, which matters only
//! beside a server that the VM floods.

use std::hash::BuildHasher;

use foldhash::quality::SeedableRandomState;

use super::Key;
use super::set::Control;
use crate::filter::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::wire::ipv4::protocol;
use crate::wire::udp;

/// The counters of all servers.
#[derive(Debug)]
pub(super) struct Servers(Box<[Server]>);

/// The counters of those servers that share a hash.
#[derive(Debug)]
#[cfg_attr(not(loom), derive(zerocopy::FromZeros))]
struct Server {
    /// Connections in the table that the VM has opened.
    open: AtomicU32,
    _unused: u32,
    /// How many were not answered and have not drained (bits 0 to 31), and the sixteenth of a second
    /// up to which they have (bits 32 to 63).
    unanswered: AtomicU64,
}

impl Servers {
    pub(super) fn new() -> Self {
        Self(zeroed())
    }

    /// Whether the VM may open another connection to this server.
    pub(super) fn has_room(&self, hasher: &SeedableRandomState, key: Key, now: u32) -> bool {
        let server = self.of(hasher, key);
        server.open.load(Ordering::Relaxed) < open_max(key)
            && drained(server.unanswered.load(Ordering::Relaxed), now) < UNANSWERED_MAX
    }

    /// Counts that a flow has changed, or ended, in its place.
    pub(super) fn change(
        &self,
        hasher: &SeedableRandomState,
        key: Key,
        before: Control,
        after: Control,
    ) {
        if before.is_own() && !after.is_own() {
            self.of(hasher, key).open.fetch_sub(1, Ordering::Relaxed);
        }
        if before.is_unanswered() && after.is_own() && !after.is_unanswered() {
            let answered = |word: u64| (level(word) != 0).then(|| word - 1);
            let unanswered = &self.of(hasher, key).unanswered;
            let _ = unanswered.fetch_update(Ordering::Relaxed, Ordering::Relaxed, answered);
        }
    }

    /// Counts that a flow has taken the place of another, or of itself; and whether it was
    /// unanswered before and not expired.
    pub(super) fn replace(
        &self,
        hasher: &SeedableRandomState,
        (old, before): (Key, Control),
        (new, after): (Key, Control),
        is_again: bool,
        now: u32,
    ) {
        if before.is_own() {
            let server = self.of(hasher, old);
            server.open.fetch_sub(1, Ordering::Relaxed);
            // The NAT still holds its port.
            if old != new && !before.is_unanswered() {
                server.charge(now);
            }
        }
        if after.is_own() {
            let server = self.of(hasher, new);
            server.open.fetch_add(1, Ordering::Relaxed);
            if !is_again {
                server.charge(now);
            }
        }
    }

    fn of(&self, hasher: &SeedableRandomState, key: Key) -> &Server {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "of the hash's bits any will do"
        )]
        let hash = hasher.hash_one(key.server()) as usize;
        &self.0[hash & (self.0.len() - 1)]
    }

    /// The connections in the table that the VM has opened to all servers.
    #[cfg(all(test, not(loom)))]
    pub(super) fn open(&self) -> u32 {
        let open = self
            .0
            .iter()
            .map(|server| server.open.load(Ordering::Relaxed));
        open.sum()
    }

    /// The connections in the table that the VM has opened to this server, and those that count as
    /// unanswered.
    #[cfg(all(test, not(loom)))]
    pub(super) fn counts(&self, hasher: &SeedableRandomState, key: Key, now: u32) -> (u32, u32) {
        let server = self.of(hasher, key);
        let unanswered = server.unanswered.load(Ordering::Relaxed);
        (
            server.open.load(Ordering::Relaxed),
            drained(unanswered, now),
        )
    }
}

impl Server {
    fn charge(&self, now: u32) {
        let charged = |word| Some(u64::from(now) << 32 | u64::from(drained(word, now) + 1));
        let _ = (self.unanswered).fetch_update(Ordering::Relaxed, Ordering::Relaxed, charged);
    }
}

/// How many of these are left by now.
fn drained(word: u64, now: u32) -> u32 {
    let since = now.wrapping_sub((word >> 32) as u32);
    // The other thread's batch may be slightly later than this one's.
    let since = if since > u32::MAX / 2 { 0 } else { since };
    level(word).saturating_sub(since.saturating_mul(DRAINED))
}

#[expect(clippy::cast_possible_truncation, reason = "a part of a word")]
const fn level(word: u64) -> u32 {
    word as u32
}

/// How many connections to this server may be open.
fn open_max(key: Key) -> u32 {
    match key.server() {
        // Answered queries leave the table after ten seconds, and Linux's NAT after thirty.
        (protocol::UDP, _, udp::DNS) => OPEN_MAX / 3,
        _ => OPEN_MAX,
    }
}

#[cfg(not(loom))]
fn zeroed() -> Box<[Server]> {
    use zerocopy::FromZeros;
    <[Server]>::new_box_zeroed_with_elems(SERVERS).expect("16 KiB of addresses")
}

/// Loom's atomics must be created one by one.
#[cfg(loom)]
fn zeroed() -> Box<[Server]> {
    Box::new([Server {
        open: AtomicU32::new(0),
        _unused: 0,
        unanswered: AtomicU64::new(0),
    }])
}

/// A power of two.
#[cfg(not(loom))]
const SERVERS: usize = 1024;

/// A NAT's ports for one server.
const NAT_PORTS: u32 = 65_536 - 1024;
const OPEN_MAX: u32 = NAT_PORTS / 2;
/// How many drain in a sixteenth of a second.
const DRAINED: u32 = 4;
/// As many as drain while a NAT holds one: 120 seconds (Linux, `nf_conntrack_tcp_timeout_syn_sent`;
/// pf, `tcp.first`). So at no time does it hold more than twice as many, a quarter of its ports.
pub(super) const UNANSWERED_MAX: u32 = 120 * 16 * DRAINED;
const _: () = assert!(2 * UNANSWERED_MAX <= NAT_PORTS / 4);
