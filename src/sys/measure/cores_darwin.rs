//! Pinning threads to cores, which macOS has no call for. Each function fails, and the bench runs
//! without.

use std::io;

use nix::unistd::Pid;

/// Whether threads can be pinned at all.
pub(crate) const CAN_PIN: bool = false;

/// Always fails: no thread can be pinned.
pub(crate) fn pin(_pid: Pid, _role: &str, _index: usize) -> io::Result<()> {
    Err(refusal())
}

/// A thread that is pinned to a core. There can be none.
#[derive(Debug)]
pub(crate) enum Pinned {}

impl Pinned {
    /// Always fails, as [`pin`] does.
    pub(crate) fn to(_index: usize) -> io::Result<Self> {
        Err(refusal())
    }
}

fn refusal() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "macOS does not pin threads to processors",
    )
}
