//! What the two threads of a direction have in common: the way to stop, the counters, and
//! the ring in which batches go round.
//!
//! ```text
//!              reader ---- filled ----> writer
//!                 ^                        |
//!                 +-------- empty ---------+
//! ```
//!
//! The ring is two bounded channels of pointers. The reader starts with one batch in hand and
//! the spares at home. It knows that the writer is idle when all spares are at home again,
//! so no further word has to pass between the two.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrayvec::ArrayVec;
use crossbeam_channel::{Receiver, Sender, bounded};

use super::Direction;
use crate::batch::Batch;
use crate::endpoint::{Sent, Sink};
use crate::filter::DropReason;
use crate::stats::Stats;
use crate::stop::Stop;

/// One direction's surroundings.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    pub(super) stop: Stop,
    pub(super) stats: Arc<Stats>,
    pub(super) vm_gone: Arc<AtomicBool>,
    pub(super) direction: Direction,
}

impl Lane {
    /// The VM is gone for good: there is nothing left to do for anybody.
    pub(super) fn end_as_vm_is_gone(&self) {
        self.vm_gone.store(true, Ordering::Release);
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
                    self.drop_pending(batch, DropReason::VmGone);
                    self.end_as_vm_is_gone();
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

/// The reader's side of the ring.
#[derive(Debug)]
pub(super) struct ReaderSide {
    filled: Sender<Box<Batch>>,
    empty: Receiver<Box<Batch>>,
    /// Spares, the one used last on top: its memory is the most likely to be in cache.
    home: ArrayVec<Box<Batch>, SPARES>,
}

/// The writer's side of the ring.
#[derive(Debug)]
pub(super) struct WriterSide {
    pub(super) filled: Receiver<Box<Batch>>,
    pub(super) empty: Sender<Box<Batch>>,
}

/// Makes the ring with its spare batches.
pub(super) fn ring(max_frame: usize) -> (ReaderSide, WriterSide) {
    let (to_writer, filled) = bounded(SPARES);
    let (to_reader, empty) = bounded(SPARES);
    let home = (0..SPARES)
        .map(|_| Box::new(Batch::new(max_frame)))
        .collect();
    let reader_side = ReaderSide {
        filled: to_writer,
        empty,
        home,
    };
    (
        reader_side,
        WriterSide {
            filled,
            empty: to_reader,
        },
    )
}

impl ReaderSide {
    /// Waits for a batch once, in vain: the first wait makes room in the channel for one
    /// sleeper, which is to happen before frames flow.
    pub(super) fn warm_up(&self) {
        let _ = self.empty.recv_timeout(Duration::from_millis(1));
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
        // There is room for every batch that can be away, so this does not wait.
        let _ = self.filled.send(batch);
    }
}

/// Spare batches per direction. Four ride out a pause of the other side, and more would only
/// add to what a slow receiver finds queued (and to memory: 48 KiB each at an MTU of 1500).
const SPARES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_writer_is_idle_once_every_batch_is_home() {
        let (mut reader, writer) = ring(100);
        assert!(reader.writer_is_idle());
        for _ in 0..SPARES {
            let batch = reader.take_spare().unwrap();
            reader.hand_over(batch);
            assert!(!reader.writer_is_idle());
        }
        for _ in 0..SPARES {
            assert!(!reader.writer_is_idle());
            writer.empty.send(writer.filled.recv().unwrap()).unwrap();
        }
        assert!(reader.writer_is_idle());
    }

    #[test]
    fn the_reader_waits_for_a_spare_and_gives_up_only_with_the_writer() {
        let (mut reader, writer) = ring(100);
        for _ in 0..SPARES {
            let batch = reader.take_spare().unwrap();
            reader.hand_over(batch);
        }
        let waiting = std::thread::spawn(move || {
            let spare = reader.take_spare();
            (spare.is_some(), reader.take_spare().is_none())
        });
        writer.empty.send(writer.filled.recv().unwrap()).unwrap();
        drop(writer);
        assert_eq!(waiting.join().unwrap(), (true, true));
    }
}
