//! Ends softnet when the process that started it is gone.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use softnet::host::liveness::Parent;
use tracing::info;

use crate::app::service::{End, Forwarder, Outcome, Service, TICK};

/// Watches `parent`, if it is a process whose end matters.
pub(crate) fn service(parent: Option<Parent>) -> Box<dyn Service> {
    Box::new(Starter(parent))
}

struct Starter(Option<Parent>);

impl Service for Starter {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.0.iter().filter_map(Parent::event).collect()
    }

    fn deadline(&self, now: Instant) -> Option<Instant> {
        // Not every system has a descriptor for this.
        self.0.as_ref().map(|_| now + TICK)
    }

    fn poll(&mut self, _: &Forwarder) -> anyhow::Result<Outcome> {
        if self.0.as_ref().is_some_and(Parent::is_gone) {
            info!("stopping: the process that started softnet is gone");
            return Ok(Outcome::End(End::Done));
        }
        Ok(Outcome::Continue)
    }
}
