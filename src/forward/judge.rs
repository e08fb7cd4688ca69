//! Judging: the filter decides about each frame in place, and nothing is copied.

use super::answers::Answers;
use crate::batch::Batch;
use crate::clock::Tick;
use crate::filter::{Filter, Verdict};
use crate::stats::Stats;

/// Queues the frames of a batch that the filter passes, and counts the others.
pub(super) fn judge(
    filter: &mut impl Filter,
    batch: &mut Batch,
    answers: &Answers,
    stats: &Stats,
    now: Tick,
) {
    filter.begin(now);
    for index in 0..batch.received() {
        match filter.decide(&mut batch.slot(index)) {
            Verdict::Forward => batch.queue(index),
            Verdict::Drop(reason) => {
                stats.add_filtered(reason, batch.frame(index));
                filter.dropped(batch.frame(index), reason);
                answers.give(filter, batch.frame(index), reason);
            }
        }
    }
}
