//! The host's end of a bed: a socket, a TAP, or the host itself at vmnet.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::pair;
#[cfg(tap)]
pub use super::tap::TapHost;
#[cfg(tap)]
use super::tap::Turn;
#[cfg(vmnet)]
use super::vmnet::OwnHost;
use crate::direction::Direction;
use crate::sys::timestamp;

/// What a bed has of it.
#[derive(Debug)]
pub(super) enum Host {
    Socket(OwnedFd),
    #[cfg(tap)]
    Tap(Turn),
    #[cfg(vmnet)]
    Own(OwnHost),
}

impl Host {
    /// The host's end, and what the subject gets of it.
    pub(super) fn new(max_frame: usize, tap: Option<&Arc<TapHost>>) -> io::Result<(Self, OwnedFd)> {
        #[cfg(tap)]
        if let Some(tap) = tap {
            let turn = Turn::begin(tap)?;
            let inner = turn.tap()?;
            return Ok((Self::Tap(turn), inner));
        }
        #[cfg(vmnet)]
        let _ = tap;
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
        #[cfg(tap)]
        (_, Host::Tap(tap)) => tap.watcher(),
        #[cfg(vmnet)]
        (_, Host::Own(host)) => Some(host.as_fd()),
    }
}

/// There are TAPs on Linux alone.
#[cfg(vmnet)]
#[derive(Debug)]
pub enum TapHost {}

#[cfg(vmnet)]
impl TapHost {
    pub(in crate::bench) fn name(&self) -> &str {
        match *self {}
    }
}
