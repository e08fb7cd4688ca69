//! A direction's second station: takes over batches that the other side has no room for, and
//! waits for the room. Asleep while the reader can send by itself.

use super::lane::{Lane, WriterSide};
use crate::endpoint::Sink;

/// Sends what the reader hands over, in order, until the reader ends.
pub(super) fn run(lane: &Lane, mut sink: impl Sink, ring: &WriterSide) {
    for mut batch in &ring.filled {
        lane.send_patiently(&mut sink, &mut batch);
        // With the reader gone already, the batches that are left still have to be sent.
        let _ = ring.empty.send(batch);
    }
}
