//! The services that the main thread runs while frames flow, each with one concern.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use softnet::direction::Direction;
use softnet::forward::Forwarding;
use softnet::stats::Counts;

/// Something that the main thread takes care of while frames flow.
///
/// `supervise` calls its methods on the main thread only, so none of them may block for long: a
/// signal waits until the call returns.
pub(crate) trait Service {
    /// Descriptors that wake the main thread as soon as they are readable. `poll` must read
    /// everything that is there, or else the thread never sleeps again.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    /// Descriptors that had no room, and that wake the main thread as soon as they have room again.
    fn full(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    /// The time at which to call `poll` at the latest, even if nothing wakes the thread; `None` if
    /// there is no such time. A time that remains in the past keeps the thread from sleeping.
    fn deadline(&self, _now: Instant) -> Option<Instant> {
        None
    }

    /// Does what is due. Whatever wakes the main thread, every service is polled, so there may be
    /// nothing to do.
    ///
    /// # Errors
    /// Errors after which softnet cannot go on, not even to close the services.
    fn poll(&mut self, frames: &Forwarder) -> anyhow::Result<Outcome>;

    /// Cleans up: frames no longer flow, because of `end`. Returns whether the service is done. A
    /// service that is not done, because the command of `softnet run` is still running, is polled
    /// until it returns an end of its own, and is then closed again.
    fn close(&mut self, _end: &End, _frames: &Forwarder) -> bool {
        true
    }
}

/// The result of a poll.
#[derive(Debug)]
pub(crate) enum Outcome {
    Continue,
    /// Forwarding must end.
    End(End),
}

/// Why forwarding ends.
#[derive(Debug)]
pub(crate) enum End {
    /// The VM or the parent is gone, or softnet was asked to stop: exit code 0.
    Done,
    /// The command of `softnet run` has ended: softnet exits with this code.
    Exit(u8),
    /// Something broke. The line says what, and what to do about it.
    Failed(String),
}

/// The data threads while they run, and their final counts afterwards.
pub(crate) struct Forwarder {
    forwarding: Option<Forwarding>,
    counts: [Counts; 2],
}

impl Forwarder {
    pub(crate) fn flowing(forwarding: Forwarding) -> Self {
        Self {
            counts: counts(&forwarding),
            forwarding: Some(forwarding),
        }
    }

    /// The counters of both directions, outbound first.
    pub(crate) fn counts(&self) -> [Counts; 2] {
        self.forwarding.as_ref().map_or(self.counts, counts)
    }

    /// Whether a data thread has found that the interface on the host's side is gone.
    pub(crate) fn host_gone(&self) -> bool {
        self.forwarding.as_ref().is_some_and(Forwarding::host_gone)
    }

    /// Ends the data threads if they are still running.
    pub(crate) fn end(&mut self) {
        if let Some(forwarding) = self.forwarding.take() {
            self.counts = forwarding.finish();
        }
    }

    /// In the state after [`end`](Self::end), with no frame received.
    #[cfg(test)]
    pub(crate) fn over() -> Self {
        let none = Counts {
            answers: 0,
            received: 0,
            received_bytes: 0,
            forwarded: 0,
            dropped: [0; _],
            handed_over: 0,
            waits: 0,
            errors: 0,
            last_error: 0,
            first_source_mac: None,
            first_source_address: None,
        };
        Self {
            forwarding: None,
            counts: [none; 2],
        }
    }
}

fn counts(forwarding: &Forwarding) -> [Counts; 2] {
    Direction::ALL.map(|direction| forwarding.counts(direction))
}

/// The usual interval between polls: long enough that an idle softnet wakes less than once a
/// second, and short enough that it notices within two seconds that the VM is gone.
pub(crate) const TICK: Duration = Duration::from_millis(1100);
