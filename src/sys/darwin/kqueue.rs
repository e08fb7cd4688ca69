//! A descriptor that becomes readable when a process ends: a queue of kernel events with one
//! such event in it (kqueue(2), EVFILT_PROC).

use std::io;
use std::os::fd::OwnedFd;

use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};
use nix::unistd::Pid;

/// Opens a descriptor for `pid`.
pub(crate) fn open(pid: Pid) -> io::Result<OwnedFd> {
    let queue = Kqueue::new()?;
    let event = KEvent::new(
        usize::try_from(pid.as_raw()).map_err(io::Error::other)?,
        EventFilter::EVFILT_PROC,
        EvFlags::EV_ADD,
        FilterFlag::NOTE_EXIT,
        0,
        0,
    );
    queue.kevent(&[event], &mut [], None)?;
    Ok(queue.into())
}
