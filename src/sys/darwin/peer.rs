//! Whether the other end of a unix socket still exists, on macOS, which does not report its end.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{SockaddrStorage, getpeername};

/// A socket whose other end can be asked about.
#[derive(Debug)]
pub(crate) struct Question {
    socket: OwnedFd,
}

/// The other end of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A socket that is open in some process.
    Open,
    /// Nothing any more: when its last holder closes it, the kernel disconnects its peer (xnu,
    /// bsd/kern/uipc_usrreq.c, unp_drop).
    None,
}

impl Question {
    /// Prepares to ask about the other end of `socket`.
    pub(crate) fn about(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let socket = socket.try_clone_to_owned()?;
        Ok(Self { socket })
    }

    /// Asks. Takes microseconds and does not block.
    pub(crate) fn ask(&mut self) -> io::Result<Peer> {
        match getpeername::<SockaddrStorage>(self.socket.as_raw_fd()) {
            Err(Errno::ENOTCONN | Errno::EINVAL | Errno::ECONNRESET) => Ok(Peer::None),
            // The addresses of a socketpair have no name, which nix may reject.
            _ => Ok(Peer::Open),
        }
    }
}
