//! Receives what the host sends: frame by frame, or a large segment at once.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::Arc;

use nix::poll::PollFlags;

use super::device::Device;
use super::is_gone;
use crate::batch::{Batch, FRAMES_MAX, Room};
use crate::endpoint::large::{Carry, PARTS_MAX, spread};
use crate::endpoint::{Received, Source, received};
use crate::stop::Stop;
use crate::wire::virtio::{SegmentLen, VirtioHeader};

/// Receives what the host sends.
#[derive(Debug)]
pub struct FromTap {
    device: Arc<Device>,
    /// What the last batch had no room for.
    carry: Carry,
}

impl FromTap {
    pub(super) fn new(device: Arc<Device>) -> Self {
        Self {
            device,
            carry: Carry::new(),
        }
    }

    /// Reads frames as they are on a wire.
    fn read_plain(&self, batch: &mut Batch, limit: usize) -> (usize, io::Result<()>) {
        let (slots, lens) = batch.fill(limit);
        let mut count = 0;
        for (slot, len) in slots.zip(lens) {
            match self.device.file().read(slot) {
                #[allow(clippy::cast_possible_truncation)] // A slot has far less than 4 GiB.
                Ok(read) => *len = read as u32,
                Err(error) => return (count, Err(error)),
            }
            count += 1;
        }
        (count, Ok(()))
    }

    /// Reads frames with headers before them. A large segment gives as many frames as there is room
    /// for in the batch, whatever the limit is.
    fn read_large(&mut self, batch: &mut Batch, limit: usize) -> (usize, io::Result<()>) {
        let mut room = batch.room();
        let mut count = self.carry.restore(&mut room);
        let mut is_large = false;
        while count < limit.min(FRAMES_MAX) && self.carry.is_empty() {
            // Another large one would not fit: it has a batch of its own.
            if is_large && count + PARTS_MAX > FRAMES_MAX {
                break;
            }
            match self.read_one(&mut room, count) {
                Ok(frames) => {
                    is_large = frames > 1;
                    count += frames;
                }
                Err(error) => return (count, Err(error)),
            }
        }
        (count, Ok(()))
    }

    /// Reads into the slot at `index` and those behind it. Returns how many frames there are.
    fn read_one(&mut self, room: &mut Room<'_>, index: usize) -> io::Result<usize> {
        let bytes = room.behind(index, VirtioHeader::LEN);
        let read = self.device.file().read(bytes)?;
        let (head, frame) = bytes[..read].split_at_mut(read.min(VirtioHeader::LEN));
        let header = VirtioHeader::split(head).map_or_else(VirtioHeader::default, |(it, _)| *it);
        let len = frame.len();
        match header.segment_len() {
            None => {
                header.complete_checksum(frame);
                room.set_len(index, len);
                Ok(1)
            }
            Some(SegmentLen::Tcp(part_len)) => {
                Ok(spread(room, index, len, part_len, &mut self.carry))
            }
            // Longer than every frame, so that it is dropped as such.
            Some(SegmentLen::Unknown) => {
                room.set_len(index, usize::MAX);
                Ok(1)
            }
        }
    }
}

impl Source for FromTap {
    fn recv(&mut self, batch: &mut Batch, limit: usize) -> Received {
        let (count, end) = if self.device.has_headers() {
            self.read_large(batch, limit)
        } else {
            self.read_plain(batch, limit)
        };
        // What came before an error counts; the next call meets the error again.
        match end {
            Err(error) if count == 0 && is_gone(&error) => Received::Gone,
            Err(error) if count == 0 => received(Err(error), batch),
            _ => received(Ok(count), batch),
        }
    }

    fn wait(&mut self, stop: &Stop) -> io::Result<()> {
        if !self.carry.is_empty() {
            return Ok(());
        }
        stop.or_event(self.device.as_fd(), PollFlags::POLLIN)
    }
}
