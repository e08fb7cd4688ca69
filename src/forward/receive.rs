//! Receiving: receives a batch of frames and has the filter judge it.
//!
//! Only one thread of a direction receives at a time: the one that has the [`ReceiveStage`]. That
//! is the reader; with `--hand-over load` it lends the stage to the writer (`alternate.rs`).

use std::io;
use std::mem;
use std::time::Duration;

use super::answers::Answers;
use super::judge::judge;
use super::lane::Lane;
use crate::batch::{Batch, FRAMES_MAX};
use crate::clock::{self, Tick};
use crate::endpoint::{Received, Source};
use crate::filter::Filter;

/// The source and the filter of one direction, and the batch that they fill.
#[derive(Debug)]
pub(super) struct ReceiveStage<Src, F> {
    lane: Lane,
    source: Src,
    filter: F,
    answers: Answers,
    /// The frames received last. Those that the filter passes are pending.
    pub(super) batch: Box<Batch>,
    limit: Limit,
    /// How many batches in a row were full. If the last one was full, more frames are waiting.
    full: u32,
}

impl<Src: Source, F: Filter> ReceiveStage<Src, F> {
    pub(super) fn new(
        lane: Lane,
        source: Src,
        filter: F,
        answers: Answers,
        max_frame: usize,
    ) -> Self {
        Self {
            lane,
            source,
            filter,
            answers,
            batch: Box::new(Batch::new(max_frame)),
            limit: Limit::new(),
            full: 0,
        }
    }

    /// Waits for frames, receives a batch of them and judges it. Returns false when it must stop.
    pub(super) fn fill(&mut self) -> bool {
        while !self.lane.stop.is_set() {
            // Waiting first saves a call that would find nothing, unless more frames are there.
            let waits = self.full == 0;
            if self.receive(waits) {
                return true;
            }
        }
        false
    }

    /// Receives and judges what is there now, which may be nothing.
    pub(super) fn fill_now(&mut self) {
        self.receive(false);
    }

    /// Whether small frames arrive faster than one thread can handle: at least the last two batches
    /// were full.
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
                let now = Tick::from(clock);
                let (filter, stats) = (&mut self.filter, &self.lane.stats);
                judge(filter, &mut self.batch, &self.answers, stats, now);
                self.take_answers();
                return true;
            }
            Received::Nothing => {
                self.batch.clear();
                return self.take_answers();
            }
            Received::Gone => self.lane.end_as_source_is_gone(),
            Received::Failed(error) => self.pause_after(&error),
        }
        false
    }

    /// Returns whether there were any.
    fn take_answers(&mut self) -> bool {
        let taken = self.answers.take(&mut self.batch);
        if taken > 0 {
            self.lane.stats.add_answers(taken);
        }
        taken > 0
    }

    /// An endpoint that fails again and again must not keep a core busy.
    fn pause_after(&self, error: &io::Error) {
        self.lane.stats.add_error(error);
        self.lane.stop.or_after(PAUSE);
    }
}

/// How many frames to receive at once: about 128 KiB of them, so that they are still in the core's
/// cache (2 MiB at most, shared) when they are sent.
///
/// After a frame that came alone it is one. Asking for more would cost a read of an empty queue.
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

    /// Updates the mean length, in which each batch counts for a quarter, and records how long this
    /// batch took to arrive.
    fn follow(&mut self, frames: usize, bytes: usize, clock: Duration) {
        self.mean_len = (3 * self.mean_len + bytes / frames.max(1)) / 4;
        self.is_sparse = frames == 1 && clock.saturating_sub(self.last) > ALONE;
        self.last = clock;
    }

    /// Forgets when the last batch arrived, because the reader was delayed after it: the time until
    /// the next batch says nothing about the rate of frames. Without this, when a VM does not read,
    /// frames would leave a full queue one at a time, each dropped after a wait of its own.
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

    /// Whether a batch of `frames` frames suggests that more are waiting.
    fn promises_more(&self, frames: usize) -> bool {
        frames >= self.frames() && !self.is_sparse
    }
}

const BATCH_BYTES: usize = 128 << 10;
const FRAMES_MIN: usize = 4;
/// A frame of at least this length is received alone, so that a single slot is used again and again
/// and stays in the first-level cache.
const JUMBO: usize = 8 << 10;
/// A frame that arrives later than this after the last batch is not part of a burst.
const ALONE: Duration = Duration::from_micros(20);
/// How long to wait after a failure before receiving again.
const PAUSE: Duration = Duration::from_millis(200);
/// This many full batches in a row are load, not just one large burst.
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
    fn a_frame_that_arrives_after_a_hold_up_does_not_count_as_alone() {
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
                "the frame waited for the reader, not the reader for the frame"
            );
        }
        limit.follow(1, 1514, Duration::from_millis(6));
        assert_eq!(limit.frames(), 1);
    }
}
