//! The threads of the data path: their stacks, and a signal that wakes one that waits in a system
//! call.
//!
//! `forward` needs the signal to stop readers that wait in recvmmsg(2). Other ways to wake them are
//! worse: poll(2) before each call costs a fifth of what a single frame costs, and shutdown(2)
//! would make the VM's socket unusable for the next softnet.

use std::ffi::c_int;
use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::thread::JoinHandle;

use nix::sys::pthread::pthread_kill;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// The size of a stack: far more than a few nested calls need, even in debug builds.
pub(crate) const STACK_SIZE: usize = 128 << 10;

/// Ignored by default, so one too many does no harm.
const SIGNAL: Signal = Signal::SIGURG;

/// Makes the signal interrupt system calls with EINTR, and do nothing else.
pub(crate) fn prepare() -> io::Result<()> {
    let handler = SigHandler::Handler(nothing);
    // Without SA_RESTART, which would resume the call.
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing, so that it is safe at any moment.
    unsafe { sigaction(SIGNAL, &action) }?;
    Ok(())
}

/// Unblocks the signal for this thread: the process that started softnet may have blocked it.
pub(crate) fn allow() {
    // Fails only for an invalid operation, which this is not.
    let _ = SigSet::from(SIGNAL).thread_unblock();
}

/// Interrupts the call in which a thread waits. The thread may be just about to wait, which cannot
/// be seen here, so the caller must repeat this until the thread has ended.
pub(crate) fn interrupt<T>(thread: &JoinHandle<T>) {
    // The thread is not joined yet, so its id is valid.
    let _ = pthread_kill(thread.as_pthread_t(), SIGNAL);
}

extern "C" fn nothing(_: c_int) {}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixDatagram;
    use std::thread;
    use std::time::Duration;

    use nix::errno::Errno;
    use nix::sys::socket::{MsgFlags, recv};

    use super::*;

    #[test]
    fn a_thread_that_waits_in_recv_is_woken_even_if_its_parent_blocked_the_signal() {
        prepare().unwrap();
        SigSet::from(SIGNAL).thread_block().unwrap();
        let (here, _there) = UnixDatagram::pair().unwrap();
        let waiting = thread::spawn(move || {
            allow();
            recv(here.as_raw_fd(), &mut [0; 9], MsgFlags::empty())
        });
        while !waiting.is_finished() {
            thread::sleep(Duration::from_millis(1));
            interrupt(&waiting);
        }
        assert_eq!(waiting.join().unwrap(), Err(Errno::EINTR));
        SigSet::from(SIGNAL).thread_unblock().unwrap();
    }
}
