//! Counts what happens to the frames of a direction: every received frame is either forwarded or
//! dropped for a reason, and so is every answer that softnet adds, so the numbers add up.
//!
//! The forwarder's threads add to the counters once per batch. Reports read a [`Counts`]. No
//! decision depends on these numbers, so they are relaxed atomics.

use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use crate::filter::DropReason;
use crate::wire::Mac;
use crate::wire::ethernet::Ethernet;
use crate::wire::ipv4::Ipv4;

/// The counters of one direction, shared by its two threads. They have cache lines of their own, so
/// that counting in one direction does not slow the other.
#[derive(Debug)]
#[repr(align(128))]
pub struct Stats {
    received: AtomicU64,
    received_bytes: AtomicU64,
    answers: AtomicU64,
    forwarded: AtomicU64,
    dropped: [AtomicU64; DropReason::ALL.len()],
    handed_over: AtomicU64,
    waits: AtomicU64,
    errors: AtomicU64,
    last_error: AtomicI32,
    first_source_mac: First,
    first_source_address: First,
}

/// A snapshot of the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Frames received.
    pub received: u64,
    /// Bytes of these frames, headers included.
    pub received_bytes: u64,
    /// Answers to the VM's own frames, which softnet adds inbound. They are forwarded or dropped
    /// like frames that were received.
    pub answers: u64,
    /// Frames that the other side took.
    pub forwarded: u64,
    /// Frames dropped, by [`DropReason::index`].
    pub dropped: [u64; DropReason::ALL.len()],
    /// Batches that went through the writer's thread.
    pub handed_over: u64,
    /// How often a thread waited for room.
    pub waits: u64,
    /// System calls that failed unexpectedly.
    pub errors: u64,
    /// The last such failure, as an `errno`; 0 for none.
    pub last_error: i32,
    /// The source of the first frame that was dropped for [`DropReason::SourceMac`].
    pub first_source_mac: Option<Mac>,
    /// The source of the first packet that was dropped for [`DropReason::SourceAddress`].
    pub first_source_address: Option<Ipv4Addr>,
}

impl Stats {
    pub(crate) fn new() -> Self {
        Self {
            received: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            forwarded: AtomicU64::new(0),
            dropped: [const { AtomicU64::new(0) }; DropReason::ALL.len()],
            handed_over: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            last_error: AtomicI32::new(0),
            first_source_mac: First::new(),
            first_source_address: First::new(),
        }
    }

    pub(crate) fn add_received(&self, frames: usize, bytes: usize) {
        self.received.fetch_add(frames as u64, Ordering::Relaxed);
        self.received_bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_answers(&self, answers: usize) {
        self.answers.fetch_add(answers as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_forwarded(&self, frames: usize) {
        self.forwarded.fetch_add(frames as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_dropped(&self, reason: DropReason, frames: usize) {
        self.dropped[reason.index()].fetch_add(frames as u64, Ordering::Relaxed);
    }

    /// Counts a frame that the filter drops. For reasons that honest VMs cause too, it stores the
    /// source of the first frame for the log.
    pub(crate) fn add_filtered(&self, reason: DropReason, frame: &[u8]) {
        match reason {
            DropReason::SourceMac => self.first_source_mac.keep(frame, |frame| {
                let (ethernet, _) = Ethernet::split(frame)?;
                Some(ethernet.source.to_u64())
            }),
            DropReason::SourceAddress => self.first_source_address.keep(frame, |frame| {
                let (_, packet) = Ethernet::split(frame)?;
                Some(Ipv4::parse(packet)?.header.source.get().into())
            }),
            _ => {}
        }
        // After that, so that a reader of the count usually finds the source.
        self.add_dropped(reason, 1);
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

    /// Reads all counters. While frames flow, some of them may lack the current batch.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            received: self.received.load(Ordering::Relaxed),
            received_bytes: self.received_bytes.load(Ordering::Relaxed),
            answers: self.answers.load(Ordering::Relaxed),
            forwarded: self.forwarded.load(Ordering::Relaxed),
            dropped: self
                .dropped
                .each_ref()
                .map(|count| count.load(Ordering::Relaxed)),
            handed_over: self.handed_over.load(Ordering::Relaxed),
            waits: self.waits.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            last_error: self.last_error.load(Ordering::Relaxed),
            first_source_mac: self.first_source_mac.get().map(Mac::from_u64),
            first_source_address: self.first_source_address.get().map(|address| {
                #[allow(clippy::cast_possible_truncation)] // It was an address when it was kept.
                Ipv4Addr::from(address as u32)
            }),
        }
    }
}

/// A number of up to 63 bits that is stored only once.
#[derive(Debug)]
struct First(AtomicU64);

impl First {
    /// Marks that a number is stored, whatever it is.
    const KEPT: u64 = 1 << 63;

    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Stores what `read` finds in a frame, unless something is stored already.
    #[inline]
    fn keep(&self, frame: &[u8], read: fn(&[u8]) -> Option<u64>) {
        if self.0.load(Ordering::Relaxed) == 0 {
            self.keep_first(frame, read);
        }
    }

    #[cold]
    fn keep_first(&self, frame: &[u8], read: fn(&[u8]) -> Option<u64>) {
        if let Some(number) = read(frame) {
            // Both threads of a direction receive frames, but never at the same time.
            self.0.store(number | Self::KEPT, Ordering::Relaxed);
        }
    }

    fn get(&self) -> Option<u64> {
        let kept = self.0.load(Ordering::Relaxed);
        (kept != 0).then_some(kept & !Self::KEPT)
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

    /// Whether every frame that was received, and every answer, was forwarded or dropped, as must be
    /// the case once the forwarder has ended.
    #[must_use]
    pub fn balance(&self) -> bool {
        self.received + self.answers == self.forwarded + self.dropped.iter().sum::<u64>()
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
    fn the_source_of_the_first_frame_is_kept_for_the_reasons_that_honest_vms_meet() {
        let frame = |last: u8| {
            let mut frame = [0; 34];
            frame[11] = last;
            frame[12] = 8;
            frame[14..18].copy_from_slice(&[0x45, 0, 0, 20]);
            frame[26..30].copy_from_slice(&[172, 17, 0, last]);
            frame
        };
        let stats = Stats::new();
        for last in 1..4 {
            stats.add_filtered(DropReason::Runt, &frame(last));
        }
        let counts = stats.counts();
        assert_eq!(counts.first_source_mac, None);
        assert_eq!(counts.first_source_address, None);
        for last in [7, 8] {
            stats.add_filtered(DropReason::SourceMac, &frame(last));
            stats.add_filtered(DropReason::SourceAddress, &frame(last + 10));
        }
        let counts = stats.counts();
        assert_eq!(counts.first_source_mac, Some(Mac([0, 0, 0, 0, 0, 7])));
        let address = Ipv4Addr::new(172, 17, 0, 17);
        assert_eq!(counts.first_source_address, Some(address));
        assert_eq!(counts.dropped_for(DropReason::SourceMac), 2);
        assert_eq!(counts.dropped_for(DropReason::Runt), 3);
    }

    #[test]
    fn an_error_leaves_its_number() {
        let stats = Stats::new();
        stats.add_error(&io::Error::from_raw_os_error(5));
        assert_eq!((stats.counts().errors, stats.counts().last_error), (1, 5));
    }
}
