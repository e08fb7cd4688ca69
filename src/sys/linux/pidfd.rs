//! A descriptor for a process (pidfd_open(2), Linux 5.3): readable once the process is dead.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use nix::unistd::Pid;

/// Opens one for the process that has the number `pid` now.
pub(crate) fn open(pid: Pid) -> io::Result<OwnedFd> {
    // By number, because glibc has the function only since 2.36.
    // SAFETY: the call takes two numbers: a process, and no flags.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = super::cvt(result)?;
    let fd = fd.try_into().map_err(io::Error::other)?;
    // SAFETY: the kernel just made this descriptor, close-on-exec, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
