//! Placement on macOS, which pins nothing to a processor: threads ask for the class of service
//! that the performance cores are for, and on Intel for a cache of the second level in common.

use super::Pin;
use crate::direction::Direction;
use crate::sys::placement;

/// Where the threads will run: a wish, with the machine taken into account.
#[derive(Debug, Clone)]
pub enum Placement {
    /// Nothing to ask for.
    Anywhere,
    /// On fast cores, close to each other.
    Close,
}

impl Placement {
    /// Whether [`Pin::Cpus`] can be had.
    pub const CAN_PIN: bool = false;

    /// Looks at the machine.
    ///
    /// # Errors
    /// A text for the log, for [`Pin::Cpus`]: there is no such thing on macOS.
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
    /// A text for the log: what could not be had. The thread stays where it may run.
    pub fn apply(&self, _direction: Direction) -> Result<(), String> {
        if let Self::Anywhere = self {
            return Ok(());
        }
        placement::be_interactive()
            .map_err(|error| format!("cannot be of the interactive class: {error}"))?;
        // One tag for all threads of the VM: a frame crosses between them.
        #[cfg(target_arch = "x86_64")]
        placement::share_cache(1).map_err(|error| format!("cannot share a cache: {error}"))?;
        Ok(())
    }
}
