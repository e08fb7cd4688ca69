//! What the policy has denied lately, and the rule that would allow it: whoever writes a policy
//! begins here.
//!
//! ```text
//!   data threads:  a dropped frame ── record ──▶ 128 sets of 8 rows, each set behind a lock
//!   main thread:   rows ◀──────────────────────┘
//! ```
//!
//! A row counts the packets of one kind: to or from one machine and port, dropped for one reason.
//! A new kind takes the place of the one in its set that was seen least recently. No data thread
//! waits for a lock or allocates memory.

use std::cmp::Reverse;
use std::hash::{BuildHasher, RandomState};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;

use super::facts;
use super::policy::{Kind, Peer, Protocol};
use super::verdict::DropReason;
use crate::clock::Tick;
use crate::direction::Direction;
use crate::wire::ethernet::{Ethernet, ethertype};
use crate::wire::ipv4::Ipv4;

/// What was denied to one VM, shared by both directions.
#[derive(Debug)]
pub struct Denied {
    sets: Box<[Mutex<[Row; ROWS]>]>,
    hasher: SeedableRandomState,
    missed: AtomicU64,
}

/// Packets of one kind that were denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Which way they went.
    pub way: Direction,
    /// Why they were dropped.
    pub reason: DropReason,
    /// The number of their protocol, as in the IPv4 header.
    pub protocol: u8,
    /// The other machine.
    pub peer: Ipv4Addr,
    /// Outbound, the other machine's port; inbound, the VM's. 0 if there is none.
    pub port: u16,
    /// How many there were; 0 in an unused row.
    pub count: u32,
    /// When the first of them came.
    pub first: Tick,
    /// When the last of them came.
    pub last: Tick,
}

impl Row {
    const UNUSED: Self = Self {
        way: Direction::Outbound,
        reason: DropReason::Runt,
        protocol: 0,
        peer: Ipv4Addr::UNSPECIFIED,
        port: 0,
        count: 0,
        first: Tick::ZERO,
        last: Tick::ZERO,
    };

    /// The other machine, as rules see it.
    #[must_use]
    pub fn peer(&self) -> Peer {
        Peer {
            address: self.peer,
            port: (self.port != 0).then_some(self.port),
            protocol: match Kind::of(self.protocol) {
                Kind::Tcp => Some(Protocol::Tcp),
                Kind::Udp => Some(Protocol::Udp),
                Kind::Icmp => Some(Protocol::Icmp),
                Kind::Other => None,
            },
        }
    }

    fn is_like(&self, other: &Self) -> bool {
        self.count > 0 && self.kind() == other.kind()
    }

    fn kind(&self) -> (u8, u8, u8, Ipv4Addr, u16) {
        let reason = self.reason as u8;
        (self.way as u8, reason, self.protocol, self.peer, self.port)
    }
}

impl Default for Denied {
    fn default() -> Self {
        // The better of the hash's two kinds, as in flows/mod.rs: with the faster one, one seed in fifty
        // spread addresses that count up so badly that some sets kept rows of long ago.
        let seed = RandomState::new().hash_one(0);
        Self {
            sets: (0..SETS).map(|_| Mutex::new([Row::UNUSED; ROWS])).collect(),
            hasher: SeedableRandomState::with_seed(seed, SharedSeed::global_random()),
            missed: AtomicU64::new(0),
        }
    }
}

impl Denied {
    /// Counts a frame that was dropped, if it is a packet that the policy denied.
    #[cold]
    #[inline(never)]
    pub fn record(&self, way: Direction, frame: &[u8], reason: DropReason, now: Tick) {
        if let Some(row) = row(way, frame, reason, now) {
            self.add(row);
        }
    }

    fn add(&self, row: Row) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "of the hash's bits any will do"
        )]
        let index = self.hasher.hash_one(row.kind()) as usize % SETS;
        let Ok(mut set) = self.sets[index].try_lock() else {
            self.missed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if let Some(same) = set.iter_mut().find(|found| found.is_like(&row)) {
            same.count = same.count.saturating_add(1);
            same.last = row.last;
        } else if let Some(oldest) = set.iter_mut().min_by_key(|found| found.last) {
            *oldest = row;
        }
    }

    /// All rows, the one seen last first.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for set in &self.sets {
            let set = *set.lock().unwrap_or_else(PoisonError::into_inner);
            rows.extend(set.into_iter().filter(|row| row.count > 0));
        }
        rows.sort_by_key(|row| (Reverse(row.last), row.kind()));
        rows
    }

    /// How many packets are in no row, because somebody was looking at the rows just then.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

fn row(way: Direction, frame: &[u8], reason: DropReason, now: Tick) -> Option<Row> {
    if !reason.is_policy() && reason != DropReason::SourceBlocked {
        return None;
    }
    let (ethernet, carried) = Ethernet::split(frame)?;
    if ethernet.ethertype.get() != ethertype::IPV4 {
        return None;
    }
    let facts = facts::of(carried, way)?;
    let port = facts.ports.map_or(0, |ports| match way {
        Direction::Outbound => ports.remote,
        Direction::Inbound => ports.own,
    });
    Some(Row {
        way,
        reason,
        protocol: Ipv4::parse(carried)?.header.protocol,
        peer: facts.peer.into(),
        port,
        count: 1,
        first: now,
        last: now,
    })
}

/// How many rows share a hash.
const ROWS: usize = 8;
/// 1024 rows in all, of 40 bytes.
const SETS: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    /// A TCP segment from the VM to port 443 of this machine.
    fn segment(peer: [u8; 4]) -> Vec<u8> {
        let mut frame = vec![
            2, 0, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 2, 8, 0, //
            0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 192, 168, 64, 2,
        ];
        frame.extend(peer);
        frame.extend([0xc0, 0, 1, 0xbb, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02]);
        frame.extend([0xff, 0xff, 0, 0, 0, 0]);
        frame
    }

    fn at(second: u32) -> Tick {
        Tick::from_secs(second)
    }

    const BLOCKED: DropReason = DropReason::DestinationBlocked;

    #[test]
    fn packets_of_one_kind_are_one_row() {
        let denied = Denied::default();
        for second in [3, 5, 9] {
            denied.record(
                Direction::Outbound,
                &segment([1, 2, 3, 4]),
                BLOCKED,
                at(second),
            );
        }
        denied.record(Direction::Outbound, &segment([1, 2, 3, 5]), BLOCKED, at(7));
        denied.record(
            Direction::Outbound,
            &segment([1, 2, 3, 4]),
            DropReason::Untracked,
            at(1),
        );
        let rows = denied.rows();
        let told: Vec<_> = rows
            .iter()
            .map(|row| (row.peer.octets()[3], row.reason, row.count))
            .collect();
        let untracked = DropReason::Untracked;
        assert_eq!(told, [(4, BLOCKED, 3), (5, BLOCKED, 1), (4, untracked, 1)]);
        assert_eq!((rows[0].first, rows[0].last), (at(3), at(9)));
        assert_eq!((rows[0].protocol, rows[0].port), (6, 443));
    }

    #[test]
    fn inbound_the_port_is_the_vms() {
        let denied = Denied::default();
        let mut frame = segment([192, 168, 64, 2]);
        frame[26..30].copy_from_slice(&[9, 8, 7, 6]);
        denied.record(Direction::Inbound, &frame, DropReason::SourceBlocked, at(1));
        let rows = denied.rows();
        assert_eq!((rows[0].peer, rows[0].port), ([9, 8, 7, 6].into(), 443));
    }

    #[test]
    fn what_no_policy_has_denied_is_no_row() {
        let denied = Denied::default();
        let frame = segment([1, 2, 3, 4]);
        for reason in [DropReason::SourceAddress, DropReason::ConnectionRate] {
            denied.record(Direction::Outbound, &frame, reason, at(1));
        }
        for len in 0..frame.len() - 6 {
            let isolation = DropReason::Isolation;
            denied.record(Direction::Inbound, &frame[..len], isolation, at(1));
        }
        let mut arp = frame;
        arp[13] = 6;
        denied.record(Direction::Inbound, &arp, DropReason::Isolation, at(1));
        assert_eq!(denied.rows(), []);
    }

    #[test]
    fn a_flood_takes_no_more_rows_and_leaves_the_latest() {
        let denied = Denied::default();
        for number in 0..20_000_u32 {
            let [_, b, c, d] = number.to_be_bytes();
            denied.record(
                Direction::Outbound,
                &segment([9, b, c, d]),
                BLOCKED,
                at(number),
            );
        }
        let rows = denied.rows();
        assert_eq!(rows.len(), ROWS * SETS);
        assert_eq!(rows[0].last, at(19_999));
        // All within the last few times as many packets as there are rows: a set is filled anew
        // by as many as it has rows, and sets are filled at random.
        assert!(rows.iter().all(|row| row.last > at(14_000)));
        assert_eq!(denied.missed(), 0);
    }

    #[test]
    fn nobody_waits_for_a_set_that_is_looked_at() {
        let denied = Denied::default();
        let held: Vec<_> = denied.sets.iter().map(|set| set.lock().unwrap()).collect();
        denied.record(Direction::Outbound, &segment([1, 2, 3, 4]), BLOCKED, at(1));
        drop(held);
        assert_eq!((denied.rows().len(), denied.missed()), (0, 1));
    }
}
