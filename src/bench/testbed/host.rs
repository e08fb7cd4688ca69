//! The host's end of a testbed: what the bench has of a socket, a TAP, or the host itself.

use std::fmt::Debug;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, send};

use super::pair;
use crate::bench::HostSide;
use crate::bench::subject::{Setup, Subject};
use crate::sys::timestamp;

/// Where the bench sends to the VM, and receives from it.
pub(super) trait HostEnd: Debug {
    /// Sends a frame for the VM.
    fn send(&self, frame: &[u8]) -> io::Result<()>;

    /// Where the VM's frames come out; `None` if nobody looks.
    fn receiver(&self) -> Option<BorrowedFd<'_>>;

    /// Receives one of them; returns its length and when that was.
    fn recv(&self, buffer: &mut [u8]) -> io::Result<(usize, Duration)> {
        let receiver = self.receiver().ok_or(io::ErrorKind::WouldBlock)?;
        timestamp::recv(receiver, buffer)
    }

    /// Whether a frame that has come to the VM is one that the bench has sent.
    fn has_sent(&self, _frame: &[u8]) -> bool {
        true
    }

    /// What the VM answers to one that the host has sent by itself, if anything.
    fn answer(&self, _frame: &[u8]) -> Option<Vec<u8>> {
        None
    }

    /// Looks no longer at what comes out at a TAP, so that it costs no more than it does.
    fn unwatch(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// What this subject and those before it have sent there, if somebody counts.
    fn sent(&self) -> io::Result<Option<Counted>> {
        Ok(None)
    }

    /// Whether frames may be lost on their way to the subject or behind it, in queues of the
    /// host's whose lengths nobody tells.
    fn is_lossy(&self) -> bool {
        false
    }
}

/// What an interface has counted.
#[derive(Debug, Clone, Copy)]
pub(in crate::bench) struct Counted {
    pub(in crate::bench) bytes: usize,
    /// Large ones count once.
    pub(in crate::bench) frames: usize,
}

impl HostEnd for OwnedFd {
    fn send(&self, frame: &[u8]) -> io::Result<()> {
        send(self.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT)?;
        Ok(())
    }

    fn receiver(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }
}

/// The host's end, and what the subject gets of it. At vmnet it is a socket until the VM has
/// an address.
pub(super) fn open(setup: &Setup<'_>) -> io::Result<(Box<dyn HostEnd>, OwnedFd)> {
    if let HostSide::Tap(tap) = setup.host {
        return tap.end(setup.subject == Subject::Offload);
    }
    let (host, inner) = pair(setup.max_frame)?;
    timestamp::note(&host)?;
    Ok((Box::new(OwnedFd::from(host)), inner.into()))
}
