//! The device that both halves of a TAP share: how its frames look, and that it is left as it was
//! found.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;

use super::TapError;
use crate::sys::tap::{self, Settings};
use crate::wire::segment;
use crate::wire::virtio::VirtioHeader;

/// An open device.
#[derive(Debug)]
pub(super) struct Device {
    file: File,
    /// How it was before, if the system tells and it is for us to restore.
    found: Option<Settings>,
    /// Whether each frame has a [`VirtioHeader`] before it.
    has_headers: bool,
    /// Whether the kernel takes large segments.
    takes_large: AtomicBool,
}

impl Device {
    /// Opens a device whose frames are as on a wire.
    pub(super) fn open(name: &str) -> Result<Self, TapError> {
        let device = Self::attach(name, false)?;
        // A persistent device keeps the offloads that its last user requested. With checksum offload
        // on, frames would come without checksums, and the guest would drop them.
        tap::set_offloads(device.as_fd(), 0).map_err(|error| named(name, error))?;
        Ok(device)
    }

    /// Opens a device that reads and writes large segments; or returns why it does not.
    pub(super) fn open_offloaded(name: &str) -> Result<io::Result<Self>, TapError> {
        let device = Self::attach(name, true)?;
        Ok(device.offload().map(|()| device))
    }

    /// Takes a device that somebody else has opened, with its MTU; or returns it.
    pub(super) fn inherit(descriptor: OwnedFd) -> Result<(Self, usize), OwnedFd> {
        let Ok((mtu, has_headers)) = tap::inherited(&descriptor) else {
            return Err(descriptor);
        };
        let device = Self {
            file: descriptor.into(),
            // Whoever has opened it does what is to be done at its end.
            found: None,
            has_headers,
            takes_large: AtomicBool::new(false),
        };
        Ok((device, mtu))
    }

    fn attach(name: &str, has_headers: bool) -> Result<Self, TapError> {
        let named = |error| named(name, error);
        let descriptor = tap::attach(name, has_headers).map_err(named)?;
        let found = Settings::of(descriptor.as_fd(), name).ok();
        tap::bring_up(name).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => TapError::Down(name.to_owned()),
            _ => named(error),
        })?;
        Ok(Self {
            file: descriptor.into(),
            found,
            has_headers,
            takes_large: AtomicBool::new(false),
        })
    }

    /// Has frames with headers as this program reads them, and nothing left to it.
    pub(super) fn decline_offload(&self) -> io::Result<()> {
        Settings::OFFLOADED.without_offloads().apply(self.as_fd())
    }

    /// Asks the kernel for large segments, and sees whether it takes one: that it takes the setting
    /// alone says nothing.
    pub(super) fn offload(&self) -> io::Result<()> {
        Settings::OFFLOADED.apply(self.as_fd())?;
        // It ends where it enters: no bridge forwards a pause frame (br_input.c), and no host takes
        // a packet whose header has a wrong checksum.
        (&self.file).write_all(&segment::large_for_nobody())?;
        self.takes_large.store(true, Ordering::Relaxed);
        Ok(())
    }

    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    /// Whether each frame has a header before it.
    pub(super) const fn has_headers(&self) -> bool {
        self.has_headers
    }

    /// The length of the header before each frame, in bytes.
    pub(super) const fn header_len(&self) -> usize {
        if self.has_headers {
            VirtioHeader::LEN
        } else {
            0
        }
    }

    /// Whether the kernel takes large segments.
    pub(super) fn takes_large(&self) -> bool {
        self.takes_large.load(Ordering::Relaxed)
    }

    /// Remembers that the kernel has refused a large segment.
    pub(super) fn refuse_large(&self) {
        self.takes_large.store(false, Ordering::Relaxed);
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(found) = self.found {
            let _ = found.apply(self.file.as_fd());
        }
    }
}

pub(super) fn named(name: &str, error: io::Error) -> TapError {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EACCES) => TapError::DeviceRights,
        Some(Errno::EPERM) => TapError::Rights(name.to_owned()),
        Some(Errno::EBUSY) => TapError::Busy(name.to_owned()),
        Some(Errno::ENOENT | Errno::ENODEV) => TapError::Unsupported,
        Some(Errno::EINVAL) => TapError::NotATap(name.to_owned()),
        _ => TapError::Other(name.to_owned(), error),
    }
}
