//! When a datagram came: when it was received. The unix sockets of macOS have no times of the
//! kernel's (SO_TIMESTAMP is for those of networks: xnu, bsd/netinet). For `bench`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::socket::{MsgFlags, recv as receive};

/// Whether the time is the kernel's, and so true however late a datagram is received.
pub(crate) const BY_KERNEL: bool = false;

/// Would have the time noted of what comes to `socket` from now on; there is nothing to do.
#[allow(clippy::unnecessary_wraps)] // As elsewhere.
pub(crate) fn note(_socket: &impl AsFd) -> io::Result<()> {
    Ok(())
}

/// Receives a datagram, without blocking; returns its length and when that was, as time since
/// 1970. Nothing there is [`io::ErrorKind::WouldBlock`].
pub(crate) fn recv(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Duration)> {
    let len = receive(socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok((len, since.map_err(io::Error::other)?))
}

/// Would have this thread sleep precisely; there, its class of service says so.
#[allow(clippy::unnecessary_wraps)] // As elsewhere.
pub(crate) fn wake_on_time() -> io::Result<()> {
    Ok(())
}
