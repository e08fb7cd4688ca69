//! Splitting: spreads a large segment over the slots of a batch, each of which gets a frame.
//!
//! ```text
//!   read      | headers 1 2 3 4 5 6 |
//!   spread    | headers 1 | headers 2 | headers 3 | headers 4 | ...
//! ```
//!
//! From the last frame to the first, so that nothing is overwritten that is still to be moved: a
//! slot is longer than a frame. What has no room in the batch is carried into the next.

use crate::batch::{FRAMES_MAX, LARGE, Room};
use crate::wire::segment::Large;

/// Spreads the large segment of `len` bytes that was read into the slot at `index`, and whose parts
/// have `part_len` bytes of data. Returns how many frames there are; `carry`, which must be empty,
/// takes the rest.
///
/// A segment that cannot be cut becomes one frame, longer than every frame, so that it is dropped.
pub fn spread(
    room: &mut Room<'_>,
    index: usize,
    len: usize,
    part_len: u16,
    carry: &mut Carry,
) -> usize {
    let (slot_len, stride) = (room.slot_len(), room.stride());
    let bytes = room.behind(index, 0);
    let len = len.min(bytes.len());
    let large = Large::parse(&bytes[..len], part_len);
    let fits_slot = |large: &Large| large.headers_len() + usize::from(part_len) <= slot_len;
    let Some(large) = large.filter(fits_slot) else {
        room.set_len(index, usize::MAX);
        return 1;
    };
    let frames = large.parts().min(FRAMES_MAX - index);
    if frames < large.parts() {
        carry.take(&large, frames, &bytes[..len]);
    }
    let headers_len = large.headers_len();
    for part in (0..frames).rev() {
        let data = large.data(part);
        let frame = part * stride..part * stride + headers_len + data.len();
        bytes.copy_within(data, frame.start + headers_len);
        large.write_headers(part, &mut bytes[frame]);
    }
    for part in 0..frames {
        room.set_len(index + part, headers_len + large.data(part).len());
    }
    frames
}

/// The rest of a large segment, which is one itself.
pub struct Carry {
    bytes: Box<[u8]>,
    len: usize,
    part_len: u16,
}

impl Default for Carry {
    fn default() -> Self {
        Self::new()
    }
}

impl Carry {
    /// Carries nothing, and uses no memory for it until it does.
    #[must_use]
    pub fn new() -> Self {
        Self {
            bytes: vec![0; UNTOUCHED].into(),
            len: 0,
            part_len: 0,
        }
    }

    /// Whether nothing is carried.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes the parts of a large segment from this one on.
    fn take(&mut self, large: &Large, part: usize, frame: &[u8]) {
        let (headers, part_len) = large.rest(part);
        let data = frame.get(large.data(part).start..).unwrap_or_default();
        let len = headers.len() + data.len();
        let (room, rest) = self.bytes.split_at_mut(headers.len());
        room.copy_from_slice(&headers);
        // No longer than what was read.
        if let Some(room) = rest.get_mut(..data.len()) {
            room.copy_from_slice(data);
            (self.len, self.part_len) = (len, part_len);
        }
    }

    /// Spreads what is carried over the first slots of a batch. Returns how many frames there are.
    pub fn restore(&mut self, room: &mut Room<'_>) -> usize {
        let len = std::mem::take(&mut self.len);
        if len == 0 {
            return 0;
        }
        room.behind(0, 0)[..len].copy_from_slice(&self.bytes[..len]);
        spread(room, 0, len, self.part_len, self)
    }
}

impl std::fmt::Debug for Carry {
    /// Shows only its length: payload does not belong in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Carry")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// As many frames as a large segment has with an MTU of 1500 and the usual options.
pub const PARTS_MAX: usize = 46;
/// Room for a large segment, and enough that it comes as untouched pages (`batch.rs`).
const UNTOUCHED: usize = 2 * LARGE + 4096;
