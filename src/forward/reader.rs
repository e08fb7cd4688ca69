//! A direction's first station: takes frames in and sends what may pass, all in one thread and
//! without copying.
//!
//! A wake-up costs more than forwarding ten frames, so the batch crosses to the writer's
//! thread only if the other side has no room ([`HandOver::Auto`](super::HandOver)), and
//! then until the writer has caught up: order is kept. With all batches on the way the
//! reader stops reading, which the sending side feels as a full queue.

use std::mem;

use super::HandOver;
use super::intake::Intake;
use super::lane::{Lane, ReaderSide};
use super::turns::Turns;
use crate::endpoint::{Sink, Source};
use crate::filter::Filter;

/// The reader of one direction.
#[derive(Debug)]
pub(super) struct Reader<Src, F, Snk> {
    lane: Lane,
    intake: Box<Intake<Src, F>>,
    sink: Snk,
}

impl<Src: Source, F: Filter, Snk: Sink> Reader<Src, F, Snk> {
    pub(super) fn new(lane: Lane, source: Src, filter: F, sink: Snk, max_frame: usize) -> Self {
        let intake = Box::new(Intake::new(lane.clone(), source, filter, max_frame));
        Self { lane, intake, sink }
    }

    /// Forwards until it is time to stop, waiting for room in this thread.
    pub(super) fn run_alone(mut self) {
        while self.intake.fill() {
            let batch = &mut self.intake.batch;
            if self.lane.send_patiently(&mut self.sink, batch) {
                self.intake.forget_pace();
            }
        }
    }

    /// Forwards until it is time to stop, and leaves the waiting to the writer; also the
    /// sending, or every other batch, if `hand_over` says so.
    pub(super) fn run(self, mut ring: ReaderSide<Intake<Src, F>>, hand_over: HandOver) {
        let Self {
            lane,
            mut intake,
            mut sink,
        } = self;
        let mut turns = Turns::new(hand_over == HandOver::Load);
        ring.warm_up();
        while intake.fill() {
            if intake.batch.pending().len() == 0 {
                continue;
            }
            let inline = hand_over != HandOver::Always
                && (ring.writer_is_idle() || turns.awaits_writer(&mut ring));
            if inline && turns.are_worth_while(&intake) {
                match turns.take(&lane, intake, &mut sink, &mut ring) {
                    Some(back) => intake = back,
                    None => return,
                }
                continue;
            }
            if inline && lane.send_now(&mut sink, &mut intake.batch) {
                continue;
            }
            lane.stats.add_handed_over();
            let Some(spare) = ring.take_spare() else {
                return;
            };
            ring.hand_over(mem::replace(&mut intake.batch, spare));
            intake.forget_pace();
        }
    }
}
