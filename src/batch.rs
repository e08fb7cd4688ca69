//! Batches of frames: received together, judged in place, sent together.
//!
//! A batch owns one buffer, which is divided into slots of equal length, each starting at a cache
//! line. An endpoint fills the first slots, the filter queues the frames that may pass, and the
//! other endpoint sends the queue from its front. Nothing is copied in between: a batch that must
//! wait for room moves to the writer's thread as a pointer.
//!
//! Some endpoints have a header before each frame, so there is room for one in front of each slot.
//!
//! ```text
//!   slots     | frame 0 | frame 1 | frame 2 | frame 3 | untouched ...
//!   received  <------------- 4 --------------->
//!   queue       0, 2, 3          (frame 1 was dropped)
//!   sent        1                (frame 0 is gone; 2 and 3 are pending)
//! ```

use std::fmt;

use arrayvec::ArrayVec;

/// The most frames that a batch holds. For one thread, 8 reach 95 % of what batching gains, and 128
/// cost more in cache than they save in system calls. Two threads that alternate wait for each
/// other once per batch, and 64 frames make up for that (docs/performance.md).
pub const FRAMES_MAX: usize = 64;

/// A reusable set of frames. See the [module's documentation](self).
pub struct Batch {
    slots: Slots,
    lens: [u32; FRAMES_MAX],
    received: usize,
    queue: ArrayVec<u8, FRAMES_MAX>,
    sent: usize,
}

impl Batch {
    /// Creates an empty batch for frames of up to `max_frame` bytes.
    ///
    /// A slot is longer than the longest frame, so that a frame that is too long can be
    /// distinguished from one that just fits: it is longer than `max_frame`, truncated to the slot.
    /// Pages of slots that have never held a frame cost no memory.
    #[must_use]
    pub fn new(max_frame: usize) -> Self {
        Self {
            slots: Slots::new(FRAMES_MAX, max_frame),
            lens: [0; FRAMES_MAX],
            received: 0,
            queue: ArrayVec::new(),
            sent: 0,
        }
    }

    /// Empties the batch and lends its first `limit` slots, with the place to write the length of
    /// the frame in each. Afterwards [`set_received`](Self::set_received) says how many were used.
    pub fn fill(&mut self, limit: usize) -> (impl Iterator<Item = &mut [u8]>, &mut [u32]) {
        let limit = limit.min(FRAMES_MAX);
        self.received = 0;
        self.queue.clear();
        self.sent = 0;
        (self.slots.first_mut(limit), &mut self.lens[..limit])
    }

    /// Sets the number of slots, from the first on, that hold a frame.
    pub fn set_received(&mut self, count: usize) {
        self.received = count.min(FRAMES_MAX);
    }

    /// How many frames were received into the batch.
    #[must_use]
    pub const fn received(&self) -> usize {
        self.received
    }

    /// The bytes received, over all frames.
    #[must_use]
    pub fn received_bytes(&self) -> usize {
        (0..self.received).map(|index| self.len_of(index)).sum()
    }

    /// The received frame at `index`, which must be below [`received`](Self::received).
    #[must_use]
    pub fn frame(&self, index: usize) -> &[u8] {
        self.slots.first_of(index, self.len_of(index), 0)
    }

    /// The slot of the frame at `index`, which must be below [`received`](Self::received).
    #[must_use]
    #[inline]
    pub fn slot(&mut self, index: usize) -> Slot<'_> {
        Slot {
            bytes: self.slots.get_mut(index),
            len: &mut self.lens[index],
        }
    }

    /// Queues the frame at `index` for sending, after those queued before. A frame is queued at
    /// most once; queueing more than [`FRAMES_MAX`] is ignored.
    #[allow(clippy::cast_possible_truncation)] // An index is below FRAMES_MAX.
    pub fn queue(&mut self, index: usize) {
        let _ = self.queue.try_push(index as u8);
    }

    /// Whether there is a slot for one more frame.
    #[must_use]
    pub const fn has_room(&self) -> bool {
        self.received < FRAMES_MAX
    }

    /// Adds a frame behind those that were received, and queues it. Returns false, and changes
    /// nothing, if there is no slot left or the frame is longer than a slot.
    pub fn append(&mut self, frame: &[u8]) -> bool {
        if !self.has_room() || frame.len() > self.slots.slot_len() {
            return false;
        }
        let index = self.received;
        self.slots.get_mut(index)[..frame.len()].copy_from_slice(frame);
        self.lens[index] = u32::try_from(frame.len()).unwrap_or(0);
        self.received += 1;
        self.queue(index);
        true
    }

    /// Empties the batch.
    pub fn clear(&mut self) {
        let _ = self.fill(0);
    }

    /// The queued frames that have not been sent yet, in order.
    pub fn pending(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.pending_behind(0)
    }

    /// The same, each with `header` bytes of the room in front of it, at most [`HEADROOM`]. They
    /// are zero, unless [`Room`] was used to receive the frames.
    pub fn pending_behind(&self, header: usize) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        self.queue[self.sent..].iter().map(move |&index| {
            let index = usize::from(index);
            self.slots.first_of(index, self.len_of(index), header)
        })
    }

    /// Empties the batch and lends all of its memory, to an endpoint that receives several frames
    /// as one. Afterwards [`set_received`](Self::set_received) says how many there are.
    pub fn room(&mut self) -> Room<'_> {
        self.clear();
        Room {
            slots: &mut self.slots,
            lens: &mut self.lens,
        }
    }

    /// Removes the first `count` pending frames from the queue: they were sent, or dropped.
    pub fn advance(&mut self, count: usize) {
        self.sent = (self.sent + count).min(self.queue.len());
    }

    fn len_of(&self, index: usize) -> usize {
        (self.lens[index] as usize).min(self.slots.slot_len())
    }
}

/// A frame, and the room behind it that it may grow into.
#[derive(Debug)]
pub struct Slot<'a> {
    bytes: &'a mut [u8],
    len: &'a mut u32,
}

impl<'a> Slot<'a> {
    /// A frame of `len` bytes at the front of `bytes`, at most all of them.
    pub const fn new(bytes: &'a mut [u8], len: &'a mut u32) -> Self {
        Self { bytes, len }
    }

    /// The frame.
    #[must_use]
    #[inline]
    pub fn frame(&self) -> &[u8] {
        &self.bytes[..self.len()]
    }

    /// The frame with the room behind it, and the frame's length.
    #[must_use]
    pub fn whole(&mut self) -> (&mut [u8], usize) {
        let len = self.len();
        (self.bytes, len)
    }

    /// Sets the frame's length, after it has been rewritten.
    pub fn set_len(&mut self, len: usize) {
        *self.len = u32::try_from(len.min(self.bytes.len())).unwrap_or(u32::MAX);
    }

    #[inline]
    fn len(&self) -> usize {
        (*self.len as usize).min(self.bytes.len())
    }
}

/// The memory of an empty batch.
#[derive(Debug)]
pub struct Room<'a> {
    slots: &'a mut Slots,
    lens: &'a mut [u32; FRAMES_MAX],
}

impl Room<'_> {
    /// The memory from `header` bytes in front of the slot at `index` on, at most [`HEADROOM`], to
    /// the end: at least [`LARGE`] bytes. A slot begins every [`stride`](Self::stride) bytes.
    pub fn behind(&mut self, index: usize, header: usize) -> &mut [u8] {
        self.slots.rest_mut(index, header)
    }

    /// How many bytes a slot begins behind the last one.
    #[must_use]
    pub const fn stride(&self) -> usize {
        self.slots.stride()
    }

    /// How long a slot is.
    #[must_use]
    pub const fn slot_len(&self) -> usize {
        self.slots.slot_len()
    }

    /// Sets the length of the frame at `index`, which must be below [`FRAMES_MAX`].
    pub fn set_len(&mut self, index: usize, len: usize) {
        self.lens[index] = u32::try_from(len).unwrap_or(u32::MAX);
    }
}

impl fmt::Debug for Batch {
    /// Shows only counts: payload does not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("received", &self.received)
            .field("queued", &self.queue.len())
            .field("sent", &self.sent)
            .finish_non_exhaustive()
    }
}

/// Room for frames: slots of equal length, one after the other, each starting at a cache line, so
/// that no cache line holds bytes of two frames.
///
/// This also keeps the kernel's copies fast. Where a processor has FSRM the kernel copies with
/// `rep movsb`, and on AMD's Zen 3 that takes two to four times as long if the destination is 1
/// to 31 bytes further into its page than the source is into its own. The kernel's side of a
/// copy begins at a cache line, for a long frame at a page; a large block of glibc's begins 16
/// bytes into a page. In 2023 the same made reading a file slower in Rust than in Python
/// (<https://xuanwo.io/2023/04-rust-std-fs-slower-than-python/>, issue 3665 of Apache `OpenDAL`,
/// and glibc's bug 30994 about its own memcpy).
#[derive(Debug)]
pub(crate) struct Slots {
    /// Longer than the slots together, so that the first one can start at a cache line. An element
    /// type with that alignment would touch all pages: for an alignment above 16 bytes, Rust's
    /// allocator writes the zeros itself (`alloc_zeroed` in `library/std/src/sys/alloc/unix.rs`).
    buffer: Box<[u8]>,
    /// Where the first slot starts in `buffer`.
    start: usize,
    slot_len: usize,
}

impl Slots {
    /// This many slots for frames of up to `max_frame` bytes, each with at least one byte more.
    pub(crate) fn new(count: usize, max_frame: usize) -> Self {
        let slot_len = (max_frame + 1).next_multiple_of(CACHE_LINE);
        let slots_len = (slot_len + HEADROOM) * count;
        let buffer_len = (slots_len + LARGE + CACHE_LINE - 1).max(UNTOUCHED);
        let buffer = vec![0; buffer_len].into_boxed_slice();
        Self {
            start: buffer.as_ptr().align_offset(CACHE_LINE) + HEADROOM,
            buffer,
            slot_len,
        }
    }

    /// The first `len` bytes of a slot, and `header` bytes of the room in front of it.
    pub(crate) fn first_of(&self, index: usize, len: usize, header: usize) -> &[u8] {
        let start = self.start_of(index);
        &self.buffer[start - header..start + len]
    }

    pub(crate) fn get_mut(&mut self, index: usize) -> &mut [u8] {
        let start = self.start_of(index);
        &mut self.buffer[start..start + self.slot_len]
    }

    /// The first `count` slots.
    pub(crate) fn first_mut(&mut self, count: usize) -> impl Iterator<Item = &mut [u8]> {
        let (stride, slot_len) = (self.stride(), self.slot_len);
        self.buffer[self.start..]
            .chunks_exact_mut(stride)
            .map(move |slot| &mut slot[..slot_len])
            .take(count)
    }

    /// Everything from `header` bytes in front of a slot on.
    fn rest_mut(&mut self, index: usize, header: usize) -> &mut [u8] {
        let start = self.start_of(index) - header;
        &mut self.buffer[start..]
    }

    const fn start_of(&self, index: usize) -> usize {
        self.start + index * self.stride()
    }

    /// How many bytes a slot begins behind the last one.
    const fn stride(&self) -> usize {
        self.slot_len + HEADROOM
    }

    /// How long each slot is.
    pub(crate) const fn slot_len(&self) -> usize {
        self.slot_len
    }
}

const CACHE_LINE: usize = 64;
/// The room in front of each slot, in bytes: as much as lets the next slot begin at a cache line.
pub const HEADROOM: usize = CACHE_LINE;
/// More than the longest frame that a system hands over as one, a TCP segment of 64 KiB with its
/// Ethernet header.
pub const LARGE: usize = (64 << 10) + 64;
/// From this size on, zeroed memory comes as untouched pages. For less, the allocator may reuse
/// memory and clear it by writing (glibc, M_MMAP_THRESHOLD of mallopt(3)).
const UNTOUCHED: usize = 132 << 10;

#[cfg(test)]
pub(crate) fn assert_at_cache_lines(addresses: &[usize]) {
    for address in addresses {
        assert_eq!(address % CACHE_LINE, 0, "{addresses:x?}");
        assert!(!(1..32).contains(&(address % 4096)), "{addresses:x?}");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// What the steps of a frame's path do with a batch.
    #[derive(Debug, Clone)]
    enum Operation {
        /// An endpoint receives frames of these lengths, and at most this many.
        Receive(Vec<u32>, usize),
        /// The filter passes the next frame.
        Queue,
        /// It drops the next frame.
        Drop,
        /// It passes the next frame with another length.
        Rewrite(usize),
        /// The other endpoint sends this many frames, or drops them.
        Advance(usize),
    }

    /// A batch, and its expected contents: each frame is a run of equal bytes.
    struct Model {
        batch: Batch,
        frames: Vec<Vec<u8>>,
        judged: usize,
        pending: VecDeque<usize>,
        /// The byte of the next frame.
        byte: u8,
    }

    impl Model {
        fn new() -> Self {
            Self {
                batch: Batch::new(MAX_FRAME),
                frames: Vec::new(),
                judged: 0,
                pending: VecDeque::new(),
                byte: 0,
            }
        }

        fn apply(&mut self, operation: &Operation) {
            match operation {
                Operation::Receive(lens, limit) => self.receive(lens, *limit),
                Operation::Advance(count) => {
                    self.batch.advance(*count);
                    self.pending.drain(..self.pending.len().min(*count));
                }
                _ if self.judged == self.frames.len() => {}
                Operation::Drop => self.judged += 1,
                Operation::Queue => self.queue(),
                Operation::Rewrite(len) => {
                    let frame = &mut self.frames[self.judged];
                    frame.resize((*len).min(SLOT), frame.first().copied().unwrap_or(0));
                    let mut slot = self.batch.slot(self.judged);
                    slot.whole().0[..frame.len()].copy_from_slice(frame);
                    slot.set_len(*len);
                    self.queue();
                }
            }
            self.check();
        }

        fn receive(&mut self, lens: &[u32], limit: usize) {
            self.frames.clear();
            let (slots, slot_lens) = self.batch.fill(limit);
            for ((slot, slot_len), len) in slots.zip(slot_lens).zip(lens) {
                self.byte = self.byte.wrapping_add(1);
                // Like the system, which reports the frame's length before it was truncated.
                let kept = slot.len().min(*len as usize);
                slot[..kept].fill(self.byte);
                *slot_len = *len;
                self.frames.push(vec![self.byte; kept]);
            }
            self.batch.set_received(self.frames.len());
            self.judged = 0;
            self.pending.clear();
        }

        fn queue(&mut self) {
            self.batch.queue(self.judged);
            self.pending.push_back(self.judged);
            self.judged += 1;
        }

        fn check(&self) {
            assert_eq!(self.batch.received(), self.frames.len());
            let bytes = self.frames.iter().map(Vec::len).sum::<usize>();
            assert_eq!(self.batch.received_bytes(), bytes);
            for (index, frame) in self.frames.iter().enumerate() {
                assert_eq!(self.batch.frame(index), frame);
            }
            let pending = self.pending.iter().map(|&index| &self.frames[index][..]);
            assert!(self.batch.pending().eq(pending), "out of order, or changed");
            assert_eq!(self.batch.pending().len(), self.pending.len());
        }
    }

    fn operation() -> impl Strategy<Value = Operation> {
        let lens = prop::collection::vec(0..=2 * SLOT_LEN, 0..=FRAMES_MAX);
        prop_oneof![
            1 => (lens, 0..=FRAMES_MAX + 1)
                .prop_map(|(lens, limit)| Operation::Receive(lens, limit)),
            8 => Just(Operation::Queue),
            2 => Just(Operation::Drop),
            2 => (0..=2 * SLOT).prop_map(Operation::Rewrite),
            3 => (0..=8_usize).prop_map(Operation::Advance),
        ]
    }

    proptest! {
        #[test]
        fn a_batch_holds_what_it_was_given_in_order(
            operations in prop::collection::vec(operation(), 1..300),
        ) {
            let mut model = Model::new();
            for operation in &operations {
                model.apply(operation);
            }
        }
    }

    const MAX_FRAME: usize = 100;
    /// The length of a slot for such a frame.
    const SLOT: usize = 128;
    const SLOT_LEN: u32 = 128;

    fn filled(frames: &[&[u8]]) -> Batch {
        let mut batch = Batch::new(100);
        let (slots, lens) = batch.fill(FRAMES_MAX);
        for ((slot, len), frame) in slots.zip(lens).zip(frames) {
            let kept = frame.len().min(slot.len());
            slot[..kept].copy_from_slice(&frame[..kept]);
            *len = u32::try_from(frame.len()).unwrap();
        }
        batch.set_received(frames.len());
        batch
    }

    #[test]
    fn queued_frames_are_pending_in_order_until_sent() {
        let mut batch = filled(&[b"zero", b"one", b"two", b"three"]);
        for index in [0, 2, 3] {
            batch.queue(index);
        }
        assert_eq!(
            batch.pending().collect::<Vec<_>>(),
            [b"zero" as &[u8], b"two", b"three"]
        );
        batch.advance(1);
        assert_eq!(
            batch.pending().collect::<Vec<_>>(),
            [b"two" as &[u8], b"three"]
        );
        batch.advance(7);
        assert_eq!(batch.pending().len(), 0);
    }

    #[test]
    fn a_frame_that_is_too_long_comes_out_longer_than_the_maximum() {
        let batch = filled(&[&[1; 100], &[2; 101], &[3; 5000]]);
        let lens = [0, 1, 2].map(|index| batch.frame(index).len());
        assert_eq!(lens[0], 100);
        assert!(lens[1] > 100 && lens[2] > 100, "{lens:?}");
    }

    #[test]
    fn a_rewritten_frame_may_grow_within_its_slot() {
        let mut batch = filled(&[b"short"]);
        let mut slot = batch.slot(0);
        let (bytes, len) = slot.whole();
        assert_eq!(len, 5);
        bytes[5..8].copy_from_slice(b"ish");
        slot.set_len(8);
        batch.queue(0);
        assert_eq!(batch.pending().next(), Some(b"shortish" as &[u8]));
        batch.slot(0).set_len(usize::MAX);
        assert_eq!(batch.frame(0).len(), 128);
    }

    #[test]
    fn every_slot_begins_at_a_cache_line() {
        for max_frame in [0, 100, 1514, 9014, 16_384, 65_549] {
            let mut batch = Batch::new(max_frame);
            let addresses: Vec<usize> = batch
                .fill(FRAMES_MAX)
                .0
                .map(|slot| slot.as_ptr().addr())
                .collect();
            assert_eq!(addresses.len(), FRAMES_MAX);
            assert_at_cache_lines(&addresses);
            batch.set_received(FRAMES_MAX);
            for (index, address) in addresses.into_iter().enumerate() {
                assert_eq!(batch.frame(index).as_ptr().addr(), address);
                assert_eq!(batch.slot(index).whole().0.as_ptr().addr(), address);
            }
        }
    }

    #[test]
    fn slots_begin_at_cache_lines_however_many_there_are() {
        for count in [1, 2, 4, 32] {
            for max_frame in [0, 60, 1514, 16_384, 65_549] {
                let mut slots = Slots::new(count, max_frame);
                let addresses: Vec<usize> = slots
                    .first_mut(count)
                    .map(|slot| slot.as_ptr().addr())
                    .collect();
                assert_eq!(addresses.len(), count);
                assert_at_cache_lines(&addresses);
                assert!(slots.get_mut(count - 1).len() > max_frame);
            }
        }
    }

    #[test]
    fn filling_again_forgets_what_was_there() {
        let mut batch = filled(&[b"a", b"b"]);
        batch.queue(1);
        let (slots, lens) = batch.fill(5);
        assert_eq!((slots.count(), lens.len()), (5, 5));
        assert_eq!((batch.received(), batch.pending().len()), (0, 0));
        assert_eq!(batch.fill(usize::MAX).0.count(), FRAMES_MAX);
    }
}
