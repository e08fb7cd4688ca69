//! The descriptors that softnet inherits. It takes the VM's socket and the control socket; whatever
//! else its caller left open it closes, or passes on to the command that it starts.
//!
//! This happens first, before the process opens anything itself.

use std::os::fd::{OwnedFd, RawFd};

use super::HostError;
use crate::sys::descriptor;

/// The descriptors that were taken.
#[derive(Debug)]
pub struct Inherited {
    /// The VM's socket.
    pub vm: Option<OwnedFd>,
    /// The control socket. It must stay open as long as this, because its number may be that of
    /// standard output, which no other file must get.
    pub control: Option<OwnedFd>,
    /// The host's side, if the caller has opened it.
    pub host: Option<OwnedFd>,
}

/// Takes the descriptors with the numbers of `--vm-fd`, `--control-fd` and `--host-fd`, and closes
/// all others except the standard streams.
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

/// Takes what a caller passes through softnet to the command of `softnet run`: every descriptor
/// except the standard streams. The command inherits each under the same number. Drop this once the
/// command has started, so that a descriptor which the command closes is really closed: a pipe does
/// not end while another process holds it.
#[derive(Debug)]
pub struct ForCommand(#[expect(dead_code, reason = "held, for the command")] Vec<OwnedFd>);

impl ForCommand {
    /// Takes all of them.
    ///
    /// # Errors
    /// If the system does not list them, as on Linux without /proc.
    pub fn inherit() -> Result<Self, HostError> {
        descriptor::claim_others()
            .map(Self)
            .map_err(HostError::system(
                "list the descriptors that the command is to inherit",
            ))
    }
}
