//! Looks after the host's side: follows changes there, and restores its state at the end.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

use softnet::filter::{LeaseCell, Rules};
use softnet::wire::Mac;

use crate::app::service::{End, Forwarder, Outcome, Service};
use crate::app::uplink::UplinkControl;

/// Looks after the interface called `name`, through which the VM at `vm` reaches the network.
pub(crate) fn service(
    control: UplinkControl,
    name: String,
    vm: Mac,
    lease: Arc<LeaseCell>,
    rules: Arc<Rules>,
) -> Box<dyn Service> {
    Box::new(HostSide {
        control,
        name,
        vm,
        lease,
        rules,
    })
}

struct HostSide {
    control: UplinkControl,
    name: String,
    vm: Mac,
    lease: Arc<LeaseCell>,
    rules: Arc<Rules>,
}

impl Service for HostSide {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.control.events().into_iter().collect()
    }

    fn deadline(&self, now: Instant) -> Option<Instant> {
        Some(now + self.control.tick())
    }

    fn poll(&mut self, frames: &Forwarder) -> anyhow::Result<Outcome> {
        if frames.host_gone() {
            return Ok(Outcome::End(End::Failed(format!(
                "{} is gone, somebody has deleted it: start softnet again once it is there",
                self.name
            ))));
        }
        self.control.poll(&self.lease, &self.rules);
        Ok(Outcome::Continue)
    }

    fn close(&mut self, _: &End, _: &Forwarder) -> bool {
        self.control.close(&self.lease, &self.rules, self.vm);
        true
    }
}
