//! The ring in which batches circulate between the reader and the writer of a direction.
//!
//! ```text
//!   spares --> reader ----- jobs -----> writer
//!     ^                                    |
//!     +-------------- empty ---------------+
//! ```
//!
//! It consists of two bounded channels of pointers, and the spare batches that the reader holds,
//! beside one more in its receive stage. A batch has one owner at any time. Both channels
//! have room for all spares, so neither thread ever waits to send. The reader waits only if it
//! needs a spare and the writer has them all.
//!
//! The writer is idle exactly when the reader holds all spares again, so it needs no other way to
//! signal that it has caught up.

use std::mem;
use std::time::Duration;

use arrayvec::ArrayVec;

use super::channel::{Receiver, Sender, bounded};
use crate::batch::Batch;

/// The reader's side. A job `J` is a batch to send, or more than that (`alternate.rs`).
#[derive(Debug)]
pub(super) struct ReaderSide<J> {
    jobs: Sender<J>,
    empty: Receiver<Box<Batch>>,
    /// The spares. The last one used is on top, because its memory is most likely to be in the
    /// cache.
    spares: ArrayVec<Box<Batch>, SPARES>,
}

/// The writer's side.
#[derive(Debug)]
pub(super) struct WriterSide<J> {
    jobs: Receiver<J>,
    empty: Sender<Box<Batch>>,
}

/// Creates the ring, with all of its spare batches.
pub(super) fn new<J>(max_frame: usize) -> (ReaderSide<J>, WriterSide<J>) {
    let (to_writer, jobs) = bounded(SPARES);
    let (to_reader, empty) = bounded(SPARES);
    let reader_side = ReaderSide {
        jobs: to_writer,
        empty,
        spares: (0..SPARES)
            .map(|_| Box::new(Batch::new(max_frame)))
            .collect(),
    };
    let writer_side = WriterSide {
        jobs,
        empty: to_reader,
    };
    (reader_side, writer_side)
}

impl<J> ReaderSide<J> {
    /// Sends an empty batch around, so that the writer has started, and then waits on an empty
    /// channel. A thread allocates memory when it first sleeps on a channel, and this should happen
    /// in both threads before frames flow.
    pub(super) fn warm_up(&mut self)
    where
        J: From<Box<Batch>>,
    {
        if let Some(batch) = self.take_spare() {
            self.give(batch.into());
        }
        self.spares.extend(self.empty.recv().ok());
        let _ = self.empty.recv_timeout(WARM_UP);
    }

    /// Takes back the batches that the writer gave back. Returns whether the writer has nothing to
    /// do, that is, every batch that it was given is back.
    pub(super) fn writer_is_idle(&mut self) -> bool {
        while !self.spares.is_full() {
            let Ok(batch) = self.empty.try_recv() else {
                return false;
            };
            self.spares.push(batch);
        }
        true
    }

    /// Hands a batch over to the writer, and puts a spare in its place. If there is none, waits for
    /// the writer to give one back. Returns false if the writer has ended, which only a panic can
    /// cause.
    pub(super) fn hand_over(&mut self, batch: &mut Box<Batch>) -> bool
    where
        J: From<Box<Batch>>,
    {
        let Some(spare) = self.take_spare() else {
            return false;
        };
        self.give(mem::replace(batch, spare).into());
        true
    }

    /// Takes a spare batch. If there is none, waits for the writer to give one back. `None` means
    /// that the writer has ended.
    pub(super) fn take_spare(&mut self) -> Option<Box<Batch>> {
        self.writer_is_idle();
        self.spares.pop().or_else(|| self.empty.recv().ok())
    }

    /// Puts back a spare batch that was taken and not given to the writer.
    pub(super) fn keep(&mut self, batch: Box<Batch>) {
        self.spares.push(batch);
    }

    /// Gives the writer a job, with a spare that was taken before.
    pub(super) fn give(&self, job: J) {
        // There is room for every batch that can be away, so this does not wait.
        let _ = self.jobs.send(job);
    }
}

impl<J> WriterSide<J> {
    /// Waits for the next job. `None` means that the reader has ended.
    pub(super) fn next(&self) -> Option<J> {
        self.jobs.recv().ok()
    }

    /// The next job, if there is one now.
    pub(super) fn next_now(&self) -> Option<J> {
        self.jobs.try_recv().ok()
    }

    /// Gives back a batch that was sent.
    pub(super) fn give_back(&self, batch: Box<Batch>) {
        // If the reader has ended, the remaining batches still have to be sent.
        let _ = self.empty.send(batch);
    }
}

/// How long the reader waits in [`ReaderSide::warm_up`].
const WARM_UP: Duration = Duration::from_millis(1);

/// Spare batches per direction, which absorb a pause of the other side. More of them would only
/// lengthen the queue in front of a slow receiver, and cost memory: 96 KiB each at an MTU of 1500.
const SPARES: usize = 2;

#[cfg(test)]
mod tests;
