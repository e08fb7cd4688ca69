//! A packet socket: frames as an interface sends and receives them (packet(7)). The bench
//! stands with it on the host's side of a TAP.

use std::io;
use std::mem::{self, size_of};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::net::if_::if_nametoindex;

use super::cvt;

/// Opens a socket on the interface `name` that sends frames there, and receives none. Needs
/// CAP_NET_RAW.
pub(crate) fn open(name: &str) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: numbers only. Protocol 0 receives nothing until bind(2) names one.
    let descriptor = cvt(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: it was opened right above, and nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
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
    bind(&socket, name, 0)?;
    Ok(socket)
}

/// Has the socket receive what comes in at the interface `name` from now on, but nothing that
/// goes out there. Needs no rights.
pub(crate) fn watch(socket: &OwnedFd, name: &str) -> io::Result<()> {
    bind(socket, name, libc::ETH_P_ALL)
}

/// Has it receive nothing from now on. What it has received stays in its queue.
pub(crate) fn unwatch(socket: &OwnedFd, name: &str) -> io::Result<()> {
    // Not protocol 0, which leaves the last one as it is (net/packet/af_packet.c,
    // packet_do_bind). A type of frame that is not there costs the others one comparison.
    bind(socket, name, UNUSED_TYPE)
}

fn bind(socket: &OwnedFd, name: &str, protocol: libc::c_int) -> io::Result<()> {
    let index = if_nametoindex(name)?;
    let protocol = u16::try_from(protocol).map_err(io::Error::other)?;
    // SAFETY: a plain C structure of integers, for which zero is valid.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    address.sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
    address.sll_protocol = protocol.to_be();
    let length = u32::try_from(size_of::<libc::sockaddr_ll>()).map_err(io::Error::other)?;
    // SAFETY: the socket is open, and the address is a whole sockaddr_ll of that length.
    cvt(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(())
}

/// Local Experimental Ethertype 1 (IEEE 802).
const UNUSED_TYPE: libc::c_int = 0x88b5;

#[allow(clippy::cast_possible_truncation)] // It is 4.
const INT_LEN: libc::socklen_t = size_of::<libc::c_int>() as libc::socklen_t;
