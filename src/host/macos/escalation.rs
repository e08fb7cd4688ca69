//! How a softnet that is not SUID becomes root on macOS: by sudo without a password.
//!
//! Tart sets the SUID bit if there is a terminal to ask for a password. Without one, softnet asks
//! sudo whether it would start softnet, and if so replaces itself by sudo, with the name of the
//! user to drop to. Before macOS 26 it does this first, because vmnet needs root there. From macOS
//! 26 on an entitlement is enough, but a softnet that you build yourself does not have it until it
//! is signed with one. Such a softnet does the same after vmnet has refused it.

use std::env;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::unistd::{Group, User, getegid, geteuid};

use crate::host::HostError;
use crate::sys::descriptor;
use crate::sys::dynamic::macos_version;

/// How this process was started, as far as sudo needs to know.
#[derive(Debug, Clone)]
pub struct Start {
    /// The numbers of the descriptors that it inherited and needs: `--vm-fd`, `--control-fd`.
    pub fds: Vec<RawFd>,
    /// Whether the command line already has `--user` and `--group`.
    pub named: [bool; 2],
    /// Whether it was sudo that started it.
    pub escalated: bool,
}

impl Start {
    /// Ensures that the process is root if vmnet needs that regardless of the signature. Returns if
    /// the process is root or need not be; otherwise the process is replaced, and this does not
    /// return.
    ///
    /// # Errors
    /// [`HostError::NoWayToRoot`] with what is missing.
    pub fn become_root_if_needed(&self) -> Result<(), HostError> {
        if geteuid().is_root() || macos_version().0 >= WITHOUT_ROOT {
            return Ok(());
        }
        self.become_root(|| false)
    }

    /// Replaces the process by what sudo starts as root, with the inherited descriptors. Returns
    /// only if that fails, or if `interrupted`, which is asked last, returns true: a signal that
    /// this process has caught would not reach the new one.
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

/// The first version of macOS in which an entitlement for vmnet replaces root.
const WITHOUT_ROOT: u32 = 26;
