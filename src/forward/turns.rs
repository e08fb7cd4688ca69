//! Taking turns: under [`HandOver::Load`](super::HandOver::Load) the writer carries every other
//! batch itself, from the intake to the sink, as long as frames are small, more of them are
//! there than one thread takes, and a core is free.
//!
//! ```text
//!   reader   | take in 1 | send 1    | take in 3 | send 3    |
//!   writer               | take in 2 | send 2    | take in 4 | send 4
//! ```
//!
//! What crosses to the other core is who may take in and who may send, and not the frames. In
//! a pipeline they do cross, and that costs half of what the second core gives
//! (docs/performance.md). Order is kept, since each is done by one at a time, in turn.
//!
//! The two wait for each other without sleeping, for a moment. Where that is not enough, the
//! other one is not on a core of its own, and the reader goes on alone: for a while that
//! grows with each attempt in vain, as one may fail by chance.

use std::hint;
use std::mem;
use std::time::{Duration, Instant};

use super::intake::Intake;
use super::lane::{Lane, ReaderSide, WriterSide};
use crate::batch::Batch;
use crate::endpoint::{Sink, Source};
use crate::filter::Filter;

/// The reader's view of it.
#[derive(Debug)]
pub(super) struct Turns {
    allowed: bool,
    /// Whether the writer is sending the batch of its turn.
    is_on: bool,
    /// For so many batches that would be worth it, no turns are tried.
    alone: u32,
    distrust: Distrust,
}

impl Turns {
    pub(super) const fn new(allowed: bool) -> Self {
        Self {
            allowed,
            is_on: false,
            alone: 0,
            distrust: Distrust(0),
        }
    }

    /// Whether to take turns with the batch that is in the intake.
    pub(super) fn are_worth_while<Src: Source, F: Filter>(
        &mut self,
        intake: &Intake<Src, F>,
    ) -> bool {
        if !self.allowed || !intake.is_loaded() {
            self.is_on = false;
            return false;
        }
        let alone = self.alone;
        self.alone = alone.saturating_sub(1);
        alone == 0
    }

    /// Waits until the writer has sent the batch of its turn, if it had one. False means that
    /// it has still to send.
    pub(super) fn awaits_writer<I>(&mut self, ring: &mut ReaderSide<I>) -> bool {
        if !self.is_on {
            return false;
        }
        let in_time = soon(MOMENT, || ring.writer_is_idle().then_some(())).is_some();
        if !in_time {
            self.fail();
        }
        in_time
    }

    /// Lends the intake to the writer, which is idle, for the next batch, sends this one, and
    /// takes the intake back. `None` means that the writer is gone, which only a panic there
    /// can cause.
    pub(super) fn take<Src: Source, F: Filter>(
        &mut self,
        lane: &Lane,
        mut intake: Box<Intake<Src, F>>,
        sink: &mut impl Sink,
        ring: &mut ReaderSide<Intake<Src, F>>,
    ) -> Option<Box<Intake<Src, F>>> {
        let (next, spare) = (ring.take_spare()?, ring.take_spare()?);
        let mut batch = mem::replace(&mut intake.batch, next);
        let is_awake = self.is_on;
        ring.lend(intake, spare);
        let waited = lane.send_patiently(sink, &mut batch);
        ring.was_sent(batch);
        let moment = if is_awake { MOMENT } else { WAKING };
        let in_time = soon(moment, || ring.intake_now());
        // Neither helps a second thread against a full sink.
        if in_time.is_some() && !waited {
            self.is_on = true;
            self.distrust.ease();
        } else {
            self.fail();
        }
        let mut intake = in_time.or_else(|| ring.intake())?;
        if waited {
            intake.forget_pace();
        }
        Some(intake)
    }

    fn fail(&mut self) {
        self.is_on = false;
        self.alone = self.distrust.grow();
    }
}

/// For how many batches the reader goes on alone after a turn that failed.
///
/// A failure costs what some 16 turns gain. With fewer than that between two failures the
/// distrust grows, up to where attempts cost next to nothing, and with more it fades.
#[derive(Debug)]
struct Distrust(u32);

impl Distrust {
    fn grow(&mut self) -> u32 {
        self.0 = (2 * self.0).clamp(ALONE_MIN, ALONE_MAX);
        self.0
    }

    fn ease(&mut self) {
        self.0 = self.0.saturating_sub(1);
    }
}

/// The writer's turn: takes in a batch, and waits until it may be sent. `None` means that the
/// reader is gone, which only a panic there can cause.
pub(super) fn take_in<Src: Source, F: Filter>(
    mut intake: Box<Intake<Src, F>>,
    spare: Box<Batch>,
    ring: &WriterSide<Intake<Src, F>>,
) -> Option<Box<Batch>> {
    intake.fill_now();
    let batch = mem::replace(&mut intake.batch, spare);
    ring.intakes.send(intake).ok()?;
    soon(MOMENT, || ring.sent.try_recv().ok()).or_else(|| ring.sent.recv().ok())?;
    Some(batch)
}

/// Looks again and again for what another thread is about to give, for a moment.
pub(super) fn soon<T>(moment: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let mut start = None;
    loop {
        for _ in 0..LOOKS {
            if let Some(found) = look() {
                return Some(found);
            }
            hint::spin_loop();
        }
        if start.get_or_insert_with(Instant::now).elapsed() > moment {
            return None;
        }
    }
}

/// Taking in or sending a batch takes 20 to 60 microseconds.
pub(super) const MOMENT: Duration = Duration::from_micros(100);
/// Waking a thread on a core that sleeps may take longer, in a virtual machine above all.
const WAKING: Duration = Duration::from_micros(500);
const LOOKS: u32 = 32;
/// One or two milliseconds under load.
const ALONE_MIN: u32 = 32;
/// Some 50 ms under load: one failed attempt costs a moment of that.
const ALONE_MAX: u32 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// For how many batches the reader goes on alone, after each of 100 attempts of so many
    /// good turns before the one that fails.
    fn alone(good_turns: u32) -> [u32; 100] {
        let mut distrust = Distrust(0);
        [(); 100].map(|()| {
            for _ in 0..good_turns {
                distrust.ease();
            }
            distrust.grow()
        })
    }

    #[test]
    fn attempts_in_vain_become_rare() {
        assert_eq!(alone(0)[..7], [32, 64, 128, 256, 512, 1024, 1024]);
        assert_eq!(
            alone(15)[99],
            ALONE_MAX,
            "a failure costs more than they gain"
        );
    }

    #[test]
    fn failures_by_chance_hardly_interrupt() {
        assert_eq!(alone(16), [ALONE_MIN; 100]);
        let mut distrust = Distrust(ALONE_MAX);
        for _ in 0..ALONE_MAX {
            distrust.ease();
        }
        assert_eq!(distrust.grow(), ALONE_MIN, "all is forgiven");
    }
}
