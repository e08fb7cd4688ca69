//! A testbed at a TAP, on whose other side the bench plays the host with packet sockets.
//!
//! All of it is opened once, as that needs rights, and the bench gives those up before it
//! measures. Each subject inherits the TAP.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, send, setsockopt, sockopt};
use nix::unistd::read;

use super::{TART_RCVBUF, Testbed};
use crate::direction::Direction;
use crate::endpoint::tap::Tap;
use crate::host::privileges::Reserve;
use crate::sys::{packet, timestamp};

/// A TAP, and the host's side of it.
#[derive(Debug)]
pub struct TapHost {
    name: String,
    tap: Tap,
    sender: OwnedFd,
    /// Sees what the subject sends, which makes each frame dearer for the subject.
    watcher: OwnedFd,
}

impl TapHost {
    /// Opens the TAP, or makes it if there is none, and the sockets with which to play the
    /// host. This needs rights; whatever is done with it later does not.
    ///
    /// # Errors
    /// Which right is missing, or what else is in the way.
    pub fn open(name: &str) -> io::Result<Self> {
        let tap = Tap::open(name).map_err(io::Error::other)?;
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
pub(super) struct Interface {
    host: Arc<TapHost>,
    watches: bool,
}

impl Interface {
    /// Forgets what the last subject left, and looks at what comes out from now on. Returns with
    /// it the TAP for the subject to inherit.
    pub(super) fn at(host: &Arc<TapHost>) -> io::Result<(Self, OwnedFd)> {
        packet::unwatch(&host.watcher, &host.name)?;
        let mut buffer = [0; 2048];
        while read(&host.tap, &mut buffer).is_ok() {}
        while timestamp::recv(host.watcher.as_fd(), &mut buffer).is_ok() {}
        packet::watch(&host.watcher, &host.name)?;
        let interface = Self {
            host: Arc::clone(host),
            watches: true,
        };
        Ok((interface, host.tap.as_fd().try_clone_to_owned()?))
    }

    /// Sends a frame in the host's name.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        send(self.host.sender.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT)?;
        Ok(())
    }

    /// Where the frames come out that the subject sends; `None` if nobody looks.
    pub(super) fn receiver(&self) -> Option<BorrowedFd<'_>> {
        self.watches.then(|| self.host.watcher.as_fd())
    }

    /// Looks no longer at what comes out, so that it costs no more than it does.
    pub(super) fn unwatch(&mut self) -> io::Result<()> {
        self.watches = false;
        packet::unwatch(&self.host.watcher, &self.host.name)
    }

    /// How many frames the subject, and those before it, have sent.
    pub(super) fn sent(&self) -> io::Result<Option<usize>> {
        let name = &self.host.name;
        let table = fs::read_to_string("/proc/self/net/dev")?;
        let row = table.lines().find_map(|line| {
            let (interface, counters) = line.split_once(':')?;
            (interface.trim() == name).then_some(counters)
        });
        // What was written to a TAP is what its interface has received: the second column.
        let count = row.and_then(|counters| counters.split_whitespace().nth(1)?.parse().ok());
        let gone = || io::Error::other(format!("the TAP {name} is gone"));
        count.ok_or_else(gone).map(Some)
    }
}

impl Testbed {
    pub(super) fn at_own_host(self) -> io::Result<Self> {
        Err(no_vmnet())
    }

    /// Receives a frame that has come out.
    pub(super) fn receive_at_interface(
        &mut self,
        direction: Direction,
    ) -> io::Result<(usize, Duration)> {
        self.receive_any(direction)
    }

    /// Nothing is left behind by a subject that is killed.
    pub(super) fn end_gently(&mut self) {}
}

/// Nothing is lost on the way to a TAP or from it.
pub(super) const IS_LOSSY: bool = false;

pub(in crate::bench) fn check_vmnet(_: Option<&Reserve>) -> io::Result<()> {
    Err(no_vmnet())
}

fn no_vmnet() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "vmnet is macOS' own")
}
