//! When a datagram came: the kernel notes it as it puts one into the receiver's queue
//! (SO_TIMESTAMPNS, socket(7)), which unix and packet sockets have. For `bench`.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use nix::sys::time::TimeSpec;

/// Whether the time is the kernel's, and so true however late a datagram is received.
pub(crate) const BY_KERNEL: bool = true;

/// Has the time noted of what comes to `socket` from now on.
pub(crate) fn note(socket: &impl AsFd) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::ReceiveTimestampns, &true)?)
}

/// Receives a datagram, without blocking; returns its length and when it came, as time since
/// 1970. Nothing there is [`io::ErrorKind::WouldBlock`].
pub(crate) fn recv(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Duration)> {
    let mut control = cmsg_space!(TimeSpec);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let at = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmTimestampns(time) => Some(time.into()),
        _ => None,
    });
    let at = at.ok_or_else(|| io::Error::other("the kernel does not stamp datagrams"))?;
    Ok((message.bytes, at))
}

/// Has this thread, and those that it starts, sleep to a millionth of a second instead of fifty,
/// so that what is due is sent when it is due.
pub(crate) fn wake_on_time() -> io::Result<()> {
    Ok(nix::sys::prctl::set_timerslack(1000)?)
}
