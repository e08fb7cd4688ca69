//! What the VM is told about its frames that are dropped: from the stage that judges what leaves
//! the VM to the one that receives for it, which alone sends to the VM.
//!
//! ```text
//!   outbound:  receive -> judge -- dropped -> Filter::answer
//!                                                  | queue, and the bell for a stage that waits
//!                                                  v
//!   inbound:              receive -> judge ----> batch ----> send -> VM
//! ```
//!
//! An answer joins the inbound batch behind the frames that were judged, so the two directions need
//! no lock, frames keep their order, and a VM that does not read loses answers like other frames.
//! It is not judged: the filter made it.

use std::io;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::batch::Batch;
use crate::filter::{DropReason, Filter};
use crate::stop::{Bell, Stop};
use crate::wire::answer::Answer;

/// What a receive stage has to do with answers.
#[derive(Debug, Default)]
pub(super) enum Answers {
    /// Nothing: there are none.
    #[default]
    None,
    /// Outbound: it gives them.
    Give(Sender<Answer>, Bell),
    /// Inbound: it takes them.
    Take(Receiver<Answer>),
}

/// The outbound and the inbound end, and the stop flag for the inbound direction, whose waits end
/// when there is an answer.
///
/// # Errors
/// If the process has no descriptors left for a pipe.
pub(super) fn new(stop: &Stop) -> io::Result<(Answers, Answers, Stop)> {
    let (give, take) = bounded(QUEUE_MAX);
    let (stop, bell) = stop.with_bell()?;
    Ok((Answers::Give(give, bell), Answers::Take(take), stop))
}

impl Answers {
    /// Tells the VM about a frame that was dropped, if there is something to tell. If too many
    /// answers are waiting, this one is lost.
    pub(super) fn give(&self, filter: &mut impl Filter, frame: &[u8], reason: DropReason) {
        if let Self::Give(queue, bell) = self
            && let Some(answer) = filter.answer(frame, reason)
            && queue.try_send(answer).is_ok()
        {
            bell.ring();
        }
    }

    /// Puts answers behind the frames of a batch, as many as there is room for, and returns how
    /// many.
    pub(super) fn take(&self, batch: &mut Batch) -> usize {
        let Self::Take(queue) = self else { return 0 };
        let mut taken = 0;
        while batch.has_room()
            && let Ok(answer) = queue.try_recv()
        {
            taken += usize::from(batch.append(answer.as_bytes()));
        }
        taken
    }
}

/// How many answers may wait: what a burst of connections needs.
const QUEUE_MAX: usize = 64;
