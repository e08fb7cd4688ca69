//! Keeps the registry in step with the lease, and reports an address that another VM has.

use std::sync::Arc;
use std::time::Instant;

use softnet::clock::Tick;
use softnet::filter::{Claims, LeaseCell};
use softnet::host::registry::Registry;
use tracing::warn;

use crate::app::service::{End, Frames, Outcome, Service, TICK};

/// Looks after `registry`, if there is one.
pub(crate) fn service(registry: Option<Arc<Registry>>, lease: Arc<LeaseCell>) -> Box<dyn Service> {
    Box::new(Identity { registry, lease })
}

struct Identity {
    registry: Option<Arc<Registry>>,
    lease: Arc<LeaseCell>,
}

impl Service for Identity {
    fn deadline(&self, now: Instant) -> Option<Instant> {
        self.registry.as_ref().map(|_| now + TICK)
    }

    fn poll(&mut self, _: &Frames) -> anyhow::Result<Outcome> {
        if let Some(registry) = &self.registry {
            // Gives up the address for others once its lease has expired.
            registry.settle(&|| self.lease.address_at(Tick::now()));
            if let Some(refusal) = registry.new_refusal() {
                warn!("{refusal}");
            }
        }
        Ok(Outcome::Continue)
    }

    fn close(&mut self, _: &End, _: &Frames) -> bool {
        if let Some(registry) = &self.registry {
            registry.settle(&|| None);
        }
        true
    }
}
