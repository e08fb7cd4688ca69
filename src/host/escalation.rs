//! The way to root on macOS before 26, for a softnet that is not SUID: sudo without a password.
//!
//! Tart sees to SUID when there is a terminal to ask for a password. Without one, softnet asks
//! sudo whether it would start it, and if so becomes what sudo starts, with the name of whom to
//! drop to. From macOS 26 on an entitlement is enough, and nothing happens here.

use std::env;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::unistd::{Group, User, getegid, geteuid};

use super::HostError;
use crate::sys::dynamic::macos_version;

/// Makes sure of root where vmnet needs it: returns as root, or where none is needed, or does
/// not return since the process has become another. `named` says whether the command line has
/// `--user` and `--group` already, and `done` that this is the other.
///
/// # Errors
/// [`HostError::NoWayToRoot`] with what is missing.
pub fn become_root(vm_fd: RawFd, named: [bool; 2], done: bool) -> Result<(), HostError> {
    if geteuid().is_root() || macos_version().0 >= WITHOUT_ROOT {
        return Ok(());
    }
    if done {
        return Err(HostError::NoWayToRoot(
            "sudo started softnet, but not as root",
        ));
    }
    if vm_fd > 2 {
        // sudo closes all others.
        return Err(HostError::NoWayToRoot("for sudo, --vm-fd has to be 0 or 1"));
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
        return Err(HostError::NoWayToRoot("sudo refuses without a password"));
    }
    let user = User::from_uid(geteuid()).ok().flatten();
    let group = Group::from_gid(getegid()).ok().flatten();
    let mut more: Vec<OsString> = vec!["--sudo-escalation-done".into()];
    let names = [
        ("--user", user.map(|user| user.name)),
        ("--group", group.map(|group| group.name)),
    ];
    for ((flag, name), named) in names.into_iter().zip(named) {
        if !named {
            let name = name.ok_or(HostError::NoWayToRoot("the calling user has no name"))?;
            more.extend([flag.into(), name.into()]);
        }
    }
    let error = sudo(&more).exec();
    Err(HostError::system("start sudo")(error))
}

/// The version of macOS from which on vmnet takes an entitlement for root.
const WITHOUT_ROOT: u32 = 26;
