//! A direction's second station: takes over batches that the other side has no room for, and
//! waits for the room. Asleep while the reader can send by itself.
//!
//! Under [`HandOver::Load`](super::HandOver::Load) it also carries batches of its own, in turns
//! with the reader.

use super::intake::Intake;
use super::lane::{Job, Lane, WriterSide};
use super::turns;
use crate::endpoint::{Sink, Source};
use crate::filter::Filter;

/// Does what the reader asks for, in order, until the reader ends.
pub(super) fn run<Src: Source, F: Filter>(
    lane: &Lane,
    mut sink: impl Sink,
    ring: &WriterSide<Intake<Src, F>>,
) {
    ring.warm_up();
    let mut next = None;
    while let Some(job) = next.take().or_else(|| ring.jobs.recv().ok()) {
        let (mut batch, is_turn) = match job {
            Job::Send(batch) => (batch, false),
            Job::Turn(intake, spare) => match turns::take_in(intake, spare, ring) {
                Some(batch) => {
                    if batch.received() > 0 {
                        lane.stats.add_handed_over();
                    }
                    (batch, true)
                }
                None => return,
            },
        };
        lane.send_patiently(&mut sink, &mut batch);
        // With the reader gone already, the batches that are left still have to be sent.
        let _ = ring.empty.send(batch);
        if is_turn {
            next = turns::soon(turns::MOMENT, || ring.jobs.try_recv().ok());
        }
    }
}
