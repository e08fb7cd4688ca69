//! The signals that only Linux has.

use std::ops::RangeInclusive;

use nix::sys::signal::Signal;

/// The power fails.
pub(crate) const STOP: &[Signal] = &[Signal::SIGPWR];

pub(crate) const FORGOTTEN: &[Signal] = &[Signal::SIGSTKFLT];

/// Those without a name, which also end a process (signal(7)).
pub(crate) fn unnamed() -> RangeInclusive<i32> {
    libc::SIGRTMIN()..=libc::SIGRTMAX()
}
