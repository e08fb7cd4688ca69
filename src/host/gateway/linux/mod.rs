//! The gateway on Linux: an address of the bridge that the TAP is in, found and followed by netlink.
#![cfg(target_os = "linux")]

mod netlink;
mod watch;

pub use netlink::{find, find_with_warning};
pub use watch::Watch;
