//! The host's side on Linux: a TAP device. Outbound frames leave here into the host's
//! network, inbound frames enter here.
//!
//! A TAP moves one frame per call (drivers/net/tun.c), so a batch is a loop.
#![cfg(target_os = "linux")]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::poll::PollFlags;
use nix::unistd::write;
use thiserror::Error;

use super::{Endpoint, Kind, Received, Sent, Sink, Source, kind, received};
use crate::batch::Batch;
use crate::filter::DropReason;
use crate::stop::Stop;
use crate::sys::tap;
use crate::wire::ethernet::Ethernet;

/// An open TAP device.
#[derive(Debug)]
pub struct Tap {
    file: Arc<File>,
    max_frame: usize,
    is_new: bool,
}

/// Why a TAP device cannot be used.
#[derive(Debug, Error)]
pub enum TapError {
    /// No interface can have this name.
    #[error("{0:?} cannot be the name of a TAP: 1 to 15 bytes without '/', ':', '%' or spaces can")]
    Name(String),
    /// This user may use no TAP at all.
    #[error(
        "no rights to /dev/net/tun: run as root, or let root open it up: chmod 666 /dev/net/tun"
    )]
    DeviceRights,
    /// Only root and the device's owner may open it, and only root may make one.
    #[error(
        "no rights to the TAP {0}: run as root, or let root make it: ip tuntap add dev {0} mode tap user $USER"
    )]
    Rights(String),
    /// Another process has it.
    #[error("the TAP {0} is busy: another process has it open")]
    Busy(String),
    /// The kernel cannot make TAP devices.
    #[error("this kernel has no TAP devices: load the module tun")]
    Unsupported,
    /// An interface that is something else has the name.
    #[error("{0} is an interface, but not a TAP with a single queue")]
    NotATap(String),
    /// It is down, and only root may change that.
    #[error("the TAP {0} is down and may not be set up by this user: ip link set {0} up")]
    Down(String),
    /// The system said something else.
    #[error("cannot open the TAP {0}")]
    Other(String, #[source] io::Error),
}

impl Tap {
    /// Opens the device `name`, or makes it if there is none and sets it up. A device made
    /// here is gone when the last of its halves is dropped.
    ///
    /// # Errors
    /// See [`TapError`].
    pub fn open(name: &str) -> Result<Self, TapError> {
        let legal = |byte: u8| byte.is_ascii_graphic() && !b"/:%".contains(&byte);
        if !(1..=15).contains(&name.len()) || !name.bytes().all(legal) {
            return Err(TapError::Name(name.to_owned()));
        }
        let named = |error: io::Error| match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EACCES) => TapError::DeviceRights,
            Some(Errno::EPERM) => TapError::Rights(name.to_owned()),
            Some(Errno::EBUSY) => TapError::Busy(name.to_owned()),
            Some(Errno::ENOENT | Errno::ENODEV) => TapError::Unsupported,
            Some(Errno::EINVAL) => TapError::NotATap(name.to_owned()),
            _ => TapError::Other(name.to_owned(), error),
        };
        let is_new = if_nametoindex(name) == Err(Errno::ENODEV);
        let file = tap::attach(name).map_err(named)?;
        tap::bring_up(name).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => TapError::Down(name.to_owned()),
            _ => named(error),
        })?;
        let max_frame = tap::mtu(name).map_err(named)? + Ethernet::LEN;
        Ok(Self {
            file: Arc::new(file.into()),
            max_frame,
            is_new,
        })
    }

    /// Whether there was no such device before it was opened.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.is_new
    }

    /// Takes what somebody else has opened, as [`open`](Self::open) would have.
    ///
    /// # Errors
    /// `device` itself, if it is no such TAP.
    pub fn inherit(device: OwnedFd) -> Result<Self, OwnedFd> {
        match tap::inherited(&device) {
            Ok(mtu) => Ok(Self {
                file: Arc::new(device.into()),
                max_frame: mtu + Ethernet::LEN,
                is_new: false,
            }),
            Err(_) => Err(device),
        }
    }

    /// Another way to send, for when the forwarder has ended: see [`Endpoint::Sink`].
    #[must_use]
    pub fn sink(&self) -> ToTap {
        ToTap(Arc::clone(&self.file))
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Endpoint for Tap {
    type Source = FromTap;
    type Sink = ToTap;

    fn max_frame(&self) -> usize {
        self.max_frame
    }

    fn split(self) -> (FromTap, ToTap) {
        (FromTap(Arc::clone(&self.file)), ToTap(self.file))
    }
}

/// Receives what the host sends.
#[derive(Debug)]
pub struct FromTap(Arc<File>);

impl Source for FromTap {
    fn recv(&mut self, batch: &mut Batch, limit: usize) -> Received {
        let (slots, lens) = batch.fill(limit);
        let mut count = 0;
        let mut end = None;
        for (slot, len) in slots.zip(lens) {
            match (&*self.0).read(slot) {
                #[allow(clippy::cast_possible_truncation)] // A slot has far less than 4 GiB.
                Ok(read) => *len = read as u32,
                Err(error) => {
                    end = Some(error);
                    break;
                }
            }
            count += 1;
        }
        // What came before an error counts; the next call meets the error again.
        match end {
            Some(error) if count == 0 && is_gone(&error) => Received::Gone,
            Some(error) if count == 0 => received(Err(error), batch),
            _ => received(Ok(count), batch),
        }
    }

    fn wait(&mut self, stop: &Stop) -> io::Result<()> {
        stop.or_event(self.0.as_fd(), PollFlags::POLLIN)
    }
}

/// Sends to the host.
#[derive(Debug, Clone)]
pub struct ToTap(Arc<File>);

impl Sink for ToTap {
    const FULL: DropReason = DropReason::Stopping;
    const REFUSED: DropReason = DropReason::HostRefused;

    fn send(&mut self, batch: &mut Batch) -> Sent {
        let mut sent = 0;
        let mut outcome = Sent::All;
        for frame in batch.pending() {
            // A frame is written whole or not at all.
            match write(&*self.0, frame) {
                Ok(_) => sent += 1,
                Err(errno) => {
                    let error = io::Error::from(errno);
                    outcome = match kind(&error) {
                        Kind::NotNow => Sent::Full,
                        _ if is_gone(&error) => Sent::Gone,
                        Kind::Gone | Kind::Other => Sent::Refused(error),
                    };
                    break;
                }
            }
        }
        batch.advance(sent);
        outcome
    }

    fn wait_for_room(&mut self, stop: &Stop, _waits: u32) -> bool {
        stop.or_event(self.0.as_fd(), PollFlags::POLLOUT).is_ok()
    }
}

/// Whether the device was deleted: its descriptor answers EBADFD then, for good
/// (drivers/net/tun.c, tun_get). One that is made anew has another descriptor.
fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBADFD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_interface_can_have_are_refused() {
        for name in ["", "sixteen-letters-", "a/b", "tap%d", "a b", "a:b", "ü"] {
            assert!(matches!(Tap::open(name), Err(TapError::Name(_))), "{name}");
        }
    }
}
