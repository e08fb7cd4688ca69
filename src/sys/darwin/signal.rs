//! The signals that only macOS has: none that would end a process.

use std::iter::{Empty, empty};

use nix::sys::signal::Signal;

pub(crate) const STOP: &[Signal] = &[];

pub(crate) const FORGOTTEN: &[Signal] = &[];

pub(crate) fn unnamed() -> Empty<i32> {
    empty()
}
