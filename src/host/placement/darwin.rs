//! Placement on macOS, where a thread cannot be pinned to a processor: threads request the
//! quality-of-service class for which the performance cores are meant and, on Intel, a shared
//! second-level cache.

use super::Pin;
use crate::direction::Direction;
use crate::sys::placement;

/// Where the threads will run, as far as this machine allows.
#[derive(Debug, Clone)]
pub enum Placement {
    /// No preference.
    Anywhere,
    /// On fast cores, close to each other.
    Close,
}

impl Placement {
    /// Whether [`Pin::Cpus`] is available.
    pub const CAN_PIN: bool = false;

    /// Plans the placement for this machine.
    ///
    /// # Errors
    /// For [`Pin::Cpus`], a text for the log: macOS has nothing like it.
    pub fn plan(pin: Pin) -> Result<Self, String> {
        match pin {
            Pin::None => Ok(Self::Anywhere),
            Pin::Auto => Ok(Self::Close),
            Pin::Cpus { .. } => Err("macOS does not pin threads to processors".to_owned()),
        }
    }

    /// Places the calling thread, which works for `_direction`.
    ///
    /// # Errors
    /// A text for the log, which says what failed. The thread can still run anywhere.
    pub fn apply(&self, _direction: Direction) -> Result<(), String> {
        if let Self::Anywhere = self {
            return Ok(());
        }
        placement::be_interactive()
            .map_err(|error| format!("cannot be of the interactive class: {error}"))?;
        // One tag for all threads of the VM, because a frame moves between them.
        #[cfg(target_arch = "x86_64")]
        placement::share_cache(1).map_err(|error| format!("cannot share a cache: {error}"))?;
        Ok(())
    }
}
