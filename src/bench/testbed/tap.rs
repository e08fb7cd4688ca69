//! A testbed at a TAP, on whose other side the bench plays the host with packet sockets.
//!
//! All of it is opened once, as that needs rights, and the bench gives those up before it
//! measures. Each subject inherits the TAP.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::sys::socket::{MsgFlags, send, setsockopt, sockopt};
use nix::unistd::read;

use super::host::{Counted, HostEnd};
use super::{TART_RCVBUF, Testbed};
use crate::endpoint::tap::{Offload, Tap};
use crate::host::privileges::SavedPrivileges;
use crate::sys::{packet, timestamp};

/// Two TAPs with the host's side of each: one for frames as they are on a wire, and one for large
/// segments too.
#[derive(Debug)]
pub struct TapHost {
    plain: OneTap,
    large: OneTap,
}

/// A TAP, and the host's side of it.
#[derive(Debug)]
struct OneTap {
    name: String,
    tap: Tap,
    sender: OwnedFd,
    /// Sees what the subject sends, which makes each frame dearer for the subject.
    watcher: OwnedFd,
}

impl TapHost {
    /// Opens the TAP, or makes it if there is none, another with a `v` behind its name, and the
    /// sockets with which to play the host. This needs rights; whatever is done with it later does
    /// not.
    ///
    /// # Errors
    /// Which right is missing, or what else is in the way.
    pub fn open(name: &str) -> io::Result<Self> {
        Ok(Self {
            plain: OneTap::open(name, Offload::Off)?,
            large: OneTap::open(&format!("{name}v"), Offload::Auto)?,
        })
    }

    /// Forgets what the last subject left, and looks at what comes out from now on. Returns with
    /// it the TAP for the subject to inherit.
    pub(super) fn end(self: &Arc<Self>, is_large: bool) -> io::Result<(Box<dyn HostEnd>, OwnedFd)> {
        let end = TapEnd {
            host: Arc::clone(self),
            is_large,
            watches: true,
        };
        let OneTap {
            name, tap, watcher, ..
        } = end.tap();
        packet::unwatch(watcher, name)?;
        let mut buffer = [0; 2048];
        while read(tap, &mut buffer).is_ok() {}
        while timestamp::recv(watcher.as_fd(), &mut buffer).is_ok() {}
        packet::watch(watcher, name)?;
        let inherited = tap.as_fd().try_clone_to_owned()?;
        Ok((Box::new(end), inherited))
    }
}

impl OneTap {
    fn open(name: &str, offload: Offload) -> io::Result<Self> {
        let tap = Tap::open(name, offload).map_err(io::Error::other)?;
        // Or the kernel's own solicitations would come as frames for the VM. Where that cannot
        // be switched off, they are dropped, and cost a little.
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
        let socket = || {
            packet::open(name).map_err(|error| {
                io::Error::other(format!("cannot play the host at the TAP {name}: {error}"))
            })
        };
        let (sender, watcher) = (socket()?, socket()?);
        setsockopt(&watcher, sockopt::RcvBuf, &TART_RCVBUF)?;
        timestamp::note(&watcher)?;
        Ok(Self {
            name: name.to_owned(),
            tap,
            sender,
            watcher,
        })
    }
}

/// The TAP while one subject is measured at it.
#[derive(Debug)]
struct TapEnd {
    host: Arc<TapHost>,
    is_large: bool,
    watches: bool,
}

impl TapEnd {
    fn tap(&self) -> &OneTap {
        if self.is_large {
            &self.host.large
        } else {
            &self.host.plain
        }
    }
}

impl HostEnd for TapEnd {
    fn send(&self, frame: &[u8]) -> io::Result<()> {
        send(self.tap().sender.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT)?;
        Ok(())
    }

    fn receiver(&self) -> Option<BorrowedFd<'_>> {
        self.watches.then(|| self.tap().watcher.as_fd())
    }

    fn unwatch(&mut self) -> io::Result<()> {
        self.watches = false;
        packet::unwatch(&self.tap().watcher, &self.tap().name)
    }

    fn sent(&self) -> io::Result<Option<Counted>> {
        let name = &self.tap().name;
        let table = fs::read_to_string("/proc/self/net/dev")?;
        let row = table.lines().find_map(|line| {
            let (interface, counters) = line.split_once(':')?;
            (interface.trim() == name).then_some(counters)
        });
        // What was written to a TAP is what its interface has received: the first two columns.
        let counted = row.and_then(|counters| {
            let mut counters = counters.split_whitespace().map(str::parse);
            Some(Counted {
                bytes: counters.next()?.ok()?,
                frames: counters.next()?.ok()?,
            })
        });
        let gone = || io::Error::other(format!("the TAP {name} is gone"));
        counted.ok_or_else(gone).map(Some)
    }
}

impl Testbed {
    #[allow(clippy::unused_self)] // As at vmnet.
    pub(super) fn join_host(&mut self) -> io::Result<()> {
        Err(no_vmnet())
    }
}

pub(in crate::bench) fn check_vmnet(_: Option<&SavedPrivileges>) -> io::Result<()> {
    Err(no_vmnet())
}

fn no_vmnet() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "vmnet is macOS' own")
}
