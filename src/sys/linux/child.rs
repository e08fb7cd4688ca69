//! What a child process does between fork(2) and execve(2).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::{self, Gid, Pid, Uid, getpid, getppid};

/// The user as which the child runs, and what it inherits.
pub(crate) struct Orders {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// The supplementary groups; None keeps those of the parent.
    pub(crate) groups: Option<Vec<Gid>>,
    /// Stays open in the child.
    pub(crate) socket: OwnedFd,
}

/// Starts `command` in a child that follows `orders`. The child gets SIGTERM when the calling
/// thread ends.
pub(crate) fn spawn(mut command: Command, orders: Orders) -> io::Result<Child> {
    let parent = getpid();
    let obey = move || orders.obey(parent);
    // SAFETY: after a fork in a process that may have threads, the closure may call only what
    // is async-signal-safe (signal-safety(7)) and must not allocate: it makes plain system
    // calls through nix, whose errors are numbers, as io::Error keeps them too. glibc's
    // setresuid(3) and setresgid(3) coordinate with other threads, of which a child has none.
    unsafe { command.pre_exec(obey) };
    command.spawn()
}

impl Orders {
    fn obey(&self, parent: Pid) -> io::Result<()> {
        if let Some(groups) = &self.groups {
            unistd::setgroups(groups)?;
        }
        unistd::setresgid(self.gid, self.gid, self.gid)?;
        unistd::setresuid(self.uid, self.uid, self.uid)?;
        // A change of ids clears this (prctl(2)), so it comes last. SIGTERM rather than SIGKILL, so
        // that a VM can close its disks.
        prctl::set_pdeathsig(Signal::SIGTERM)?;
        if getppid() != parent {
            // The parent died before the request.
            return Err(Errno::ESRCH.into());
        }
        fcntl(&self.socket, FcntlArg::F_SETFD(FdFlag::empty()))?;
        Ok(())
    }
}

/// Gives a socket larger buffers than the limits net.core.{w,r}mem_max allow, which root may do.
pub(crate) fn force_buffers(socket: &impl AsFd, send: usize, receive: usize) {
    let _ = setsockopt(socket, sockopt::SndBufForce, &send);
    let _ = setsockopt(socket, sockopt::RcvBufForce, &receive);
}
