//! Ends forwarding when the VM is gone.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use softnet::host::liveness::Vm;
use softnet::stop::Stop;
use tracing::info;

use crate::app::service::{End, Forwarder, Outcome, Service, TICK};

/// Polls the VM through `vm`, if the system supports that. A data thread may notice first; then it
/// sets `stop`.
pub(crate) fn service(vm: Option<Vm>, stop: Stop) -> Box<dyn Service> {
    Box::new(VmEnd { vm, stop })
}

struct VmEnd {
    vm: Option<Vm>,
    stop: Stop,
}

impl Service for VmEnd {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.stop.as_fd()]
    }

    fn deadline(&self, now: Instant) -> Option<Instant> {
        Some(now + TICK)
    }

    fn poll(&mut self, frames: &Forwarder) -> anyhow::Result<Outcome> {
        let gone = self.stop.is_set() || self.vm.as_mut().is_some_and(Vm::is_gone);
        // A data thread also sets the flag if the host's interface is gone. The uplink, which is
        // polled next, reports that.
        if gone && !frames.host_gone() {
            info!("the VM is gone");
            return Ok(Outcome::End(End::Done));
        }
        Ok(Outcome::Continue)
    }
}
