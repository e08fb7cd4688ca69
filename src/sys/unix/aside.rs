//! Work in a child process, of which only bytes come back.

use std::io::{self, Read, Write};

use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

/// What `act` returns in a child process; at most `limit` bytes of it. The process must have a
/// single thread, so that `act` may do in the child whatever it could do here.
///
/// An error also tells that the child did not get to the end.
pub(crate) fn in_child(act: impl FnOnce() -> Vec<u8>, limit: u64) -> io::Result<Vec<u8>> {
    // Both ends are closed on execve(2).
    let (reader, mut writer) = io::pipe()?;
    // SAFETY: the child is a copy of the only thread, so no lock is held by a thread that the
    // child does not have, and it may allocate.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(reader);
            let sent = writer.write_all(&act());
            // SAFETY: _exit(2) takes a number. Nothing of the parent's is run at its end: no
            // handlers, no destructors.
            unsafe { libc::_exit(i32::from(sent.is_err())) }
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let mut bytes = Vec::new();
            // The reader is gone afterwards, so a child that says too much ends as well.
            let read = reader.take(limit).read_to_end(&mut bytes);
            let status = loop {
                match waitpid(child, None) {
                    Err(Errno::EINTR) => (),
                    status => break status?,
                }
            };
            read?;
            match status {
                WaitStatus::Exited(_, 0) => Ok(bytes),
                _ => Err(io::Error::other("the process that does it has failed")),
            }
        }
    }
}
