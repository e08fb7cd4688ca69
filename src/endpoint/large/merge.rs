//! Merging: finds the frames at the head of a batch that can leave as one large segment.
//!
//! Only frames that follow each other are merged, as a sender sends them, so that all keep their
//! order. Nothing waits for another frame, and no frame is changed: the large segment has headers
//! of its own, and takes its data from where it is.

use arrayvec::ArrayVec;

use crate::batch::FRAMES_MAX;
use crate::wire::segment::{LargeHeaders, Segment};

/// Frames that leave as one.
#[derive(Debug)]
pub struct Run<'a> {
    /// What comes before the data, the virtio header included.
    pub headers: LargeHeaders,
    /// The data of each frame: at least two.
    pub data: ArrayVec<&'a [u8], FRAMES_MAX>,
}

impl<'a> Run<'a> {
    /// The run that begins with `first`, if any of the frames that follow can be joined to it.
    ///
    /// A checksum is verified only when a frame is about to be joined, as that costs more than all
    /// else here.
    #[must_use]
    pub fn of(first: &'a [u8], following: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let head = Segment::parse(first)?;
        if head.is_pushed() || head.data.len() < LEN_MIN {
            return None;
        }
        let mut last = head;
        let mut data = ArrayVec::new();
        let mut len = head.data.len();
        for (parts, frame) in (1..).zip(following) {
            let Some(next) = Segment::parse(frame) else {
                break;
            };
            if !head.is_continued_by(&next, parts, len) {
                break;
            }
            if data.is_empty() {
                if !head.is_intact() {
                    return None;
                }
                data.push(head.data);
            }
            if !next.is_intact() || data.try_push(next.data).is_err() {
                break;
            }
            len += next.data.len();
            last = next;
            if next.is_pushed() || next.data.len() < head.data.len() {
                break;
            }
        }
        (data.len() > 1).then(|| Self {
            headers: head.headers_of_large(&last, len),
            data,
        })
    }
}

/// Smaller segments are not worth it, and the host's network would get more of them for one write.
const LEN_MIN: usize = 256;
