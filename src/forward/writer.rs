//! The second thread of a direction: takes over the batches for which the other side has no room,
//! and waits for room. It sleeps while the reader can send by itself.

use super::ring;
use super::send::SendStage;
use crate::batch::Batch;
use crate::endpoint::Sink;

/// Sends what the reader hands over, in order, until the reader ends.
pub(super) fn run(mut send: SendStage<impl Sink>, ring: &ring::WriterSide<Box<Batch>>) {
    while let Some(mut batch) = ring.next() {
        send.send_patiently(&mut batch);
        ring.give_back(batch);
    }
}
