//! Sends to the host: frame by frame, or several as one large segment.

use std::io::{self, IoSlice, Write};
use std::os::fd::AsFd;
use std::sync::Arc;

use arrayvec::ArrayVec;
use nix::poll::PollFlags;

use super::device::Device;
use super::is_gone;
use crate::batch::{Batch, FRAMES_MAX};
use crate::endpoint::large::Run;
use crate::endpoint::{Kind, Sent, Sink, kind};
use crate::filter::DropReason;
use crate::stop::Stop;

/// Sends to the host.
#[derive(Debug, Clone)]
pub struct ToTap(Arc<Device>);

impl ToTap {
    pub(super) const fn new(device: Arc<Device>) -> Self {
        Self(device)
    }

    /// Whether the kernel takes large segments.
    #[must_use]
    pub fn takes_large(&self) -> bool {
        self.0.takes_large()
    }

    /// Sends as many of these frames as go together, and returns how many. Each has the room for
    /// its header in front.
    fn send_some<'a>(
        &self,
        first: &'a [u8],
        following: impl Iterator<Item = &'a [u8]>,
    ) -> io::Result<usize> {
        let header_len = self.0.header_len();
        if self.0.takes_large()
            && let Some(run) = Run::of(
                &first[header_len..],
                following.map(|frame| &frame[header_len..]),
            )
        {
            match self.send_run(&run) {
                // It is settled for good: these, and all that come, go one by one.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    self.0.refuse_large();
                }
                sent => return sent.map(|()| run.data.len()),
            }
        }
        // A frame is written whole or not at all.
        self.0.file().write(first).map(|_| 1)
    }

    fn send_run(&self, run: &Run<'_>) -> io::Result<()> {
        let mut parts: ArrayVec<IoSlice<'_>, { FRAMES_MAX + 1 }> = ArrayVec::new();
        parts.push(IoSlice::new(&run.headers));
        parts.extend(run.data.iter().map(|data| IoSlice::new(data)));
        self.0.file().write_vectored(&parts).map(|_| ())
    }
}

impl Sink for ToTap {
    const FULL: DropReason = DropReason::Stopping;
    const REFUSED: DropReason = DropReason::HostRefused;

    fn send(&mut self, batch: &mut Batch) -> Sent {
        let mut sent = 0;
        let mut outcome = Sent::All;
        let mut pending = batch.pending_behind(self.0.header_len());
        while let Some(frame) = pending.next() {
            match self.send_some(frame, pending.clone()) {
                Ok(count) => {
                    sent += count;
                    if count > 1 {
                        pending.nth(count - 2);
                    }
                }
                Err(error) => {
                    outcome = match kind(&error) {
                        Kind::NotNow => Sent::Full,
                        _ if is_gone(&error) => Sent::Gone,
                        Kind::Gone | Kind::Other => Sent::Refused(error),
                    };
                    break;
                }
            }
        }
        drop(pending);
        batch.advance(sent);
        outcome
    }

    fn wait_for_room(&mut self, stop: &Stop, _waits: u32) -> bool {
        stop.or_event(self.0.as_fd(), PollFlags::POLLOUT).is_ok()
    }
}
