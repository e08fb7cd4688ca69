//! A host that is not one: a unix datagram socket in the place of vmnet or a TAP, for tests
//! and measurements without root. It waits for room as a host's interface does.

use std::os::unix::net::UnixDatagram;

use super::datagrams::Datagrams;
use super::{Endpoint, Sent, Sink};
use crate::batch::Batch;
use crate::filter::DropReason;
use crate::stop::Stop;

/// One end of a socketpair; the test has the other.
#[derive(Debug)]
pub struct SyntheticHost {
    datagrams: Datagrams,
    max_frame: usize,
}

impl SyntheticHost {
    /// Takes a connected socket for frames of up to `max_frame` bytes, header included.
    #[must_use]
    pub fn new(socket: UnixDatagram, max_frame: usize) -> Self {
        Self {
            datagrams: Datagrams::new(socket.into()),
            max_frame,
        }
    }
}

impl Endpoint for SyntheticHost {
    type Source = Datagrams;
    type Sink = ToHost;

    fn max_frame(&self) -> usize {
        self.max_frame
    }

    fn split(self) -> (Datagrams, ToHost) {
        (self.datagrams.clone(), ToHost(self.datagrams))
    }
}

/// Sends to the test.
#[derive(Debug, Clone)]
pub struct ToHost(Datagrams);

impl Sink for ToHost {
    const FULL: DropReason = DropReason::Stopping;
    const REFUSED: DropReason = DropReason::HostRefused;

    fn send(&mut self, batch: &mut Batch) -> Sent {
        self.0.send(batch)
    }

    fn wait_for_room(&mut self, stop: &Stop, _waits: u32) -> bool {
        self.0.wait_for_room(stop).is_ok()
    }
}
