//! Signals, made into a descriptor that the control thread polls.
//!
//! SIGINT is how Tart stops softnet; some others mean the same. Every other signal that would end
//! a process unless it is caught is caught and forgotten, since an end like that would not give
//! the VM's lease back. SIGPIPE is ignored from the start, by Rust's runtime.
//!
//! What is left is SIGKILL, and what tells of a fault in softnet itself (SIGSEGV, SIGABRT, SIGSYS
//! and the like): after that nothing more should be sent.
//!
//! All of them are caught rather than ignored, so that execve(2) sets them back to their
//! defaults: the command of `softnet run` is not to inherit any of this.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use super::HostError;

/// The signals that softnet handles, caught from when this is made.
#[derive(Debug)]
pub struct Signals {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
}

impl Signals {
    /// Catches the signals that mean stop, SIGCHLD, which tells that a command ended, and those
    /// that mean nothing to softnet.
    ///
    /// # Errors
    /// When the process has no descriptors left for a socketpair.
    pub fn catch() -> Result<Self, HostError> {
        Self::try_catch().map_err(HostError::system("catch signals"))
    }

    fn try_catch() -> io::Result<Self> {
        let (reader, writer) = UnixStream::pair()?;
        let wanted = STOP.iter().chain([&Signal::SIGCHLD]);
        let numbers = wanted.clone().chain(FORGOTTEN).map(|signal| *signal as i32);
        // Linux has signals without a name, which end a process too (signal(7)).
        #[cfg(target_os = "linux")]
        let numbers = numbers.chain(libc::SIGRTMIN()..=libc::SIGRTMAX());
        let delivery = SignalDelivery::with_pipe(reader, writer, SignalOnly, numbers)?;
        // Whoever started us may have blocked them, and execve(2) keeps that.
        let set: SigSet = wanted.copied().collect();
        sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&set), None)?;
        Ok(Self { delivery })
    }

    /// Takes a signal that means stop, if one has come; and forgets any other.
    pub fn stop(&mut self) -> Option<Signal> {
        let stops = self
            .delivery
            .pending()
            .filter_map(|number| Signal::try_from(number).ok());
        stops.filter(|signal| STOP.contains(signal)).last()
    }
}

impl AsFd for Signals {
    /// A descriptor that is readable when a signal has come since the last
    /// [`stop`](Signals::stop).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }
}

const STOP: &[Signal] = &[
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    // From a terminal too, by Control-\.
    Signal::SIGQUIT,
    // The limit on processor time is near, at which the kernel sends SIGKILL (setrlimit(2)).
    Signal::SIGXCPU,
    // The power fails.
    #[cfg(target_os = "linux")]
    Signal::SIGPWR,
];

const FORGOTTEN: &[Signal] = &[
    // Means "open the logs anew" or the like to other programs.
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    // Timers outlive execve(2), so these may come from one that softnet never set.
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    // The write that exceeds the limit on a file's size fails as well.
    Signal::SIGXFSZ,
    Signal::SIGIO,
    #[cfg(target_os = "linux")]
    Signal::SIGSTKFLT,
];

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::signal::raise;

    use super::*;

    /// One test, since signals belong to the whole process.
    #[test]
    fn a_signal_is_seen_once_even_if_it_was_blocked_at_the_start() {
        let term: SigSet = [Signal::SIGTERM].into_iter().collect();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&term), None).unwrap();
        let mut signals = Signals::catch().unwrap();
        let readable = |signals: &Signals| {
            let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
        };
        assert_eq!(signals.stop(), None);
        for signal in STOP {
            raise(*signal).unwrap();
            assert!(readable(&signals), "{signal}");
            assert_eq!(signals.stop(), Some(*signal));
            assert_eq!(signals.stop(), None);
        }
        // No more, since other tests have children too.
        raise(Signal::SIGCHLD).unwrap();
        assert!(readable(&signals));
        assert_eq!(signals.stop(), None);
    }
}
