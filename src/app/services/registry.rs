//! Keeps the registry in step with the lease, and reports an address that another VM has.

use std::sync::Arc;
use std::time::Instant;

use softnet::clock::Tick;
use softnet::filter::{Claims, LeaseCell};
use softnet::host::registry::Registry;
use tracing::warn;

use crate::app::service::{End, Forwarder, Outcome, Service, TICK};

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

    fn poll(&mut self, _: &Forwarder) -> anyhow::Result<Outcome> {
        if let Some(registry) = &self.registry {
            // Gives up the address for others once its lease has expired.
            registry.release_stale(&|| self.lease.address_at(Tick::now()));
            if let Some(refusal) = registry.new_refusal() {
                warn!("{refusal}");
            }
        }
        Ok(Outcome::Continue)
    }

    fn close(&mut self, _: &End, _: &Forwarder) -> bool {
        if let Some(registry) = &self.registry {
            registry.release_stale(&|| None);
        }
        true
    }
}
