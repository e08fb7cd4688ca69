//! The host's side on Linux: a TAP device. Outbound frames leave here into the host's
//! network, inbound frames enter here.
//!
//! ```text
//!   outbound:  batch ── large/merge.rs ──▶ send.rs ──▶ the host's network
//!   inbound:   batch ◀── large/split.rs ── receive.rs ◀── the host's network
//! ```
//!
//! A TAP moves one frame per call (drivers/net/tun.c), and each costs the host's network more than
//! it costs softnet. So TCP segments that follow each other are written as one large segment, and
//! large ones that the host sends are read as one: see `wire/segment.rs`. All others see single
//! frames only.
#![cfg(target_os = "linux")]

mod device;
mod receive;
mod send;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use thiserror::Error;

use self::device::Device;
pub use self::receive::FromTap;
pub use self::send::ToTap;
use super::Endpoint;
use crate::sys::tap;
use crate::wire::ethernet::Ethernet;

/// An open TAP device.
#[derive(Debug)]
pub struct Tap {
    device: Arc<Device>,
    max_frame: usize,
    is_new: bool,
    refused: Option<io::Error>,
}

/// Whether segments are read and written as large ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Offload {
    /// If the device can.
    #[default]
    Auto,
    /// No.
    Off,
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
    /// here is gone when the last of its halves is dropped; any other is left as it was found.
    ///
    /// # Errors
    /// See [`TapError`].
    pub fn open(name: &str, offload: Offload) -> Result<Self, TapError> {
        let legal = |byte: u8| byte.is_ascii_graphic() && !b"/:%".contains(&byte);
        if !(1..=15).contains(&name.len()) || !name.bytes().all(legal) {
            return Err(TapError::Name(name.to_owned()));
        }
        let is_new = if_nametoindex(name) == Err(Errno::ENODEV);
        let (device, refused) = match offload {
            Offload::Off => (Device::open(name)?, None),
            Offload::Auto => match Device::open_offloaded(name)? {
                Ok(device) => (device, None),
                Err(error) => (Device::open(name)?, Some(error)),
            },
        };
        let mtu = tap::mtu(name).map_err(|error| device::named(name, error))?;
        Ok(Self {
            device: Arc::new(device),
            max_frame: mtu + Ethernet::LEN,
            is_new,
            refused,
        })
    }

    /// Takes what somebody else has opened, as [`open`](Self::open) would have.
    ///
    /// # Errors
    /// The descriptor itself, if it is no such TAP.
    pub fn inherit(descriptor: OwnedFd, offload: Offload) -> Result<Self, OwnedFd> {
        let (device, mtu) = Device::inherit(descriptor)?;
        let refused = match offload {
            _ if !device.has_headers() => None,
            Offload::Auto => device.offload().err(),
            Offload::Off => device.decline_offload().err(),
        };
        Ok(Self {
            device: Arc::new(device),
            max_frame: mtu + Ethernet::LEN,
            is_new: false,
            refused,
        })
    }

    /// Whether there was no such device before it was opened.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.is_new
    }

    /// Why segments are not read and written as large ones, although that was asked for.
    #[must_use]
    pub const fn refused(&self) -> Option<&io::Error> {
        self.refused.as_ref()
    }

    /// Another way to send, for when the forwarder has ended: see [`Endpoint::Sink`].
    #[must_use]
    pub fn sink(&self) -> ToTap {
        ToTap::new(Arc::clone(&self.device))
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

impl Endpoint for Tap {
    type Source = FromTap;
    type Sink = ToTap;

    fn max_frame(&self) -> usize {
        self.max_frame
    }

    fn split(self) -> (FromTap, ToTap) {
        let source = FromTap::new(Arc::clone(&self.device));
        (source, ToTap::new(self.device))
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
            let opened = Tap::open(name, Offload::Off);
            assert!(matches!(opened, Err(TapError::Name(_))), "{name}");
        }
    }
}
