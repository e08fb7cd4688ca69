//! What the main thread attends to while frames flow: services, each with one concern.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use softnet::direction::Direction;
use softnet::forward::Forwarding;
use softnet::stats::Counts;

/// One thing that needs attention while frames flow.
///
/// `supervise` calls it on the main thread only, so no call may block for long: a signal waits
/// until the call returns.
pub(crate) trait Service {
    /// Descriptors that wake the main thread as soon as they are readable. `poll` must read what
    /// is there, or the thread never sleeps again.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    /// A descriptor that had no room, and wakes the main thread as soon as it has some.
    fn full(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// When to call `poll` at the latest if nothing wakes the thread, or `None` if that can wait
    /// forever. A time that stays in the past keeps the thread from sleeping.
    fn deadline(&self, _now: Instant) -> Option<Instant> {
        None
    }

    /// Does what is due. Whatever wakes the main thread, every service is polled, so there may be
    /// nothing to do.
    ///
    /// # Errors
    /// Those after which softnet cannot go on, not even to close the services.
    fn poll(&mut self, frames: &Frames) -> anyhow::Result<Outcome>;

    /// Leaves nothing behind: frames do not flow any more, because of `end`. Returns whether the
    /// service is done. One that is not, because the command of `softnet run` goes on, is polled
    /// until it returns an end of its own, and is closed again then.
    fn close(&mut self, _end: &End, _frames: &Frames) -> bool {
        true
    }
}

/// What follows from a poll.
#[derive(Debug)]
pub(crate) enum Outcome {
    Continue,
    /// Frames shall flow no longer.
    End(End),
}

/// Why frames flow no longer.
#[derive(Debug)]
pub(crate) enum End {
    /// Nobody is left to forward for, or somebody asked softnet to stop: exit code 0.
    Done,
    /// The command of `softnet run` has ended: softnet exits with this code.
    Exit(u8),
    /// Something broke. The line says what, and what to do about it.
    Failed(String),
}

/// The data threads while they run, and their last counts after that.
pub(crate) struct Frames {
    forwarding: Option<Forwarding>,
    counts: [Counts; 2],
}

impl Frames {
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

    /// Whether the interface on the host's side is gone, as a data thread has found.
    pub(crate) fn host_gone(&self) -> bool {
        self.forwarding.as_ref().is_some_and(Forwarding::host_gone)
    }

    /// Ends the data threads, if they still run.
    pub(crate) fn end(&mut self) {
        if let Some(forwarding) = self.forwarding.take() {
            self.counts = forwarding.finish();
        }
    }

    /// As they are after [`end`](Self::end), if no frame came.
    #[cfg(test)]
    pub(crate) fn over() -> Self {
        let none = Counts {
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

/// The usual time from one poll to the next: long enough that an idle softnet wakes less than
/// once a second, and short enough that it notices within two seconds that the VM is gone.
pub(crate) const TICK: Duration = Duration::from_millis(1100);
