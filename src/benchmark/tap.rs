//! What `softnet bench` can measure at on Linux, and opening it.

use std::sync::Arc;

use clap::Args;
use softnet::bench::{HostSide, TapHost};
use softnet::host::privileges::Identity;

use super::Opened;

/// What to measure at instead of a socket.
#[derive(Debug, Args)]
pub(crate) struct HostFlags {
    /// Measure at this TAP, made if there is none, instead of at a socket (as root; frames up
    /// to 1514 bytes); large segments at another, with a `v` behind the name
    #[arg(long, value_name = "NAME")]
    tap: Option<String>,
}

/// Opens what is measured at, if that is no socket, and leaves the process with no other rights
/// than the caller's own. From here on it writes files and starts programs that the caller names.
pub(super) fn open(flags: &HostFlags, _: bool, caller: &Identity) -> anyhow::Result<Opened> {
    if caller.are_borrowed() {
        // CAP_NET_ADMIN opens everybody's TAP, and a caller without it names the TAP.
        caller.become_caller()?;
    }
    let tap = flags.tap.as_deref().map(TapHost::open).transpose()?;
    let host = tap.map_or(HostSide::Socket, |tap| HostSide::Tap(Arc::new(tap)));
    Ok((caller.become_caller()?, host, None))
}
