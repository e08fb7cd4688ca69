//! A packet socket: frames as an interface sends and receives them (packet(7)). The bench
//! stands with it on the host's side of a TAP.

use std::io;
use std::mem::{self, size_of};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::net::if_::if_nametoindex;

use super::cvt;

/// Opens a socket on the interface `name` that sends frames there, and with `watches` also
/// receives those that come in there, but none that go out. Needs CAP_NET_RAW.
pub(crate) fn open(name: &str, watches: bool) -> io::Result<OwnedFd> {
    let index = if_nametoindex(name)?;
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: numbers only. Protocol 0 receives nothing until bind(2) names one.
    let descriptor = cvt(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: it was opened right above, and nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
    // SAFETY: a plain C structure of integers, for which zero is valid.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    address.sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
    if watches {
        let all = u16::try_from(libc::ETH_P_ALL).map_err(io::Error::other)?;
        address.sll_protocol = all.to_be();
        let yes: libc::c_int = 1;
        // SAFETY: the socket is open, and PACKET_IGNORE_OUTGOING reads one int.
        cvt(unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_IGNORE_OUTGOING,
                (&raw const yes).cast(),
                INT_LEN,
            )
        })?;
    }
    let length = u32::try_from(size_of::<libc::sockaddr_ll>()).map_err(io::Error::other)?;
    // SAFETY: the socket is open, and the address is a whole sockaddr_ll of that length.
    cvt(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(socket)
}

#[allow(clippy::cast_possible_truncation)] // It is 4.
const INT_LEN: libc::socklen_t = size_of::<libc::c_int>() as libc::socklen_t;
