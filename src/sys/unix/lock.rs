//! Locks of this process on single bytes of a file (fcntl(2), "advisory record locking").
//!
//! They end with the process, and when it closes any descriptor of the file. The offset of a lock
//! may be beyond the end of the file.
#![allow(clippy::cast_possible_truncation, trivial_numeric_casts)] // macOS has these as c_short.

use std::os::fd::AsFd;

use libc::{c_short, flock};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::Pid;

/// The result of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Locked {
    /// The byte is ours.
    Ours,
    /// Another process has it: 0 for one without a number in our pid namespace (locks_translate_pid
    /// in Linux' fs/locks.c).
    By(Pid),
    /// Another process had it, but no longer has it.
    Free,
}

/// Locks one byte against every other process, without waiting for it.
pub(crate) fn lock(file: impl AsFd, offset: i64) -> nix::Result<Locked> {
    match fcntl(
        &file,
        FcntlArg::F_SETLK(&byte(libc::F_WRLCK as c_short, offset)),
    ) {
        Ok(_) => return Ok(Locked::Ours),
        // POSIX allows either.
        Err(Errno::EAGAIN | Errno::EACCES) => (),
        Err(error) => return Err(error),
    }
    let mut other = byte(libc::F_WRLCK as c_short, offset);
    fcntl(&file, FcntlArg::F_GETLK(&mut other))?;
    Ok(if other.l_type == libc::F_UNLCK as c_short {
        Locked::Free
    } else {
        Locked::By(Pid::from_raw(other.l_pid))
    })
}

/// Unlocks a byte, if it is ours.
pub(crate) fn unlock(file: impl AsFd, offset: i64) -> nix::Result<()> {
    let byte = byte(libc::F_UNLCK as c_short, offset);
    fcntl(file, FcntlArg::F_SETLK(&byte)).map(drop)
}

fn byte(kind: c_short, offset: i64) -> flock {
    flock {
        l_type: kind,
        l_whence: libc::SEEK_SET as c_short,
        l_start: offset,
        l_len: 1,
        l_pid: 0,
    }
}
