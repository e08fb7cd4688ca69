//! The gateway on Linux: an address of the bridge that the TAP is in, found and followed by netlink.

mod netlink;
mod watch;

pub use netlink::{find, find_with_warning};
pub use watch::Watch;
