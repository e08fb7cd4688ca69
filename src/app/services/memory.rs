//! Gives back memory that softnet needs only now and then.

use softnet::host::memory::SeldomCode;

use crate::app::service::{Frames, Outcome, Service};

/// Gives back the code of the start, and later what has come since.
pub(crate) fn service() -> Box<dyn Service> {
    Box::new(Memory(SeldomCode::after_start()))
}

struct Memory(SeldomCode);

impl Service for Memory {
    fn poll(&mut self, _: &Frames) -> anyhow::Result<Outcome> {
        self.0.look();
        Ok(Outcome::Continue)
    }
}
