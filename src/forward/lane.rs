//! What the two threads of a direction have in common: the way to stop, the counters, and
//! the ring in which batches go round.
//!
//! ```text
//!              reader ----- jobs -----> writer
//!                 ^                        |
//!                 +-------- empty ---------+
//! ```
//!
//! The ring is two bounded channels of pointers; two more are for turns (`turns.rs`), and one
//! for the writer to say that it has started. The reader starts with one batch in hand and the
//! spares at home. It knows that the writer is idle when all spares are at home again, so no
//! further word has to pass between the two.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrayvec::ArrayVec;
use crossbeam_channel::{Receiver, Sender, bounded};

use super::Gone;
use crate::batch::Batch;
use crate::direction::Direction;
use crate::endpoint::{Sent, Sink};
use crate::filter::DropReason;
use crate::stats::Stats;
use crate::stop::Stop;
use crate::sys::affinity::Apart;

/// One direction's surroundings.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    pub(super) stop: Stop,
    pub(super) stats: Arc<Stats>,
    pub(super) gone: Arc<Gone>,
    pub(super) direction: Direction,
}

impl Lane {
    /// Where the frames come from is gone for good: there is nothing left to do for anybody.
    pub(super) fn end_as_source_is_gone(&self) {
        self.end_without(match self.direction {
            Direction::Outbound => &self.gone.vm,
            Direction::Inbound => &self.gone.host,
        });
    }

    /// The same of where they go to.
    fn end_as_sink_is_gone(&self) {
        self.end_without(match self.direction {
            Direction::Outbound => &self.gone.host,
            Direction::Inbound => &self.gone.vm,
        });
    }

    fn end_without(&self, end: &AtomicBool) {
        end.store(true, Ordering::Release);
        self.stop.set();
    }

    /// Sends what can be sent without waiting for room, and counts it. Returns whether
    /// nothing is pending: frames that the other side does not accept are dropped.
    pub(super) fn send_now<S: Sink>(&self, sink: &mut S, batch: &mut Batch) -> bool {
        loop {
            let before = batch.pending().len();
            let sent = sink.send(batch);
            self.stats.add_forwarded(before - batch.pending().len());
            match sent {
                Sent::All => return true,
                Sent::Full => return false,
                Sent::Refused(error) => {
                    self.stats.add_error(&error);
                    self.stats.add_dropped(S::REFUSED, 1);
                    batch.advance(1);
                }
                Sent::Gone => {
                    let reason = match self.direction {
                        Direction::Outbound => S::REFUSED,
                        Direction::Inbound => DropReason::VmGone,
                    };
                    self.drop_pending(batch, reason);
                    self.end_as_sink_is_gone();
                    return true;
                }
            }
        }
    }

    /// Sends everything, waiting for room as long as the sink finds it worth while; drops
    /// what is left then, or when it is time to stop. Returns whether it had to wait.
    pub(super) fn send_patiently<S: Sink>(&self, sink: &mut S, batch: &mut Batch) -> bool {
        let mut waits = 0;
        while !self.send_now(sink, batch) {
            if self.stop.is_set() {
                self.drop_pending(batch, DropReason::Stopping);
                break;
            }
            if !sink.wait_for_room(&self.stop, waits) {
                self.drop_pending(batch, S::FULL);
                break;
            }
            self.stats.add_wait();
            waits += 1;
        }
        waits > 0
    }

    fn drop_pending(&self, batch: &mut Batch, reason: DropReason) {
        let pending = batch.pending().len();
        self.stats.add_dropped(reason, pending);
        batch.advance(pending);
    }
}

/// What the reader asks the writer for. `I` is the direction's intake.
#[derive(Debug)]
pub(super) enum Job<I> {
    /// To send this batch.
    Send(Box<Batch>),
    /// To take in a batch, leaving the other one in its place, and to send it (`turns.rs`).
    Turn(Box<I>, Box<Batch>),
}

/// The reader's side of the ring.
#[derive(Debug)]
pub(super) struct ReaderSide<I> {
    jobs: Sender<Job<I>>,
    empty: Receiver<Box<Batch>>,
    /// Spares, the one used last on top: its memory is the most likely to be in cache.
    home: ArrayVec<Box<Batch>, SPARES>,
    intakes: Receiver<Box<I>>,
    sent: Sender<()>,
    /// The writer's thread, once it has started.
    writer: Option<Apart>,
    started: Receiver<Apart>,
}

/// The writer's side of the ring.
#[derive(Debug)]
pub(super) struct WriterSide<I> {
    pub(super) jobs: Receiver<Job<I>>,
    pub(super) empty: Sender<Box<Batch>>,
    /// Where an intake goes back.
    pub(super) intakes: Sender<Box<I>>,
    /// Says that the reader has sent the batch before one's own.
    pub(super) sent: Receiver<()>,
    started: Sender<Apart>,
}

/// Makes the ring with its spare batches.
pub(super) fn ring<I>(max_frame: usize) -> (ReaderSide<I>, WriterSide<I>) {
    let (to_writer, jobs) = bounded(SPARES);
    let (to_reader, empty) = bounded(SPARES);
    let (back, intakes) = bounded(1);
    let (say, sent) = bounded(1);
    let (start, started) = bounded(1);
    let home = (0..SPARES)
        .map(|_| Box::new(Batch::new(max_frame)))
        .collect();
    let reader_side = ReaderSide {
        jobs: to_writer,
        empty,
        home,
        intakes,
        sent: say,
        writer: None,
        started,
    };
    let writer_side = WriterSide {
        jobs,
        empty: to_reader,
        intakes: back,
        sent,
        started: start,
    };
    (reader_side, writer_side)
}

impl<I> ReaderSide<I> {
    /// Waits for the writer to start, and for each other thing once, in vain: the first wait
    /// makes room in the channel for one sleeper, which is to happen before frames flow.
    pub(super) fn warm_up(&mut self) {
        self.writer = self.started.recv().ok();
        let _ = self.empty.recv_timeout(WARM_UP);
        let _ = self.intakes.recv_timeout(WARM_UP);
    }

    /// Takes home what came back. Returns whether the writer has nothing to do: every batch
    /// that it was given is home.
    pub(super) fn writer_is_idle(&mut self) -> bool {
        while !self.home.is_full() {
            let Ok(batch) = self.empty.try_recv() else {
                return false;
            };
            self.home.push(batch);
        }
        true
    }

    /// Takes an empty batch, waiting until the writer returns one if need be. `None` means
    /// that the writer is gone, which only a panic there can cause.
    pub(super) fn take_spare(&mut self) -> Option<Box<Batch>> {
        self.writer_is_idle();
        self.home.pop().or_else(|| self.empty.recv().ok())
    }

    /// Gives a batch to the writer.
    pub(super) fn hand_over(&self, batch: Box<Batch>) {
        self.ask(Job::Send(batch));
    }

    /// Lends the intake to the writer, for one batch in the place of which it leaves the spare.
    /// It is to work on another core than the reader.
    pub(super) fn lend(&mut self, intake: Box<I>, spare: Box<Batch>) {
        if let Some(writer) = &mut self.writer {
            writer.keep_off_here();
        }
        self.ask(Job::Turn(intake, spare));
    }

    /// Lets the writer send what it has taken in since: the batch before that was sent.
    pub(super) fn was_sent(&mut self, batch: Box<Batch>) {
        self.home.push(batch);
        let _ = self.sent.send(());
    }

    /// The intake that was lent, if it is back already.
    pub(super) fn intake_now(&self) -> Option<Box<I>> {
        self.intakes.try_recv().ok()
    }

    /// Waits for the intake that was lent. `None` means that the writer is gone.
    pub(super) fn intake(&self) -> Option<Box<I>> {
        self.intakes.recv().ok()
    }

    fn ask(&self, job: Job<I>) {
        // There is room for every batch that can be away, so this does not wait.
        let _ = self.jobs.send(job);
    }
}

impl<I> WriterSide<I> {
    /// As [`ReaderSide::warm_up`]; and tells which thread this is, last of all: once the reader
    /// knows, what comes through `sent` is meant.
    pub(super) fn warm_up(&self) {
        let _ = self.sent.recv_timeout(WARM_UP);
        let _ = self.started.send(Apart::me());
    }
}

const WARM_UP: Duration = Duration::from_millis(1);

/// Spare batches per direction. They ride out a pause of the other side, and more would only
/// add to what a slow receiver finds queued (and to memory: 96 KiB each at an MTU of 1500).
const SPARES: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn give_back(writer: &WriterSide<()>) {
        let Job::Send(batch) = writer.jobs.recv().unwrap() else {
            panic!("no turn was asked for");
        };
        writer.empty.send(batch).unwrap();
    }

    #[test]
    fn the_writer_is_idle_once_every_batch_is_home() {
        let (mut reader, writer) = ring::<()>(100);
        assert!(reader.writer_is_idle());
        for _ in 0..SPARES {
            let batch = reader.take_spare().unwrap();
            reader.hand_over(batch);
            assert!(!reader.writer_is_idle());
        }
        for _ in 0..SPARES {
            assert!(!reader.writer_is_idle());
            give_back(&writer);
        }
        assert!(reader.writer_is_idle());
    }

    #[test]
    fn the_reader_waits_for_a_spare_and_gives_up_only_with_the_writer() {
        let (mut reader, writer) = ring::<()>(100);
        for _ in 0..SPARES {
            let batch = reader.take_spare().unwrap();
            reader.hand_over(batch);
        }
        let waiting = std::thread::spawn(move || {
            let spare = reader.take_spare();
            (spare.is_some(), reader.take_spare().is_none())
        });
        give_back(&writer);
        drop(writer);
        assert_eq!(waiting.join().unwrap(), (true, true));
    }
}
