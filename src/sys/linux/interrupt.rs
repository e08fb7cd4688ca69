//! Wakes a thread that waits within a system call: with a signal that does nothing else.
//!
//! `forward` needs it to end readers that wait in recvmmsg(2). The other ways to wake those
//! cost more: poll(2) before each call costs a fifth of what a lone frame costs, and
//! shutdown(2) would leave the VM's socket unusable for the softnet that is started next.

use std::ffi::c_int;
use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::thread::JoinHandle;

use nix::sys::pthread::pthread_kill;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Ignored by default, so that one too many harms nobody.
const SIGNAL: Signal = Signal::SIGURG;

/// Makes the signal end system calls, with EINTR, and nothing else.
pub(crate) fn prepare() -> io::Result<()> {
    let handler = SigHandler::Handler(nothing);
    // Without SA_RESTART, which would let the call go on.
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing, so that it is safe at any moment.
    unsafe { sigaction(SIGNAL, &action) }?;
    Ok(())
}

/// Lets the signal through to this thread: whoever started the process may have blocked it.
pub(crate) fn allow() {
    // Fails only for an invalid operation, which this is not.
    let _ = SigSet::from(SIGNAL).thread_unblock();
}

/// Interrupts the call that a thread waits in. It may be about to begin to wait, which this
/// cannot see, so whoever calls repeats it until the thread has ended.
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
