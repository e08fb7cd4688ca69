//! The host's end of a bed: a socket, a TAP, or the host itself at vmnet.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::pair;
#[cfg(not(any(target_os = "macos", feature = "vmnet-sim")))]
pub use super::tap::TapHost;
#[cfg(not(any(target_os = "macos", feature = "vmnet-sim")))]
use super::tap::Turn;
#[cfg(any(target_os = "macos", feature = "vmnet-sim"))]
use super::vmnet::OwnHost;
use crate::direction::Direction;
use crate::sys::arrival;

/// What a bed has of it.
#[derive(Debug)]
pub(super) enum Host {
    Socket(OwnedFd),
    #[cfg(not(any(target_os = "macos", feature = "vmnet-sim")))]
    Tap(Turn),
    #[cfg(any(target_os = "macos", feature = "vmnet-sim"))]
    Own(OwnHost),
}

impl Host {
    /// The host's end, and what the subject gets of it.
    pub(super) fn new(max_frame: usize, tap: Option<&Arc<TapHost>>) -> io::Result<(Self, OwnedFd)> {
        #[cfg(not(any(target_os = "macos", feature = "vmnet-sim")))]
        if let Some(tap) = tap {
            let turn = Turn::begin(tap)?;
            let inner = turn.tap()?;
            return Ok((Self::Tap(turn), inner));
        }
        #[cfg(any(target_os = "macos", feature = "vmnet-sim"))]
        let _ = tap;
        let (host, inner) = pair(max_frame)?;
        arrival::note(&host)?;
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
        #[cfg(not(any(target_os = "macos", feature = "vmnet-sim")))]
        (_, Host::Tap(tap)) => tap.watcher(),
        #[cfg(any(target_os = "macos", feature = "vmnet-sim"))]
        (_, Host::Own(host)) => Some(host.as_fd()),
    }
}

/// There are TAPs on Linux alone.
#[cfg(any(target_os = "macos", feature = "vmnet-sim"))]
#[derive(Debug)]
pub enum TapHost {}

#[cfg(any(target_os = "macos", feature = "vmnet-sim"))]
impl TapHost {
    pub(in crate::bench) fn name(&self) -> &str {
        match *self {}
    }
}
