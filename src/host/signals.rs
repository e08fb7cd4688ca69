//! Signals, made into a descriptor that the control thread polls.
//!
//! SIGINT is how Tart stops softnet; SIGTERM and SIGHUP mean the same. SIGPIPE is ignored from
//! the start, by Rust's runtime.

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
    /// Catches the signals that mean stop, and SIGCHLD, which tells that a command ended.
    ///
    /// # Errors
    /// When the process has no descriptors left for a socketpair.
    pub fn catch() -> Result<Self, HostError> {
        Self::try_catch().map_err(HostError::system("catch signals"))
    }

    fn try_catch() -> io::Result<Self> {
        let (reader, writer) = UnixStream::pair()?;
        let signals = STOP.iter().chain([&Signal::SIGCHLD]);
        let numbers = signals.clone().map(|signal| *signal as i32);
        let delivery = SignalDelivery::with_pipe(reader, writer, SignalOnly, numbers)?;
        // Whoever started us may have blocked them, and execve(2) keeps that.
        let set: SigSet = signals.copied().collect();
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

const STOP: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

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
            raise(signal).unwrap();
            assert!(readable(&signals), "{signal}");
            assert_eq!(signals.stop(), Some(signal));
            assert_eq!(signals.stop(), None);
        }
        // No more, since other tests have children too.
        raise(Signal::SIGCHLD).unwrap();
        assert!(readable(&signals));
        assert_eq!(signals.stop(), None);
    }
}
