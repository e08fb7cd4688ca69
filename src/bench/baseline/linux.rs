//! The loops on Linux, by raw calls: [`RawBatch`] for many frames, and the plain calls for one.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::unistd::{read, write};

use super::{End, FRAMES_MAX, Setup, Subject, laboratory, limit_for, run_engine};
use crate::batch::{Slot, Slots};
use crate::clock::Tick;
use crate::endpoint::synthetic::SyntheticHost;
use crate::endpoint::tap::{Offload, Tap};
use crate::filter::{Filter, Verdict};
use crate::host::privileges::Identity;
use crate::sys::raw_batch::RawBatch;

/// At a socket or a TAP, whichever standard output is.
pub(super) fn run(
    setup: &Setup,
    _caller: &Identity,
    vm: OwnedFd,
    host: OwnedFd,
    end: &mut End,
) -> io::Result<()> {
    if setup.vmnet {
        return Err(ErrorKind::Unsupported.into());
    }
    let tap = Tap::inherit(host, Offload::Off);
    if !matches!(setup.subject, Subject::Bare | Subject::OneFrame) {
        let filters = laboratory(setup)?;
        return match tap {
            Ok(tap) => run_engine(setup, vm, tap, filters, end),
            Err(socket) => {
                let socket = SyntheticHost::new(socket.into(), setup.max_frame);
                run_engine(setup, vm, socket, filters, end)
            }
        };
    }
    let vm = Side::Socket(vm);
    let host = match tap {
        Ok(tap) => Side::Tap(tap.as_fd().try_clone_to_owned()?),
        Err(socket) => Side::Socket(socket),
    };
    if setup.subject == Subject::Bare {
        bare(vm, host, setup.max_frame)?;
    } else {
        let (outbound, inbound) = laboratory(setup)?;
        one_frame(vm, host, outbound, inbound, setup.max_frame)?;
    }
    end.wait();
    Ok(())
}

/// One side of a loop. All calls but [`recv_batch`](Self::recv_batch) on a socket return
/// at once.
#[derive(Debug)]
enum Side {
    Socket(OwnedFd),
    Tap(OwnedFd),
}

/// Moves frames both ways, in batches, until the process ends.
fn bare(vm: Side, host: Side, max_frame: usize) -> io::Result<()> {
    let (vm, host) = (Arc::new(vm), Arc::new(host));
    let (from, to) = (Arc::clone(&host), Arc::clone(&vm));
    thread::Builder::new().spawn(move || pump(&from, &to, max_frame))?;
    thread::Builder::new().spawn(move || pump(&vm, &host, max_frame))?;
    Ok(())
}

/// Moves frames both ways, one by one, until the process ends.
fn one_frame(
    vm: Side,
    host: Side,
    outbound: impl Filter + 'static,
    inbound: impl Filter + 'static,
    max_frame: usize,
) -> io::Result<()> {
    let mut outbound = outbound;
    let mut inbound = inbound;
    thread::Builder::new().spawn(move || {
        let mut slots = Slots::new(1, max_frame);
        loop {
            let mut sides = [&vm, &host].map(|side| PollFd::new(side.as_fd(), PollFlags::POLLIN));
            let _ = poll(&mut sides, PollTimeout::NONE);
            forward_each(&vm, &host, &mut outbound, slots.get_mut(0));
            forward_each(&host, &vm, &mut inbound, slots.get_mut(0));
        }
    })?;
    Ok(())
}

fn pump(from: &Side, to: &Side, max_frame: usize) {
    let mut batch = RawBatch::new(FRAMES_MAX, max_frame);
    let mut limit = FRAMES_MAX;
    let mut mean_len = 0;
    loop {
        let received = from.recv_batch(&mut batch, limit);
        let bytes: usize = (0..received).map(|index| batch.frame(index).len()).sum();
        mean_len = (3 * mean_len + bytes / received.max(1)) / 4;
        limit = limit_for(mean_len);
        let mut sent = 0;
        while sent < received {
            match to.send_batch(&mut batch, sent, received) {
                0 => to.wait(PollFlags::POLLOUT),
                count => sent += count,
            }
        }
    }
}

/// Forwards what is there, up to a batch's worth, so that one side cannot starve the other.
fn forward_each(from: &Side, to: &Side, filter: &mut impl Filter, slot: &mut [u8]) {
    filter.begin(Tick::ZERO);
    for _ in 0..FRAMES_MAX {
        let Some(len) = moved(from.recv(slot)) else {
            return;
        };
        let mut len = u32::try_from(len).unwrap_or(0);
        let mut slot = Slot::new(slot, &mut len);
        if filter.decide(&mut slot) != Verdict::Forward {
            continue;
        }
        while moved(to.send(slot.frame())).is_none() {
            to.wait(PollFlags::POLLOUT);
        }
    }
}

impl Side {
    fn recv_batch(&self, batch: &mut RawBatch, limit: usize) -> usize {
        match self {
            Self::Socket(socket) => counted(batch.recv(socket.as_fd(), limit)).unwrap_or(0),
            Self::Tap(tap) => {
                self.wait(PollFlags::POLLIN);
                let mut count = 0;
                while count < limit {
                    let (slot, len) = batch.slot(count);
                    let Some(read) = moved(read(tap, slot)) else {
                        break;
                    };
                    *len = read;
                    count += 1;
                }
                count
            }
        }
    }

    fn send_batch(&self, batch: &mut RawBatch, from: usize, to: usize) -> usize {
        match self {
            Self::Socket(socket) if to - from > 1 => {
                counted(batch.send(socket.as_fd(), from, to)).unwrap_or(0)
            }
            _ => (from..to)
                .take_while(|&index| moved(self.send(batch.frame(index))).is_some())
                .count(),
        }
    }

    fn recv(&self, slot: &mut [u8]) -> nix::Result<usize> {
        match self {
            Self::Socket(socket) => recv(socket.as_raw_fd(), slot, MsgFlags::MSG_DONTWAIT),
            Self::Tap(tap) => read(tap, slot),
        }
    }

    fn send(&self, frame: &[u8]) -> nix::Result<usize> {
        match self {
            Self::Socket(socket) => send(
                socket.as_raw_fd(),
                frame,
                MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
            ),
            Self::Tap(tap) => write(tap, frame),
        }
    }

    fn wait(&self, event: PollFlags) {
        let _ = poll(&mut [PollFd::new(self.as_fd(), event)], PollTimeout::NONE);
    }
}

impl AsFd for Side {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Socket(fd) | Self::Tap(fd) => fd.as_fd(),
        }
    }
}

/// What a call moved; `None` if nothing was there, or no room.
fn moved(result: nix::Result<usize>) -> Option<usize> {
    counted(result.map_err(Errno::into))
}

/// Any other failure means that the measurement is over, or worth nothing.
fn counted(result: io::Result<usize>) -> Option<usize> {
    match result {
        Ok(count) => Some(count),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            None
        }
        Err(error) => panic!("the loop broke: {error}"),
    }
}
