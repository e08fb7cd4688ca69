//! What happened to the frames of a direction: every frame received is either forwarded or
//! dropped for a reason, and the books balance.
//!
//! The forwarder's threads add once per batch; whoever reports takes a [`Counts`]. Nothing
//! is decided by these numbers, so they are relaxed atomics.

use std::io;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use crate::filter::DropReason;

/// The counters of one direction, shared by its two threads. On cache lines of their own,
/// so that counting in one direction does not slow the other.
#[derive(Debug)]
#[repr(align(128))]
pub struct Stats {
    received: AtomicU64,
    received_bytes: AtomicU64,
    forwarded: AtomicU64,
    dropped: [AtomicU64; DropReason::ALL.len()],
    handed_over: AtomicU64,
    waits: AtomicU64,
    errors: AtomicU64,
    last_error: AtomicI32,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Frames received.
    pub received: u64,
    /// Bytes of these frames, headers included.
    pub received_bytes: u64,
    /// Frames that the other side took.
    pub forwarded: u64,
    /// Frames dropped, by [`DropReason::index`].
    pub dropped: [u64; DropReason::ALL.len()],
    /// Batches that went through the writer's thread.
    pub handed_over: u64,
    /// How often somebody waited for room.
    pub waits: u64,
    /// System calls that failed in a way that is not ordinary.
    pub errors: u64,
    /// The last such failure, as an `errno`; 0 for none.
    pub last_error: i32,
}

impl Stats {
    pub(crate) fn new() -> Self {
        Self {
            received: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            forwarded: AtomicU64::new(0),
            dropped: [const { AtomicU64::new(0) }; DropReason::ALL.len()],
            handed_over: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            last_error: AtomicI32::new(0),
        }
    }

    pub(crate) fn add_received(&self, frames: usize, bytes: usize) {
        self.received.fetch_add(frames as u64, Ordering::Relaxed);
        self.received_bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_forwarded(&self, frames: usize) {
        self.forwarded.fetch_add(frames as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_dropped(&self, reason: DropReason, frames: usize) {
        self.dropped[reason.index()].fetch_add(frames as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_handed_over(&self) {
        self.handed_over.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_wait(&self) {
        self.waits.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_error(&self, error: &io::Error) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        self.last_error
            .store(error.raw_os_error().unwrap_or(0), Ordering::Relaxed);
    }

    /// Reads all counters. While frames flow, those of a batch under way may be missing in
    /// some of them.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            received: self.received.load(Ordering::Relaxed),
            received_bytes: self.received_bytes.load(Ordering::Relaxed),
            forwarded: self.forwarded.load(Ordering::Relaxed),
            dropped: self
                .dropped
                .each_ref()
                .map(|count| count.load(Ordering::Relaxed)),
            handed_over: self.handed_over.load(Ordering::Relaxed),
            waits: self.waits.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            last_error: self.last_error.load(Ordering::Relaxed),
        }
    }
}

impl Counts {
    /// How many frames were dropped for `reason`.
    #[must_use]
    pub const fn dropped_for(&self, reason: DropReason) -> u64 {
        self.dropped[reason.index()]
    }

    /// The reasons for which frames were dropped, with how many.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> {
        let counts = self.dropped;
        DropReason::ALL
            .into_iter()
            .zip(counts)
            .filter(|&(_, count)| count > 0)
    }

    /// Whether every frame received was forwarded or dropped: so it must be once the
    /// forwarder has ended.
    #[must_use]
    pub fn balance(&self) -> bool {
        self.received == self.forwarded + self.dropped.iter().sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_books_balance_when_every_frame_has_an_end() {
        let stats = Stats::new();
        stats.add_received(5, 500);
        stats.add_forwarded(3);
        stats.add_dropped(DropReason::Runt, 1);
        assert!(!stats.counts().balance());
        stats.add_dropped(DropReason::VmBusy, 1);
        let counts = stats.counts();
        assert!(counts.balance());
        let drops: Vec<_> = counts.drops().collect();
        assert_eq!(drops, [(DropReason::Runt, 1), (DropReason::VmBusy, 1)]);
        assert_eq!(counts.dropped_for(DropReason::VmGone), 0);
    }

    #[test]
    fn an_error_leaves_its_number() {
        let stats = Stats::new();
        stats.add_error(&io::Error::from_raw_os_error(5));
        assert_eq!((stats.counts().errors, stats.counts().last_error), (1, 5));
    }
}
