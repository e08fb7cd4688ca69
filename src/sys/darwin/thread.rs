//! The threads of the data path. None needs a signal to stop: they wait for the stop pipe as well
//! as for frames.

use std::io;
use std::thread::JoinHandle;

/// The size of a stack: what Apple's frameworks, which run on these threads, expect.
pub(crate) const STACK_SIZE: usize = 512 << 10;

#[expect(clippy::unnecessary_wraps, reason = "as on Linux")]
pub(crate) fn prepare() -> io::Result<()> {
    Ok(())
}

pub(crate) fn allow() {}

pub(crate) fn interrupt<T>(_thread: &JoinHandle<T>) {}
