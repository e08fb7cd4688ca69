//! Sending: sends the pending frames of a batch to the other side, and counts what happened to
//! them.
//!
//! Both threads of a direction have a [`SendStage`] for the same sink, but only one of them sends
//! at a time: the reader sends only while the writer has nothing to do.

use super::lane::Lane;
use crate::batch::Batch;
use crate::direction::Direction;
use crate::endpoint::{Sent, Sink};
use crate::filter::DropReason;

/// One thread's access to the sink of its direction.
#[derive(Debug)]
pub(super) struct SendStage<Snk> {
    pub(super) lane: Lane,
    sink: Snk,
}

impl<Snk: Sink> SendStage<Snk> {
    pub(super) const fn new(lane: Lane, sink: Snk) -> Self {
        Self { lane, sink }
    }

    /// Sends what can be sent without waiting for room. Frames that the other side refuses are
    /// dropped. Returns whether nothing is pending any more.
    pub(super) fn send_now(&mut self, batch: &mut Batch) -> bool {
        loop {
            let before = batch.pending().len();
            let sent = self.sink.send(batch);
            let stats = &self.lane.stats;
            stats.add_forwarded(before - batch.pending().len());
            match sent {
                Sent::All => return true,
                Sent::Full => return false,
                Sent::Refused(error) => {
                    stats.add_error(&error);
                    stats.add_dropped(Snk::REFUSED, 1);
                    batch.advance(1);
                }
                Sent::Gone => {
                    let reason = match self.lane.direction {
                        Direction::Outbound => Snk::REFUSED,
                        Direction::Inbound => DropReason::VmGone,
                    };
                    self.drop_pending(batch, reason);
                    self.lane.end_as_sink_is_gone();
                    return true;
                }
            }
        }
    }

    /// Sends everything, and waits for room as long as the sink allows. After that, or if it must
    /// stop, drops the rest. Returns whether it had to wait.
    pub(super) fn send_patiently(&mut self, batch: &mut Batch) -> bool {
        let mut waits = 0;
        while !self.send_now(batch) {
            if self.lane.stop.is_set() {
                self.drop_pending(batch, DropReason::Stopping);
                break;
            }
            if !self.sink.wait_for_room(&self.lane.stop, waits) {
                self.drop_pending(batch, Snk::FULL);
                break;
            }
            self.lane.stats.add_wait();
            waits += 1;
        }
        waits > 0
    }

    fn drop_pending(&self, batch: &mut Batch, reason: DropReason) {
        let pending = batch.pending().len();
        self.lane.stats.add_dropped(reason, pending);
        batch.advance(pending);
    }
}
