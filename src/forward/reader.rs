//! The first thread of a direction: receives, judges and sends, without copying a frame.
//!
//! Waking another thread costs more than forwarding ten frames. So by default
//! ([`HandOver::Auto`](super::HandOver::Auto)) a batch goes to the writer only if the other side
//! has no room. All batches that follow go there too until the writer has caught up, which keeps
//! frames in order. When the writer has all spare batches, the reader stops receiving, and the
//! sending side finds its queue full.

use super::receive::ReceiveStage;
use super::ring;
use super::send::SendStage;
use crate::batch::Batch;
use crate::endpoint::{Sink, Source};
use crate::filter::Filter;

/// Forwards until it must stop, and lets the writer wait for room; with `always`, the writer does
/// all the sending.
pub(super) fn run<Src: Source, F: Filter>(
    mut receive: ReceiveStage<Src, F>,
    mut send: SendStage<impl Sink>,
    mut ring: ring::ReaderSide<Box<Batch>>,
    always: bool,
) {
    ring.warm_up();
    while receive.fill() {
        if receive.batch.pending().len() == 0 {
            continue;
        }
        if !always && ring.writer_is_idle() && send.send_now(&mut receive.batch) {
            continue;
        }
        send.lane.stats.add_handed_over();
        if !ring.hand_over(&mut receive.batch) {
            return;
        }
        receive.forget_pace();
    }
}

/// The same without a writer: this thread itself waits for room.
pub(super) fn run_alone<Src: Source, F: Filter>(
    mut receive: ReceiveStage<Src, F>,
    mut send: SendStage<impl Sink>,
) {
    while receive.fill() {
        if send.send_patiently(&mut receive.batch) {
            receive.forget_pace();
        }
    }
}
