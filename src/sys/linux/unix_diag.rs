//! Asks the kernel whether the other end of a unix socket is open (unix_diag, as in `ss -xp`).
//!
//! Linux has no other way: when the last copy of a datagram socket's peer is closed, poll(2)
//! reports nothing, a blocked recv(2) continues to sleep, and getpeername(2) still answers
//! (net/unix/af_unix.c, unix_release_sock). But the peer's inode reads 0 once the peer has lost its
//! file (sk_diag_dump_peer and sock_orphan; seen on 6.18).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::thread;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::unix::{ShowFlags, StateFlags, UnixRequest};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::fstat;

/// The other end of a connected unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Some process has it open.
    Open,
    /// No process has it open, or ever will again.
    Closed,
    /// There is none: the socket is not connected.
    None,
}

/// A query about one socket, which can be repeated.
#[derive(Debug)]
pub(crate) struct Question {
    netlink: Socket,
    message: Vec<u8>,
}

impl Question {
    /// Prepares to ask about `socket`. This needs privileges only if it belongs to another network
    /// namespace than this thread; asking needs none.
    pub(crate) fn about(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let inode = u32::try_from(fstat(socket)?.st_ino).map_err(io::Error::other)?;
        let mut question = Self {
            netlink: open()?,
            message: request(inode),
        };
        // The kernel only searches the sockets of the caller's own namespace.
        match question.ask() {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                question.netlink = open_in(namespace(socket)?)?;
            }
            result => drop(result?),
        }
        question.ask()?;
        Ok(question)
    }

    /// Asks. Does not block: the kernel answers before the request's send(2) returns.
    pub(crate) fn ask(&mut self) -> io::Result<Peer> {
        self.netlink.send(&self.message, 0)?;
        let mut answer = Vec::with_capacity(512);
        self.netlink.recv(&mut answer, libc::MSG_DONTWAIT)?;
        let answer: NetlinkMessage<SockDiagMessage> =
            NetlinkMessage::deserialize(&answer).map_err(io::Error::other)?;
        match answer.payload {
            NetlinkPayload::InnerMessage(SockDiagMessage::UnixResponse(response)) => {
                Ok(match response.peer() {
                    Some(0) => Peer::Closed,
                    Some(_) => Peer::Open,
                    None => Peer::None,
                })
            }
            NetlinkPayload::Error(error) => Err(error.to_io()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// The request for the peer of the socket `inode`.
fn request(inode: u32) -> Vec<u8> {
    let request = UnixRequest {
        state_flags: StateFlags::empty(),
        inode,
        show_flags: ShowFlags::PEER,
        cookie: [0xff; 8], // "ignored", linux/unix_diag.h
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::UnixRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn open() -> io::Result<Socket> {
    let socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// The same in another network namespace, from a thread that enters it and ends.
fn open_in(namespace: OwnedFd) -> io::Result<Socket> {
    let thread = thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        open()
    });
    thread
        .join()
        .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
}

/// The network namespace in which `socket` was created. Needs CAP_NET_ADMIN there.
fn namespace(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // linux/sockios.h; libc has it only for Android.
    const SIOCGSKNS: u32 = 0x894c;
    // SAFETY: the descriptor is open; the request takes no argument and answers with a new
    // descriptor.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS.into()) };
    super::cvt(result)?;
    // SAFETY: the kernel just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn a_peer_is_closed_when_its_last_copy_is() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let mut question = Question::about(ours.as_fd()).unwrap();
        assert_eq!(question.ask().unwrap(), Peer::Open);
        let copy = theirs.try_clone().unwrap();
        drop(theirs);
        assert_eq!(question.ask().unwrap(), Peer::Open);
        drop(copy);
        assert_eq!(question.ask().unwrap(), Peer::Closed);
    }

    #[test]
    fn a_socket_without_a_peer_has_none() {
        let socket = UnixDatagram::unbound().unwrap();
        assert_eq!(
            Question::about(socket.as_fd()).unwrap().ask().unwrap(),
            Peer::None
        );
    }

    #[test]
    fn what_is_no_unix_socket_is_an_error() {
        let (reader, _writer) = io::pipe().unwrap();
        Question::about(reader.as_fd()).unwrap_err();
    }
}
