//! That no thread can be put on a core: macOS has no call for it. What asks for one in vain is
//! told so, and `bench` does without.

use std::io;

use nix::unistd::Pid;

/// Whether there is such a thing.
pub(crate) const CAN_PIN: bool = false;

/// Fails, as nothing can put threads on a core.
pub(crate) fn pin(_pid: Pid, _role: &str, _index: usize) -> io::Result<()> {
    Err(refusal())
}

/// What would keep a thread on one core: there is none.
#[derive(Debug)]
pub(crate) enum Pinned {}

impl Pinned {
    /// Fails likewise.
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
