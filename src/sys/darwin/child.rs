//! What a child process does between fork(2) and execve(2). On macOS the child's life cannot be
//! tied to ours, as it can on Linux.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::unistd::{self, Gid, Uid};

use super::cvt;

/// The user as which the child runs, and what it inherits.
pub(crate) struct Orders {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// The supplementary groups; None keeps those of the parent.
    pub(crate) groups: Option<Vec<Gid>>,
    /// Stays open in the child.
    pub(crate) socket: OwnedFd,
}

/// Starts `command` in a child that follows `orders`.
pub(crate) fn spawn(mut command: Command, orders: Orders) -> io::Result<Child> {
    let groups: Option<Vec<_>> = orders
        .groups
        .as_ref()
        .map(|groups| groups.iter().map(|group| group.as_raw()).collect());
    let obey = move || {
        if let Some(groups) = &groups {
            let count = groups.len().try_into().map_err(io::Error::other)?;
            // SAFETY: by setgroups(2), a number of groups and as many of them.
            cvt(unsafe { libc::setgroups(count, groups.as_ptr()) })?;
        }
        if unistd::geteuid().is_root() {
            unistd::setgid(orders.gid)?;
            unistd::setuid(orders.uid)?;
        }
        fcntl(&orders.socket, FcntlArg::F_SETFD(FdFlag::empty()))?;
        Ok(())
    };
    // SAFETY: after a fork in a process that may have threads, the closure may call only what
    // is async-signal-safe (sigaction(2)) and must not allocate: it makes plain system calls,
    // whose errors are numbers.
    unsafe { command.pre_exec(obey) };
    command.spawn()
}

/// Nobody may exceed the limit of macOS, kern.ipc.maxsockbuf.
pub(crate) fn force_buffers(_socket: &impl AsFd, _send: usize, _receive: usize) {}
