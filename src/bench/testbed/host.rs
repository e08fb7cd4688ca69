//! The host's end of a testbed: a socket, or an interface of the system's.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::interface::Interface;
use super::pair;
use crate::bench::HostSide;
use crate::direction::Direction;
use crate::sys::timestamp;

/// What a testbed has of it.
#[derive(Debug)]
pub(super) enum Host {
    Socket(OwnedFd),
    Interface(Interface),
}

impl Host {
    /// The host's end, and what the subject gets of it. At vmnet it is a socket until the VM has
    /// an address.
    pub(super) fn new(max_frame: usize, side: &HostSide) -> io::Result<(Self, OwnedFd)> {
        if let HostSide::Tap(tap) = side {
            let (interface, inner) = Interface::at(tap)?;
            return Ok((Self::Interface(interface), inner));
        }
        let (host, inner) = pair(max_frame)?;
        timestamp::note(&host)?;
        Ok((Self::Socket(host.into()), inner.into()))
    }
}

/// Where frames of `direction` come out; `None` if nobody looks.
pub(super) fn outer<'fd>(
    vm: &'fd OwnedFd,
    host: &'fd Host,
    direction: Direction,
) -> Option<BorrowedFd<'fd>> {
    match (direction, host) {
        (Direction::Inbound, _) => Some(vm.as_fd()),
        (_, Host::Socket(socket)) => Some(socket.as_fd()),
        (_, Host::Interface(host)) => host.receiver(),
    }
}
