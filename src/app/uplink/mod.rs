//! The host's side as the program sees it: one file for each system, with the same functions.
//! What each takes of the command line, what it opens, and what is to be done about it while
//! frames flow and when they have ended.

mod flags;

#[cfg(tap)]
#[path = "linux.rs"]
mod system;

#[cfg(vmnet)]
#[path = "macos.rs"]
mod system;

pub(crate) use flags::{Exposed, HostFlags};
pub(crate) use system::{Attendant, Config, NEEDS_TAP, Rights, Uplink};
