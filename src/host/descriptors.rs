//! The descriptors that softnet inherits: the VM's socket and that of who changes the rules,
//! which it takes, and whatever else its caller left open, which it closes, or passes on to the
//! command that it starts.
//!
//! All of that comes first of all, before the process opens anything itself.

use std::os::fd::{OwnedFd, RawFd};

use super::HostError;
use crate::sys::descriptor;

/// What was taken.
#[derive(Debug)]
pub struct Inherited {
    /// The VM's socket.
    pub vm: Option<OwnedFd>,
    /// Where orders come from. It stays open as long as this, for its number may be that of
    /// standard output, which no other file must get.
    pub control: Option<OwnedFd>,
    /// The host's side, if the caller has opened it.
    pub host: Option<OwnedFd>,
}

/// Takes what there is to inherit under the numbers of `--vm-fd`, `--control-fd` and `--host-fd`,
/// and closes every other descriptor besides the standard streams.
///
/// # Errors
/// [`HostError::NotOpen`] for a number without a descriptor.
pub fn inherit(
    vm: Option<RawFd>,
    control: Option<RawFd>,
    host: Option<RawFd>,
) -> Result<Inherited, HostError> {
    let claim = |flag, number: Option<RawFd>| {
        let claim =
            |number| descriptor::claim(number).map_err(|_| HostError::NotOpen { flag, number });
        number.map(claim).transpose()
    };
    let inherited = Inherited {
        vm: claim("--vm-fd", vm)?,
        control: claim("--control-fd", control)?,
        host: claim("--host-fd", host)?,
    };
    let kept = [&inherited.vm, &inherited.control, &inherited.host];
    descriptor::close_others(kept.into_iter().flatten()).map_err(HostError::system(
        "close what other descriptors were left open",
    ))?;
    Ok(inherited)
}

/// Takes what a caller passes to the command of `softnet run` through softnet: every descriptor
/// besides the standard streams. The command inherits each under its number. It is to be dropped
/// once the command has started, so that what the command closes is closed: a pipe has no end as
/// long as somebody else holds it.
#[derive(Debug)]
pub struct ForCommand(#[expect(dead_code, reason = "held, for the command")] Vec<OwnedFd>);

impl ForCommand {
    /// Takes them all.
    ///
    /// # Errors
    /// When the system does not list them, as without /proc on Linux.
    pub fn inherit() -> Result<Self, HostError> {
        descriptor::claim_others()
            .map(Self)
            .map_err(HostError::system(
                "list the descriptors that the command is to inherit",
            ))
    }
}
