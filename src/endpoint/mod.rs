//! Where frames enter and leave softnet: the VM's socket on one side, the host's interface
//! on the other.
//!
//! Each endpoint is a file with one implementation of [`Source`] and [`Sink`]; the forwarder
//! knows only these two. Neither blocks in [`Source::recv`] or [`Sink::send`]: waiting is a
//! call of its own, so that the forwarder decides who waits and for how long.

pub mod datagrams;
pub mod large;
pub mod synthetic;
pub mod tap;
pub mod vm_socket;
pub mod vmnet;

use std::io;

use nix::errno::Errno;

use crate::batch::Batch;
use crate::filter::DropReason;
use crate::stop::Stop;

/// A place with a source and a sink, which go to different threads.
pub trait Endpoint {
    /// Its receiving half.
    type Source: Source + 'static;
    /// Its sending half. A clone sends to the same place; clones are never used at once.
    type Sink: Sink + Clone + 'static;

    /// The longest frame that it sends or receives, in bytes, header included.
    fn max_frame(&self) -> usize;

    /// Takes it apart.
    fn split(self) -> (Self::Source, Self::Sink);
}

/// Where frames enter softnet.
pub trait Source: Send {
    /// Receives up to `limit` frames, without waiting for any. Fewer mean that no more were
    /// there.
    fn recv(&mut self, batch: &mut Batch, limit: usize) -> Received;

    /// Waits until there may be frames to receive, or `stop` is set.
    ///
    /// # Errors
    /// When the system cannot wait, which does not happen in good order.
    fn wait(&mut self, stop: &Stop) -> io::Result<()>;

    /// Waits, then receives: in one call, where the system can do that. A wait within the
    /// call ends when the thread is interrupted, with [`Received::Nothing`].
    fn wait_and_recv(&mut self, batch: &mut Batch, limit: usize, stop: &Stop) -> Received {
        match self.wait(stop) {
            Ok(()) => self.recv(batch, limit),
            Err(error) => Received::Failed(error),
        }
    }
}

/// What [`Source::recv`] found.
#[derive(Debug)]
pub enum Received {
    /// Frames: [`Batch::received`] says how many, 1 or more.
    Frames,
    /// Nothing, for now.
    Nothing,
    /// The other end does not exist any more, and never will again.
    Gone,
    /// The system refused. A later attempt may succeed.
    Failed(io::Error),
}

/// Where frames leave softnet.
pub trait Sink: Send {
    /// Why a frame is dropped that the other side has no room for, after waiting.
    const FULL: DropReason;
    /// Why a frame is dropped that the other side does not accept.
    const REFUSED: DropReason;

    /// Sends pending frames, in order, without waiting for room, and advances the batch
    /// over those that were sent.
    fn send(&mut self, batch: &mut Batch) -> Sent;

    /// Waits for room, the `waits`th time for one batch, counted from 0. Returns false,
    /// without having waited, when the frames are not worth waiting any longer.
    fn wait_for_room(&mut self, stop: &Stop, waits: u32) -> bool;
}

/// How far [`Sink::send`] came.
#[derive(Debug)]
pub enum Sent {
    /// No frame is pending.
    All,
    /// There was no room for the first of the frames that are pending.
    Full,
    /// The first of the frames that are pending was not accepted. The next may be.
    Refused(io::Error),
    /// The other end does not exist any more, and never will again.
    Gone,
}

/// Names what receiving without blocking came to.
fn received(result: io::Result<usize>, batch: &mut Batch) -> Received {
    match result {
        Ok(0) => Received::Nothing,
        Ok(count) => {
            batch.set_received(count);
            Received::Frames
        }
        Err(error) => match kind(&error) {
            Kind::NotNow => Received::Nothing,
            Kind::Gone => Received::Gone,
            Kind::Other => Received::Failed(error),
        },
    }
}

/// What an error of a call that does not block means.
enum Kind {
    NotNow,
    Gone,
    Other,
}

fn kind(error: &io::Error) -> Kind {
    match error.raw_os_error().map(Errno::from_raw) {
        // Linux says EAGAIN when a unix datagram socket is full, macOS ENOBUFS.
        Some(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS | Errno::ENOMEM) => Kind::NotNow,
        // Linux says ECONNREFUSED to who sends to a closed peer; macOS ECONNRESET once, to
        // sender and receiver, and EDESTADDRREQ or ENOTCONN after that (xnu
        // bsd/kern/uipc_usrreq.c, unp_drop).
        Some(
            Errno::ECONNREFUSED
            | Errno::ECONNRESET
            | Errno::EDESTADDRREQ
            | Errno::ENOTCONN
            | Errno::EPIPE,
        ) => Kind::Gone,
        _ => Kind::Other,
    }
}
