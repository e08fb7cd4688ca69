//! A connected unix datagram socket: one datagram is one frame.
//!
//! What the VM's socket and the synthetic host have in common: the whole source, and of the
//! sinks all but how patient they are. Both receive and send whole batches with one call.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::poll::PollFlags;

use super::{Kind, Received, Sent, Source, kind, received};
use crate::batch::Batch;
use crate::stop::Stop;
use crate::sys::datagram::{self, Headers};

/// The socket, with one thread's room for headers.
#[derive(Debug)]
pub struct Datagrams {
    socket: Arc<OwnedFd>,
    headers: Headers,
}

impl Datagrams {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self {
            socket: Arc::new(socket),
            headers: Headers::new(),
        }
    }

    pub(super) fn send(&mut self, batch: &mut Batch) -> Sent {
        loop {
            let result = self.send_some(batch);
            match result {
                Ok(0) if batch.pending().len() == 0 => return Sent::All,
                // No system says so; but that none was taken does not mean that none is left.
                Ok(0) => return Sent::Full,
                Ok(sent) => batch.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => match kind(&error) {
                    Kind::NotNow => return Sent::Full,
                    Kind::Gone => return Sent::Gone,
                    Kind::Other => return Sent::Refused(error),
                },
            }
        }
    }

    /// Waits for room: for an event where the system has one, and otherwise for a moment.
    pub(super) fn wait_for_room(&self, stop: &Stop) -> io::Result<()> {
        if datagram::TELLS_OF_ROOM {
            return stop.or_event(self.socket.as_fd(), PollFlags::POLLOUT);
        }
        thread::sleep(Duration::from_micros(50));
        Ok(())
    }

    /// Sends pending frames with one call. For a single frame, send(2) takes a fifth less
    /// time than sendmmsg(2) does (Linux).
    fn send_some(&mut self, batch: &Batch) -> io::Result<usize> {
        let mut pending = batch.pending();
        match (pending.len(), pending.next()) {
            (1, Some(frame)) => datagram::send_one(self.socket.as_fd(), frame).map(|()| 1),
            (2.., _) => self.headers.send(self.socket.as_fd(), batch.pending()),
            _ => Ok(0),
        }
    }
}

impl Source for Datagrams {
    fn recv(&mut self, batch: &mut Batch, limit: usize) -> Received {
        let (slots, lens) = batch.fill(limit);
        let result = self.headers.recv(self.socket.as_fd(), slots, lens);
        received(result, batch)
    }

    fn wait(&mut self, stop: &Stop) -> io::Result<()> {
        stop.or_event(self.socket.as_fd(), PollFlags::POLLIN)
    }

    /// Waits for frames within the call that receives them, which a signal interrupts when it
    /// is time to stop. To poll first would cost a fifth of the CPU time that a frame takes
    /// which comes alone. The call hears no bell, though.
    #[cfg(tap)]
    fn wait_and_recv(&mut self, batch: &mut Batch, limit: usize, stop: &Stop) -> Received {
        if stop.has_bell() {
            return match self.wait(stop) {
                Ok(()) => self.recv(batch, limit),
                Err(error) => Received::Failed(error),
            };
        }
        let (slots, lens) = batch.fill(limit);
        let result = self.headers.recv_waiting(self.socket.as_fd(), slots, lens);
        match received(result, batch) {
            // Not waited at all: whoever shares the socket has made it non-blocking.
            Received::Nothing if !stop.is_set() => match self.wait(stop) {
                Ok(()) => Received::Nothing,
                Err(error) => Received::Failed(error),
            },
            received => received,
        }
    }
}

impl Clone for Datagrams {
    fn clone(&self) -> Self {
        Self {
            socket: Arc::clone(&self.socket),
            headers: Headers::new(),
        }
    }
}
