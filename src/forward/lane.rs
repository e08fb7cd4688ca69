//! What the threads of one direction share: the stop flag, the counters, and which end is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Gone;
use crate::direction::Direction;
use crate::stats::Stats;
use crate::stop::Stop;

/// The shared state of one direction. Clones belong to the same direction.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    pub(super) stop: Stop,
    pub(super) stats: Arc<Stats>,
    pub(super) gone: Arc<Gone>,
    pub(super) direction: Direction,
}

impl Lane {
    /// Stops everything, because the end that frames come from is gone for good.
    pub(super) fn end_as_source_is_gone(&self) {
        self.end_without(match self.direction {
            Direction::Outbound => &self.gone.vm,
            Direction::Inbound => &self.gone.host,
        });
    }

    /// Stops everything, because the end that frames go to is gone for good.
    pub(super) fn end_as_sink_is_gone(&self) {
        self.end_without(match self.direction {
            Direction::Outbound => &self.gone.host,
            Direction::Inbound => &self.gone.vm,
        });
    }

    fn end_without(&self, end: &AtomicBool) {
        end.store(true, Ordering::Release);
        self.stop.set();
    }
}
