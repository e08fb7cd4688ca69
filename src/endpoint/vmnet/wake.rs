//! How vmnet's callback wakes the thread that reads: a pipe that holds one byte at most.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::poll::PollFlags;

use crate::stop::Stop;

/// The pipe, and whether the byte is in it, or will be at once.
pub(super) struct Wake {
    signalled: AtomicBool,
    reader: PipeReader,
    writer: PipeWriter,
}

impl Wake {
    pub(super) fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self {
            signalled: AtomicBool::new(false),
            reader,
            writer,
        })
    }

    /// Never blocks: the pipe is empty whenever `signalled` was false.
    pub(super) fn signal(&self) {
        if !self.signalled.swap(true, Ordering::AcqRel) {
            let _ = (&self.writer).write_all(&[1]);
        }
    }

    /// Waits for a signal, the time of the safety poll, or `stop`. Returns whether there was
    /// a signal.
    pub(super) fn wait(&self, stop: &Stop) -> io::Result<bool> {
        let signalled =
            stop.or_event_within(self.reader.as_fd(), PollFlags::POLLIN, SAFETY_POLL)?;
        if signalled {
            (&self.reader).read_exact(&mut [0])?;
            // Before frames are read: a signal from now on is for frames that came later.
            self.signalled.store(false, Ordering::Release);
        }
        Ok(signalled)
    }
}

/// Until a Mac has shown that vmnet never forgets to call back. It costs ten wake-ups a
/// second of an idle VM.
const SAFETY_POLL: Duration = Duration::from_millis(100);
