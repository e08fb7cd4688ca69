//! Where a direction takes its frames in: receives a batch, and lets the filter judge each
//! frame in place.
//!
//! Whoever has the intake is the only one that receives. That is the reader, which may lend
//! it to the writer for a batch (see `turns.rs`).

use std::io;
use std::mem;
use std::time::Duration;

use super::lane::Lane;
use crate::batch::{Batch, FRAMES_MAX};
use crate::clock::{self, Tick};
use crate::endpoint::{Received, Source};
use crate::filter::{Filter, Verdict};

/// The source and the filter of one direction, with the batch that they fill.
#[derive(Debug)]
pub(super) struct Intake<Src, F> {
    lane: Lane,
    source: Src,
    filter: F,
    /// The frames taken in last; those that may pass are pending.
    pub(super) batch: Box<Batch>,
    limit: Limit,
    /// How many batches in a row came out full. The last one promises more, if it did.
    full: u32,
}

impl<Src: Source, F: Filter> Intake<Src, F> {
    pub(super) fn new(lane: Lane, source: Src, filter: F, max_frame: usize) -> Self {
        Self {
            lane,
            source,
            filter,
            batch: Box::new(Batch::new(max_frame)),
            limit: Limit::new(),
            full: 0,
        }
    }

    /// Waits for frames, takes in a batch of them and judges it. Returns false when it is time
    /// to stop.
    pub(super) fn fill(&mut self) -> bool {
        while !self.lane.stop.is_set() {
            // Waiting first saves a call that would find nothing, unless there is more.
            let waits = self.full == 0;
            if self.receive(waits) {
                return true;
            }
        }
        false
    }

    /// The same with what is there, if anything.
    pub(super) fn fill_now(&mut self) {
        self.receive(false);
    }

    /// Whether more small frames are there than one thread has just taken, twice in a row.
    pub(super) fn is_loaded(&self) -> bool {
        self.full >= LOADED && self.limit.frames() == FRAMES_MAX
    }

    /// See [`Limit::forget_pace`].
    pub(super) fn forget_pace(&mut self) {
        self.limit.forget_pace();
    }

    fn receive(&mut self, waits: bool) -> bool {
        let (batch, limit) = (&mut self.batch, self.limit.frames());
        let received = if waits {
            self.source.wait_and_recv(batch, limit, &self.lane.stop)
        } else {
            self.source.recv(batch, limit)
        };
        let full = mem::take(&mut self.full);
        match received {
            Received::Frames => {
                let (frames, bytes) = (self.batch.received(), self.batch.received_bytes());
                self.lane.stats.add_received(frames, bytes);
                if self.limit.promises_more(frames) {
                    self.full = full.saturating_add(1);
                }
                let clock = clock::read();
                self.limit.follow(frames, bytes, clock);
                self.judge(Tick::from(clock));
                return true;
            }
            Received::Nothing => {}
            Received::Gone => self.lane.end_as_source_is_gone(),
            Received::Failed(error) => self.pause_after(&error),
        }
        false
    }

    /// Queues the frames that may pass, and counts those that may not.
    fn judge(&mut self, now: Tick) {
        self.filter.begin(now);
        for index in 0..self.batch.received() {
            match self.filter.decide(&mut self.batch.slot(index)) {
                Verdict::Forward => self.batch.queue(index),
                Verdict::Drop(reason) => {
                    self.lane
                        .stats
                        .add_filtered(reason, self.batch.frame(index));
                }
            }
        }
    }

    /// An endpoint that fails again and again must not keep a core busy.
    fn pause_after(&self, error: &io::Error) {
        self.lane.stats.add_error(error);
        self.lane.stop.or_after(PAUSE);
    }
}

/// How many frames to receive at once: as many as make about 128 KiB, so that what was
/// received is still in the core's cache (2 MiB at most, shared) when it is sent.
///
/// One, after a frame that came alone: asking for more would cost a look at an empty queue.
#[derive(Debug)]
struct Limit {
    mean_len: usize,
    is_sparse: bool,
    last: Duration,
}

impl Limit {
    const fn new() -> Self {
        Self {
            mean_len: 0,
            is_sparse: false,
            last: Duration::ZERO,
        }
    }

    /// Follows the lengths of frames, a quarter of the way with each batch, and looks how long
    /// the last one took to come.
    fn follow(&mut self, frames: usize, bytes: usize, clock: Duration) {
        self.mean_len = (3 * self.mean_len + bytes / frames.max(1)) / 4;
        self.is_sparse = frames == 1 && clock.saturating_sub(self.last) > ALONE;
        self.last = clock;
    }

    /// The reader was held up: that a frame comes late then says nothing about the pace of
    /// frames. Without this, one frame at a time would be taken, and dropped after a wait of
    /// its own, from a full queue towards a VM that does not read.
    fn forget_pace(&mut self) {
        self.is_sparse = false;
        self.last = Duration::MAX;
    }

    /// How many frames to ask for.
    fn frames(&self) -> usize {
        match self.mean_len {
            _ if self.is_sparse => 1,
            JUMBO.. => 1,
            len => (BATCH_BYTES / len.max(1)).clamp(FRAMES_MIN, FRAMES_MAX),
        }
    }

    /// Whether a batch of so many frames says that there are others.
    fn promises_more(&self, frames: usize) -> bool {
        frames == self.frames() && !self.is_sparse
    }
}

const BATCH_BYTES: usize = 128 << 10;
const FRAMES_MIN: usize = 4;
/// From this length on a frame goes alone, through one buffer that stays in the first cache.
const JUMBO: usize = 8 << 10;
/// A frame that comes this long after the one before does not belong to a burst.
const ALONE: Duration = Duration::from_micros(20);
const PAUSE: Duration = Duration::from_millis(200);
/// So many full batches in a row are a load, and not only one large burst.
const LOADED: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_as_large_as_its_bytes_allow() {
        let mut limit = Limit::new();
        for (len, frames) in [(64, 64), (1514, 64), (8000, 16), (65_000, 1), (64, 64)] {
            for _ in 0..40 {
                limit.follow(4, 4 * len, Duration::ZERO);
            }
            assert_eq!(limit.frames(), frames, "{len}");
            assert!(limit.promises_more(frames) && !limit.promises_more(frames - 1));
        }
    }

    #[test]
    fn after_a_frame_that_came_alone_one_is_expected() {
        let mut limit = Limit::new();
        let mut clock = Duration::from_secs(1);
        let mut follow = |frames, micros| {
            clock += Duration::from_micros(micros);
            limit.follow(frames, 64 * frames, clock);
            (limit.frames(), limit.promises_more(limit.frames()))
        };
        assert_eq!(follow(1, 100), (1, false));
        assert_eq!(follow(1, 100), (1, false));
        assert_eq!(follow(1, 3), (FRAMES_MAX, true), "a burst has begun");
        assert_eq!(follow(14, 3), (FRAMES_MAX, true));
        assert_eq!(follow(14, 500), (FRAMES_MAX, true), "another burst");
        assert_eq!(follow(1, 500), (1, false));
    }

    #[test]
    fn after_a_hold_up_a_frame_is_not_thought_to_come_alone() {
        let mut limit = Limit::new();
        limit.follow(1, 1514, Duration::from_millis(1));
        assert_eq!(limit.frames(), 1);
        for wait in 2..5 {
            limit.forget_pace();
            assert_eq!(limit.frames(), FRAMES_MAX, "the queue may have grown");
            limit.follow(1, 1514, Duration::from_millis(wait));
            assert_eq!(
                limit.frames(),
                FRAMES_MAX,
                "the frame waited for us, not we for it"
            );
        }
        limit.follow(1, 1514, Duration::from_millis(6));
        assert_eq!(limit.frames(), 1);
    }
}
