//! A bed at a TAP, on whose other side the bench plays the host with packet sockets.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Instant;

use nix::sys::socket::{setsockopt, sockopt};

use super::{Bed, LOOK_EVERY, PATIENCE, TART_RCVBUF};
use crate::sys::{arrival, packet, usage};

/// The host's side of a TAP.
#[derive(Debug)]
pub(super) struct TapHost {
    name: String,
    pub(super) sender: OwnedFd,
    /// Sees what the subject sends, which makes each frame dearer for the subject.
    pub(super) watcher: Option<OwnedFd>,
}

impl TapHost {
    fn open(name: &str) -> io::Result<Self> {
        // Or the kernel's own solicitations would come as frames for the VM. Where that cannot
        // be switched off, they are dropped, and cost a little.
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
        let sender = packet::open(name, false)?;
        let watcher = packet::open(name, true)?;
        setsockopt(&watcher, sockopt::RcvBuf, &TART_RCVBUF)?;
        arrival::note(&watcher)?;
        Ok(Self {
            name: name.to_owned(),
            sender,
            watcher: Some(watcher),
        })
    }

    /// How many frames the subject has sent.
    pub(super) fn sent(&self) -> io::Result<usize> {
        let name = &self.name;
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

impl Bed {
    /// Takes the host's side of the TAP, as soon as the subject has made it and set it up.
    pub(super) fn host_at_tap(&mut self, name: &str) -> io::Result<TapHost> {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = packet::open(name, false) {
            if Instant::now() > deadline || usage::is_asleep(self.pid).is_err() {
                let words = format!("cannot play the host at the TAP {name}: {error}");
                return Err(self.complaint(&words));
            }
            thread::sleep(LOOK_EVERY);
        }
        self.settle()?;
        TapHost::open(name)
    }
}
