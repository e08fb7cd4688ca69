//! Why there is no interface, in words that say what to do.

use std::io;
use std::time::Duration;

use nix::unistd::geteuid;
use thiserror::Error;

use crate::sys::dynamic::macos_version;
use crate::sys::vmnet::Status;

/// Why there is no interface.
#[derive(Debug, Error)]
pub enum VmnetError {
    /// This user may not start one.
    #[error("vmnet does not start for this user (status {status}): {remedy}")]
    NotAuthorized {
        /// What vmnet answered.
        status: u32,
        /// How to get the rights on this version of macOS.
        remedy: &'static str,
    },
    /// Another user of vmnet has the subnet, or the mode.
    #[error(
        "macOS' sharing service is busy (status 1009): another program holds the network; stop \
         other virtual machines or Internet Sharing, and try again"
    )]
    Busy,
    /// Something else.
    #[error("vmnet does not start (status {0}); `log show --last 1m` may tell why")]
    Refused(u32),
    /// No answer.
    #[error(
        "vmnet did not answer within {} seconds; restart macOS' sharing service (or the Mac)",
        START_TIMEOUT.as_secs()
    )]
    NoAnswer,
    /// An answer without what has to be in it.
    #[error("vmnet started, but did not report {0}")]
    Incomplete(&'static str),
    /// It was asked to end while it waited.
    #[error("stopped while vmnet was starting")]
    Interrupted,
    /// The system refused something else.
    #[error("cannot prepare for vmnet's events")]
    System(#[from] io::Error),
}

/// What vmnet's refusal to start means.
pub(super) fn refused(status: Status) -> VmnetError {
    match status {
        Status::SHARING_SERVICE_BUSY => VmnetError::Busy,
        // Without rights, systems before NOT_AUTHORIZED came say no more than FAILURE.
        Status::NOT_AUTHORIZED | Status::FAILURE if !geteuid().is_root() => {
            VmnetError::NotAuthorized {
                status: status.number(),
                remedy: if macos_version().0 >= 26 {
                    REMEDY_ENTITLEMENT
                } else {
                    REMEDY_ROOT
                },
            }
        }
        status => VmnetError::Refused(status.number()),
    }
}

const REMEDY_ENTITLEMENT: &str = "sign softnet with the entitlement com.apple.security.virtualization \
    (codesign -f -s - --entitlements softnet.entitlements softnet), make it SUID root (chown root, \
    chmod u+s), or let sudo run it without a password";
const REMEDY_ROOT: &str = "this macOS needs root for it: make softnet SUID root (chown root, chmod \
    u+s), or let sudo run it without a password";

/// How long to wait for a start. One user in production waits as long; a dead sharing service
/// never answers.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(10);
