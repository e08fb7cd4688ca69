//! Writes without waiting to a descriptor that other processes share, so that its flags must not be
//! changed. macOS has no call for this for pipes. A caller that has polled first waits only if
//! another process has used up the room since then.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;

/// Writes, without waiting if there is room.
pub(crate) fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    nix::unistd::write(fd, bytes)
}
