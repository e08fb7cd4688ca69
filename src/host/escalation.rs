//! The way to root on macOS, for a softnet that is not SUID: sudo without a password.
//!
//! Tart sees to SUID when there is a terminal to ask for a password. Without one, softnet asks
//! sudo whether it would start it, and if so becomes what sudo starts, with the name of whom to
//! drop to. Before macOS 26 that happens first of all, as vmnet wants root there. From macOS 26 on
//! an entitlement is enough, but a softnet that somebody built has none until it is signed with
//! one: it goes the same way once vmnet has refused it.

use std::env;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::unistd::{Group, User, getegid, geteuid};

use super::HostError;
use crate::sys::descriptor;
use crate::sys::dynamic::macos_version;

/// How this process was started, as far as that matters to sudo.
#[derive(Debug, Clone)]
pub struct Start {
    /// The numbers of the descriptors that it inherited and needs: `--vm-fd`, `--control-fd`.
    pub fds: Vec<RawFd>,
    /// Whether the command line has `--user` and `--group` already.
    pub named: [bool; 2],
    /// Whether it was sudo that started it.
    pub escalated: bool,
}

impl Start {
    /// Makes sure of root where vmnet needs it whatever softnet is signed with: returns as root,
    /// or where none is needed, or does not return since the process has become another.
    ///
    /// # Errors
    /// [`HostError::NoWayToRoot`] with what is missing.
    pub fn become_root_if_needed(&self) -> Result<(), HostError> {
        if geteuid().is_root() || macos_version().0 >= WITHOUT_ROOT {
            return Ok(());
        }
        self.become_root(|| false)
    }

    /// Becomes what sudo starts as root, with the descriptors that were inherited. Returns only if
    /// that fails, or if the answer to `interrupted`, which is asked last, is yes: a signal that
    /// this process has caught would not reach the other.
    ///
    /// # Errors
    /// [`HostError::NoWayToRoot`] with what is missing.
    pub fn become_root(&self, mut interrupted: impl FnMut() -> bool) -> Result<(), HostError> {
        let no_way = |why| Err(HostError::NoWayToRoot(why));
        if self.escalated {
            return no_way("sudo started softnet, but not as root");
        }
        if self.fds.iter().any(|fd| *fd > 2) {
            // sudo closes all others.
            return no_way("for sudo, --vm-fd and --control-fd have to be 0 or 1");
        }
        let unknown = HostError::system("find out how softnet was started");
        let program = env::current_exe().map_err(unknown)?;
        let sudo = |more: &[OsString]| {
            let mut sudo = Command::new("sudo");
            sudo.arg("--non-interactive").arg(&program);
            sudo.args(env::args_os().skip(1)).args(more);
            sudo
        };
        let probe = sudo(&["--sudo-escalation-probing".into()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !probe.is_ok_and(|status| status.success()) {
            return no_way("sudo refuses without a password");
        }
        let user = User::from_uid(geteuid()).ok().flatten();
        let group = Group::from_gid(getegid()).ok().flatten();
        let mut more: Vec<OsString> = vec!["--sudo-escalation-done".into()];
        let names = [
            ("--user", user.map(|user| user.name)),
            ("--group", group.map(|group| group.name)),
        ];
        for ((flag, name), named) in names.into_iter().zip(self.named) {
            if !named {
                let name = name.ok_or(HostError::NoWayToRoot("the calling user has no name"))?;
                more.extend([flag.into(), name.into()]);
            }
        }
        if interrupted() {
            return Ok(());
        }
        for fd in &self.fds {
            descriptor::hand_on(*fd).map_err(HostError::system("hand a descriptor on to sudo"))?;
        }
        let error = sudo(&more).exec();
        Err(HostError::system("start sudo")(error))
    }
}

/// The version of macOS from which on vmnet takes an entitlement for root.
const WITHOUT_ROOT: u32 = 26;
