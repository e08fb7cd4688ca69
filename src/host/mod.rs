//! The control plane: everything that touches the host besides moving frames.
//!
//! Nothing here is on the path of a frame. What needs privileges is done before [`privileges`]
//! drops them; the rest works without.

pub mod addresses;

pub mod console;

pub mod control_socket;

pub mod descriptors;

pub mod directory;

pub mod files;

pub mod gateway;

pub mod liveness;

pub mod log;

pub mod macos;

pub mod placement;

pub mod privileges;

pub mod registry;

pub mod release;

pub mod signals;

pub mod spawn;

use std::io;

use thiserror::Error;

/// What can go wrong between softnet and its host. Each is one line that says what to do.
#[derive(Debug, Error)]
pub enum HostError {
    /// `--user` names no existing user.
    #[error("unknown user `{0}`: `getent passwd` lists those that --user can name")]
    UnknownUser(String),
    /// `--group` names no existing group.
    #[error("unknown group `{0}`: `getent group` lists those that --group can name")]
    UnknownGroup(String),
    /// `--user` or `--group` names another user or group than the caller's, and the caller is not
    /// root.
    #[error(
        "{flag} {name} is refused: only root may name anybody but itself, and whoever calls \
         softnet through SUID, sudo, pkexec or doas is not root; leave the flag out to stay who \
         you are"
    )]
    NotYours {
        /// The flag.
        flag: &'static str,
        /// The user or group that it names.
        name: String,
    },
    /// A flag and a line of the policy file set the same.
    #[error("{flag} and {place} set the same: leave one of them out")]
    FlagAndKey {
        /// The flag.
        flag: &'static str,
        /// The file, and the line in it.
        place: String,
    },
    /// The variable in which sudo, pkexec or doas names its caller names no user.
    #[error("cannot tell who called softnet: {0} names nobody; if that was root, unset it")]
    NoCaller(&'static str),
    /// Several such variables name different users.
    #[error(
        "cannot tell who called softnet: SUDO_UID, PKEXEC_UID and DOAS_USER name different \
         users; unset those that do not apply"
    )]
    TwoCallers,
    /// Privileges were dropped, but one could be regained.
    #[error("privileges were dropped, but {0} could be regained: refusing to continue")]
    StillPrivileged(&'static str),
    /// A flag names a descriptor that is not open.
    #[error(
        "descriptor {number} is not open: {flag} takes the number of a socket that softnet inherits"
    )]
    NotOpen {
        /// The flag.
        flag: &'static str,
        /// The descriptor.
        number: i32,
    },
    /// Neither the host's interface nor its bridge has an IPv4 address.
    #[error(
        "no gateway: {interface} has no IPv4 address; give it one, put the TAP in a bridge that \
         has one, or name the gateway with --gateway"
    )]
    NoGateway {
        /// The bridge, or the TAP if it belongs to none.
        interface: String,
    },
    /// The same, for a TAP that disappears with softnet.
    #[error(
        "no gateway: {interface} has no IPv4 address, as softnet has only just made it; make it \
         first (ip tuntap add dev {interface} mode tap), give it one or put it in a bridge that \
         has one; or name the gateway with --gateway"
    )]
    NoGatewayYet {
        /// The TAP.
        interface: String,
    },
    /// Only root itself may set this lease time.
    #[error(
        "--bootpd-lease-time {0} is refused: through SUID it is 60 to 86400 seconds, as it holds \
         for all VMs of this host"
    )]
    LeaseTime(u32),
    /// vmnet needs root on this version of macOS, and there is no way to become root.
    #[error(
        "vmnet needs root on this macOS: make softnet SUID root (chown root, chmod u+s), or let \
         sudo run it without a password ({0})"
    )]
    NoWayToRoot(&'static str),
    /// The command of `softnet run` did not start.
    #[error("cannot run `{command}`")]
    Command {
        /// The first word of the command.
        command: String,
        /// Why it did not start.
        source: io::Error,
    },
    /// The system refused something that it never refuses a healthy process.
    #[error("cannot {doing}")]
    System {
        /// The operation that failed, as a verb and its object.
        doing: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

impl HostError {
    /// Whether this is a usage error, rather than a problem of the machine.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::UnknownUser(_)
                | Self::UnknownGroup(_)
                | Self::NotYours { .. }
                | Self::FlagAndKey { .. }
                | Self::LeaseTime(_)
        )
    }

    /// For `map_err`: wraps the system's error while `doing` something.
    fn system<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System {
            doing,
            source: source.into(),
        }
    }
}
