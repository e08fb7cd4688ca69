//! Signals, as a descriptor that the main thread polls.
//!
//! SIGINT is how Tart stops softnet; some others mean the same. Every other signal that would end
//! the process is caught and ignored, because such an end would not release the VM's lease. Rust's
//! runtime ignores SIGPIPE from the start.
//!
//! The exceptions are SIGKILL and signals that report a fault in softnet itself (SIGSEGV, SIGABRT,
//! SIGSYS and the like): after those softnet should not send anything more.
//!
//! Signals are caught rather than ignored, so that execve(2) resets them to their defaults: the
//! command of `softnet run` must not inherit any of this.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use super::HostError;
use crate::sys::signal;

/// The signals that softnet handles, caught as soon as this is created.
#[derive(Debug)]
pub struct Signals {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
}

impl Signals {
    /// Catches the signals that mean stop, those that mean nothing to softnet, and SIGCHLD, which
    /// reports that a command has ended.
    ///
    /// # Errors
    /// If the process has no descriptors left for a socketpair.
    pub fn catch() -> Result<Self, HostError> {
        Self::try_catch().map_err(HostError::system("catch signals"))
    }

    fn try_catch() -> io::Result<Self> {
        let (reader, writer) = UnixStream::pair()?;
        let wanted = stop_signals().chain([Signal::SIGCHLD]);
        let forgotten = FORGOTTEN.iter().chain(signal::FORGOTTEN).copied();
        let named = wanted.clone().chain(forgotten).map(|signal| signal as i32);
        let numbers = named.chain(signal::unnamed());
        let delivery = SignalDelivery::with_pipe(reader, writer, SignalOnly, numbers)?;
        // The process that started us may have blocked them, and execve(2) preserves that.
        let set: SigSet = wanted.collect();
        sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&set), None)?;
        Ok(Self { delivery })
    }

    /// Returns a signal that means stop, if one has come, and discards all others.
    pub fn stop(&mut self) -> Option<Signal> {
        let stops = self
            .delivery
            .pending()
            .filter_map(|number| Signal::try_from(number).ok());
        stops
            .filter(|signal| stop_signals().any(|stop| stop == *signal))
            .last()
    }
}

impl AsFd for Signals {
    /// A descriptor that is readable when a signal has come since the last
    /// [`stop`](Signals::stop).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }
}

fn stop_signals() -> impl Iterator<Item = Signal> + Clone {
    STOP.iter().chain(signal::STOP).copied()
}

const STOP: &[Signal] = &[
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    // Also from a terminal, by Control-\.
    Signal::SIGQUIT,
    // The limit on CPU time is near, at which the kernel sends SIGKILL (setrlimit(2)).
    Signal::SIGXCPU,
];

const FORGOTTEN: &[Signal] = &[
    // To other programs this means "reopen the logs" or the like.
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    // Timers survive execve(2), so these may come from one that softnet never set.
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    // The write that exceeds the limit on a file's size fails anyway.
    Signal::SIGXFSZ,
    Signal::SIGIO,
];

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::signal::raise;

    use super::*;

    /// A single test, because signals affect the whole process.
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
        for signal in stop_signals() {
            raise(signal).unwrap();
            assert!(readable(&signals), "{signal}");
            assert_eq!(signals.stop(), Some(signal));
            assert_eq!(signals.stop(), None);
        }
        // Only these, because other tests have child processes too.
        raise(Signal::SIGCHLD).unwrap();
        assert!(readable(&signals));
        assert_eq!(signals.stop(), None);
    }
}
