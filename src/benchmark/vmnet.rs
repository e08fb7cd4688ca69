//! What `softnet bench` can measure at on macOS.

use anyhow::ensure;
use clap::Args;
use softnet::bench::HostSide;
use softnet::host::privileges::Identity;

use super::Opened;

/// What to measure at instead of a socket.
#[derive(Debug, Args)]
pub(crate) struct HostFlags {
    /// Measure at vmnet, with this host's DHCP server and network behind it, instead of at a
    /// socket (as root, or with the entitlement; frames up to 1514 bytes)
    #[arg(long)]
    vmnet: bool,
}

/// Leaves the process with no other rights than the caller's own; `against` says whether another
/// program is measured. Nobody but the forwarder that is measured can open an interface, and each
/// has one of its own.
pub(super) fn open(flags: &HostFlags, against: bool, caller: &Identity) -> anyhow::Result<Opened> {
    if !flags.vmnet {
        return Ok((caller.become_caller()?, HostSide::Socket, None));
    }
    let (rights, saved) = caller.put_rights_aside()?;
    ensure!(
        saved.is_none() || !against,
        "--against does not go with --vmnet behind sudo, which would start it as root: measure \
         the builds one after the other"
    );
    Ok((rights, HostSide::Vmnet, saved))
}
