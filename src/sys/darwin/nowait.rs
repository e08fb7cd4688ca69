//! Writing without waiting to a descriptor that others have too, so that its flags are not ours
//! to change. macOS has no such call for pipes; who has polled first waits only if another
//! process has taken the room since.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;

/// Writes, without waiting for room if there is some.
pub(crate) fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    nix::unistd::write(fd, bytes)
}
