//! A bed at a TAP, on whose other side the bench plays the host with packet sockets.
//!
//! All of it is opened once, as that needs rights, and the bench gives those up before it
//! measures. Each subject inherits the TAP.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::read;

use super::TART_RCVBUF;
use crate::endpoint::tap::Tap;
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

    /// What the TAP is called.
    pub(in crate::bench) fn name(&self) -> &str {
        &self.name
    }
}

/// One subject's turn at the TAP.
#[derive(Debug)]
pub(super) struct Turn {
    host: Arc<TapHost>,
    watches: bool,
}

impl Turn {
    /// Forgets what the last subject left, and looks at what comes out from now on.
    pub(super) fn begin(host: &Arc<TapHost>) -> io::Result<Self> {
        packet::unwatch(&host.watcher, &host.name)?;
        let mut buffer = [0; 2048];
        while read(&host.tap, &mut buffer).is_ok() {}
        while timestamp::recv(host.watcher.as_fd(), &mut buffer).is_ok() {}
        packet::watch(&host.watcher, &host.name)?;
        Ok(Self {
            host: Arc::clone(host),
            watches: true,
        })
    }

    /// The TAP, for the subject to inherit.
    pub(super) fn tap(&self) -> io::Result<OwnedFd> {
        self.host.tap.as_fd().try_clone_to_owned()
    }

    /// To send at, in the host's name.
    pub(super) fn sender(&self) -> BorrowedFd<'_> {
        self.host.sender.as_fd()
    }

    /// Where the frames come out that the subject sends; `None` if nobody looks.
    pub(super) fn watcher(&self) -> Option<BorrowedFd<'_>> {
        self.watches.then(|| self.host.watcher.as_fd())
    }

    /// Looks no longer at what comes out, so that it costs no more than it does.
    pub(super) fn unwatch(&mut self) -> io::Result<()> {
        self.watches = false;
        packet::unwatch(&self.host.watcher, &self.host.name)
    }

    /// How many frames the subject, and those before it, have sent.
    pub(super) fn sent(&self) -> io::Result<usize> {
        let name = &self.host.name;
        let table = fs::read_to_string("/proc/self/net/dev")?;
        let row = table.lines().find_map(|line| {
            let (interface, counters) = line.split_once(':')?;
            (interface.trim() == name).then_some(counters)
        });
        // What was written to a TAP is what its interface has received: the second column.
        let count = row.and_then(|counters| counters.split_whitespace().nth(1)?.parse().ok());
        count.ok_or_else(|| io::Error::other(format!("the TAP {name} is gone")))
    }
}
